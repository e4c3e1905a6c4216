# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes over from a hand-made service that runs under the app's name, and hands its port on without a lost connection.

The kernel lets two sockets of one user listen at one address when both ask for it (``SO_REUSEPORT``). So the old listener is
made to ask for it, and to belong to root, through a duplicate of it (pidfd_getfd(2), Linux 5.6); then systemd opens ours beside
it. Who gets new connections is said to the kernel: by a filter where both are in one group, which are sockets at the very same
address; else by tying the old one to an interface that does not exist.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import struct
import time
from contextlib import suppress

from . import systemd
from .by_hand import ByHand, Connection, duplicate
from .command import run
from .layout import Layout, sync_directory, write_atomically
from .ownership import marked_app
from .serving import installed_text

SO_ATTACH_REUSEPORT_CBPF, SO_BINDTOIFINDEX = 51, 62
NO_INTERFACE = 1 << 30
FILTER_RETURN = 6  # BPF_RET | BPF_K
QUEUE_SECONDS = 2  # until the old one has accepted what waits for it
READ_SECONDS = 0.5  # until it has read what it accepted
BIND_SECONDS = 35  # until an old one that does not share its port has closed it
PAUSE = 0.005
OLD, OURS = ".taken-over", ".taking-over"  # other names of two unix sockets that change places
# Each way in which a process can end: exit statuses, and signals.
ANY_END = [*map(str, range(1, 256)), *(each.name for each in signal.Signals if each < 32)]


def is_foreign(layout: Layout, unit: str) -> bool:
    """Is there a unit file of this name that does not carry the app's mark?"""
    return (
        os.path.lexists(os.path.join(layout.units, unit))
        and marked_app(installed_text(layout, unit), unit) != layout.app
    )


class TakeOver:
    """What runs as ``<app>.service`` and was not made by us, beside a generation that is to serve in its place."""

    def __init__(self, layout: Layout, generation: str, units: dict[str, str]) -> None:
        """:param units: of the generation, name to text."""
        self.layout = layout
        self.service, self.socket = f"{layout.app}.service", f"{layout.app}.socket"
        self.heir = layout.service(generation)
        self.units = units
        self.backups = os.path.join(layout.home, "taken-over")
        self.drop_ins = "/run/systemd/system"
        self.shared: list[tuple[Connection, socket.socket]] = []
        self.wanted = re.findall(r"^ListenStream=(.+)$", units.get(self.socket, ""), re.MULTILINE)
        self.old = ByHand(layout.app, self.wanted)
        self.paths = [each for each in self.wanted if each.startswith("/")]
        self.was_active = False

    # -- what is there -----------------------------------------------------------------------------

    def foreign(self) -> list[str]:
        """Unit files of the app's name that are somebody else's; none once the app serves."""
        if self.layout.live():
            return []
        names = (self.service, self.socket, f"{self.service}.d", f"{self.socket}.d")
        return [name for name in names if is_foreign(self.layout, name)]

    def is_due(self) -> bool:
        """Is there something to take over? Also when a rollout was killed before it had ended the old one."""
        return bool(self.foreign()) or bool(self.old.is_active() and self.old.processes())

    # -- the steps of a switch ---------------------------------------------------------------------

    def open_beside(self) -> None:
        """Open our public socket beside the old one, which gets all new connections for the time being.

        :raises SystemdError: when it cannot be opened.
        """
        self.was_active = self.old.is_active()
        self.back_up()
        if self.socket in self.foreign() and self.old.given_by_systemd():
            return  # systemd keeps it open through the change of its unit, and both accept from it
        listeners = self.old.in_the_way()
        tcp = [each for each in listeners if each[2].port]
        try:
            self.shared = [(each, share(pid, number)) for pid, number, each in tcp]
        except OSError:
            self.shared = []
        # Else a rollout has opened it that was killed, and each socket has its names.
        is_closed = systemd.properties(self.socket, "ActiveState")["ActiveState"] != "active"
        for path in {each.host for _pid, _number, each in listeners if is_closed and not each.port}:
            link(path, path + OLD)
        write_atomically(os.path.join(self.layout.units, self.socket), self.units[self.socket].encode(), 0o644)
        # The service that a socket is for must not run when it is opened, and the old one does.
        self.write_drop_in(self.socket, f"[Socket]\nReusePort=yes\nService={self.heir}\n")
        systemd.systemctl("daemon-reload")
        if tcp and not self.shared:
            self.stop_old()
        deadline = time.monotonic() + (BIND_SECONDS if tcp and not self.shared else 0)
        while True:
            try:
                systemd.systemctl("start", self.socket)
                break
            except systemd.SystemdError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(PAUSE)
        for path in self.paths if is_closed else ():
            link(path, path + OURS)
        self.steer(to_ours=False)

    def steer(self, to_ours: bool) -> None:
        """Say who gets new connections."""
        for path in self.paths:
            with suppress(FileNotFoundError):
                link(path + (OURS if to_ours else OLD), path)
        groups: dict[tuple[int, str, int], list[socket.socket]] = {}
        for connection, listener in self.shared:
            groups.setdefault((connection.family, connection.host, connection.port), []).append(listener)
        ours = {address_of(address) for address in self.wanted}
        for address, listeners in groups.items():
            if address not in ours:
                for listener in listeners:
                    listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE if to_ours else 0)
            elif to_ours or len(listeners) == 1:  # ours came last
                choose(listeners[0], len(listeners) if to_ours else 0)

    def hand_over(self) -> None:
        """Let the old one have no new connection, and read what it has accepted."""
        self.steer(to_ours=True)
        deadline = time.monotonic() + QUEUE_SECONDS
        while any(waiting(listener) for _connection, listener in self.shared) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        time.sleep(READ_SECONDS if self.shared else 0)

    def back_up(self) -> None:
        """Keep the old unit files, and what was added to them."""
        for name in self.foreign():
            source, kept = os.path.join(self.layout.units, name), os.path.join(self.backups, name)
            os.makedirs(self.backups, mode=0o755, exist_ok=True)
            copy(source, kept)

    def give_way(self) -> None:
        """Let the units that are installed next be ours alone, before the daemon-reload that they need anyway."""
        for name in self.foreign():
            if name.endswith(".d"):
                shutil.rmtree(os.path.join(self.layout.units, name), ignore_errors=True)
        self.forget_drop_in(self.socket)
        # However the old process ends, to systemd it is ours by then, and when that fails the public socket is closed.
        self.write_drop_in(self.service, f"[Service]\nSuccessExitStatus={' '.join(ANY_END)}\n")

    def write_drop_in(self, unit: str, text: str) -> None:
        path = self.drop_in(unit)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_atomically(path, text.encode(), 0o644)

    def drop_in(self, unit: str) -> str:
        return os.path.join(self.drop_ins, f"{unit}.d", "take-over.conf")

    def forget_drop_in(self, *units: str) -> None:
        """Before the next daemon-reload."""
        for path in map(self.drop_in, units):
            with suppress(FileNotFoundError):
                os.unlink(path)
            with suppress(OSError):
                os.rmdir(os.path.dirname(path))

    def stop_old(self) -> None:
        """Tell the processes of the old service to stop, as systemd would. Not by systemctl: that stops the heir too."""
        state = systemd.properties(self.service, "MainPID", "KillMode", "KillSignal")
        pids = self.old.processes()
        if state.get("KillMode", "control-group") != "control-group" and int(state.get("MainPID", "0")) in pids:
            pids = [int(state["MainPID"])]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, int(state.get("KillSignal") or signal.SIGTERM))

    def end_old(self, seconds: float) -> None:
        """Stop the old service, and wait until it has finished.

        :param seconds: after which what is left of it is killed.
        """
        for _connection, listener in self.shared:
            listener.close()  # or it would stay open, and what waits in it would wait for ever
        self.shared = []
        self.stop_old()
        deadline = time.monotonic() + seconds
        while self.old.processes():
            if time.monotonic() >= deadline:
                for pid in self.old.processes():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self.keep_paths()
            time.sleep(PAUSE)
        self.keep_paths()
        self.forget_names()
        run(["systemctl", "reset-failed", self.service])
        self.forget_drop_in(self.service)
        systemd.systemctl("daemon-reload")

    def keep_paths(self) -> None:
        """Servers remove the path of their unix socket when they stop, whoever listens there by then."""
        for path in self.paths:
            if not os.path.lexists(path):
                with suppress(OSError):
                    os.link(path + OURS, path)

    def forget_names(self) -> None:
        """Leave each unix socket the name that it should have."""
        for path in self.paths:
            for end in (OLD, OURS):
                with suppress(OSError):
                    os.unlink(path + end)

    def undo(self) -> None:
        """Let the old one serve on, as it did. Our public socket is closed by now."""
        with suppress(OSError):
            self.steer(to_ours=False)
        self.forget_names()
        kept = sorted(os.listdir(self.backups)) if os.path.isdir(self.backups) else []
        for name in kept:
            copy(os.path.join(self.backups, name), os.path.join(self.layout.units, name))
        shutil.rmtree(self.backups, ignore_errors=True)
        sync_directory(self.layout.home)
        if self.socket not in kept:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self.layout.units, self.socket))
        self.forget_drop_in(self.service, self.socket)
        systemd.systemctl("daemon-reload")

    def revive(self) -> None:
        """Start the old one again, if it served and the failure came after its end."""
        if self.was_active and not self.old.processes():
            systemd.systemctl(
                "restart", *(name for name in (self.socket, self.service) if is_foreign(self.layout, name))
            )


# -- the kernel ----------------------------------------------------------------------------------------


def address_of(listen: str) -> tuple[int, str, int]:
    """Family, host and port of an address of ``ListenStream=``."""
    host, _colon, port = listen.rpartition(":")
    if host.startswith("["):
        host = host[1:-1]
        return socket.AF_INET6, socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host)), int(port)
    return socket.AF_INET, host, int(port) if port.isdigit() else 0


def copy(source: str, path: str) -> None:
    """Put a unit file, a link to one, or a directory of drop-ins in the place of what is there."""
    if os.path.islink(source):
        temporary = f"{path}.tmp"
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(os.readlink(source), temporary)
        os.rename(temporary, path)
    elif os.path.isdir(source):
        shutil.copytree(source, path, symlinks=True, dirs_exist_ok=True)
    else:
        with open(source, "rb") as handle:
            write_atomically(path, handle.read(), 0o644)


def link(source: str, path: str) -> None:
    """Give a socket another name, in place of what has it, so that there is always one who listens there."""
    temporary = f"{path}.tmp"
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    os.link(source, temporary)
    os.rename(temporary, path)


def share(pid: int, number: int) -> socket.socket:
    """Let systemd listen where a process listens already, and return a duplicate of its socket."""
    listener = duplicate(pid, number)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    os.fchown(listener.fileno(), 0, 0)  # both must be of one user
    return listener


def choose(member: socket.socket, index: int) -> None:
    """Let one socket of a group have all new connections.

    :param index: its place in the order in which they joined.
    """
    program = ctypes.create_string_buffer(struct.pack("=HBBI", FILTER_RETURN, 0, 0, index))
    member.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", 1, ctypes.addressof(program)))


def waiting(listener: socket.socket) -> int:
    """How many connections wait to be accepted: ``tcpi_unacked`` of a listening socket."""
    return int(struct.unpack_from("=I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32), 24)[0])
