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
import signal
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

from . import systemd
from .command import run
from .layout import Layout, sync_directory, write_atomically
from .ownership import marked_app
from .serving import installed_text

PIDFD_GETFD = 438  # the same on every architecture
SO_ATTACH_REUSEPORT_CBPF, SO_BINDTOIFINDEX = 51, 62
NO_INTERFACE = 1 << 30
LISTENS, ESTABLISHED = "0A", "01"  # states in /proc/net/tcp
FILTER_RETURN = 6  # BPF_RET | BPF_K
QUEUE_SECONDS = 2  # until the old one has accepted what waits for it
READ_SECONDS = 0.5  # until it has read what it accepted
BIND_SECONDS = 35  # until an old one that does not share its port has closed it
PAUSE = 0.02
# How long nobody listens when the old socket cannot be shared: until the old one has closed it and systemd has bound it.
CLOSED = "about 0.1 s"


def is_foreign(layout: Layout, unit: str) -> bool:
    """Is there a unit file of this name that does not carry the app's mark?"""
    return (
        os.path.lexists(os.path.join(layout.units, unit))
        and marked_app(installed_text(layout, unit), unit) != layout.app
    )


@dataclass(frozen=True)
class Connection:
    """A row of /proc/net/tcp: a socket with its local address."""

    family: int
    host: str
    port: int
    state: str
    inode: str


class TakeOver:
    """What runs as ``<app>.service`` and was not made by us, beside a generation that is to serve in its place."""

    def __init__(self, layout: Layout, generation: str, units: dict[str, str]) -> None:
        """:param units: of the generation, name to text."""
        self.layout = layout
        self.service, self.socket = f"{layout.app}.service", f"{layout.app}.socket"
        self.heir = layout.service(generation)
        self.units = units
        self.backups = os.path.join(layout.home, "taken-over")
        self.drop_in = os.path.join("/run/systemd/system", f"{self.socket}.d", "take-over.conf")
        self.shared: list[tuple[Connection, socket.socket]] = []

    # -- what is there -----------------------------------------------------------------------------

    def foreign(self) -> list[str]:
        """Unit files of the app's name that are somebody else's; none once the app serves."""
        if self.layout.live():
            return []
        return [name for name in (self.service, self.socket) if is_foreign(self.layout, name)]

    def is_due(self) -> bool:
        """Is there something to take over? Also when a rollout was killed before it had ended the old one."""
        return bool(self.foreign()) or bool(self.is_active() and self.processes())

    def is_active(self) -> bool:
        return systemd.properties(self.service, "ActiveState")["ActiveState"] == "active"

    def processes(self) -> list[int]:
        """Ids of the processes that run in the old service. Ours runs none: it starts a generation, and has done."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as handle:
                if re.search(rf"/{re.escape(self.service)}$", handle.read(), re.MULTILINE):
                    found.append(int(pid))
        return sorted(found)

    def sockets(self, state: str) -> list[tuple[int, int, Connection]]:
        """Sockets of the old service in a state: process, its file descriptor, and the socket. Each socket once."""
        rows = {row.inode: row for row in connections() if row.state == state}
        found: dict[str, tuple[int, int, Connection]] = {}
        for pid in self.processes():
            with suppress(OSError):
                for name in os.listdir(f"/proc/{pid}/fd"):
                    with suppress(OSError):
                        inode = os.readlink(f"/proc/{pid}/fd/{name}").removeprefix("socket:[").rstrip("]")
                        if inode in rows:
                            found.setdefault(inode, (pid, int(name), rows[inode]))
        return list(found.values())

    def wanted(self) -> list[str]:
        """Addresses of our public socket, as its unit has them."""
        return re.findall(r"^ListenStream=(.+)$", self.units.get(self.socket, ""), re.MULTILINE)

    def in_the_way(self) -> list[tuple[int, int, Connection]]:
        """Listening sockets of the old service at a port that ours wants."""
        ports = {address.rpartition(":")[2] for address in self.wanted()}
        return [each for each in self.sockets(LISTENS) if str(each[2].port) in ports]

    def problem(self) -> str:
        """Why it cannot be taken over; empty when it can."""
        if self.socket in self.foreign() and systemd.properties(self.socket, "ActiveState")["ActiveState"] == "active":
            shown = systemd.systemctl("show", self.socket, "--property", "Listen")
            if sorted(re.findall(r"^Listen=(.+) \(Stream\)$", shown, re.MULTILINE)) != sorted(self.wanted()):
                return (
                    f"{self.socket} on this host was made by somebody else and listens elsewhere than forge_listen says: give "
                    "forge_listen its addresses, or stop and remove it."
                )
        return ""

    def notice(self) -> str:
        """What will happen, for people, before anything starts."""
        if not self.is_active():
            return f"{self.service} was made by somebody else and does not run: it is replaced, and kept in {self.backups}."
        listeners = {(each.host, each.port) for _pid, _number, each in self.sockets(LISTENS)}
        ports = {port for _host, port in listeners}
        count = sum(each.port in ports for _pid, _number, each in self.sockets(ESTABLISHED))
        where = ", ".join(f"{host}:{port}" for host, port in sorted(listeners)) or "no TCP address"
        way = "No new connection is lost"
        if self.in_the_way() and not can_share():
            way = f"Its port cannot be shared on this host, so that it is closed for {CLOSED}"
        return (
            f"{self.service} was made by somebody else and serves at {where}: it is taken over once the candidate is healthy. {way}. "
            f"Its {count} open connections end as at each restart of it. Its file is kept in {self.backups}."
        )

    # -- the steps of a switch ---------------------------------------------------------------------

    def open_beside(self) -> None:
        """Open our public socket beside the old one, which gets all new connections for the time being.

        :raises SystemdError: when it cannot be opened.
        """
        self.back_up()
        if systemd.properties(self.socket, "ActiveState")["ActiveState"] == "active":
            return  # of the old service too: systemd keeps it open through the change of its unit
        listeners = self.in_the_way()
        try:
            self.shared = [(each, share(pid, number)) for pid, number, each in listeners]
        except OSError:
            self.shared = []
        # The service that a socket is for must not run when it is opened, and the old one does.
        os.makedirs(os.path.dirname(self.drop_in), exist_ok=True)
        text = f"[Socket]\nReusePort=yes\nService={self.heir}\n"
        write_atomically(self.drop_in, text.encode(), 0o644)
        write_atomically(os.path.join(self.layout.units, self.socket), self.units[self.socket].encode(), 0o644)
        systemd.systemctl("daemon-reload")
        if listeners and not self.shared:
            self.stop_old()
        deadline = time.monotonic() + (BIND_SECONDS if listeners and not self.shared else 0)
        while True:
            try:
                systemd.systemctl("start", self.socket)
                break
            except systemd.SystemdError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(PAUSE)
        self.steer(to_ours=False)

    def steer(self, to_ours: bool) -> None:
        """Say who gets new connections."""
        groups: dict[tuple[int, str, int], list[socket.socket]] = {}
        for connection, listener in self.shared:
            groups.setdefault((connection.family, connection.host, connection.port), []).append(listener)
        ours = {address_of(address) for address in self.wanted()}
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
        """Keep the old unit files."""
        for name in self.foreign():
            os.makedirs(self.backups, mode=0o755, exist_ok=True)
            write_atomically(os.path.join(self.backups, name), installed_text(self.layout, name).encode(), 0o644)

    def forget_drop_in(self) -> None:
        """Before the next daemon-reload, which the new units need anyway."""
        with suppress(FileNotFoundError):
            os.unlink(self.drop_in)
        with suppress(OSError):
            os.rmdir(os.path.dirname(self.drop_in))

    def stop_old(self) -> None:
        """Tell the processes of the old service to stop, as systemd would. Not by systemctl: that stops the heir too."""
        state = systemd.properties(self.service, "MainPID", "KillMode", "KillSignal")
        pids = self.processes()
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
        while self.processes():
            if time.monotonic() >= deadline:
                for pid in self.processes():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(PAUSE)
        run(["systemctl", "reset-failed", self.service])

    def undo(self) -> None:
        """Let the old one serve on, as it did."""
        with suppress(OSError):
            self.steer(to_ours=False)
        for name in (self.service, self.socket):
            kept = os.path.join(self.backups, name)
            if os.path.exists(kept):
                with open(kept, "rb") as handle:
                    write_atomically(os.path.join(self.layout.units, name), handle.read(), 0o644)
                os.unlink(kept)
        with suppress(OSError):
            os.rmdir(self.backups)
            sync_directory(self.layout.home)
        self.forget_drop_in()
        systemd.systemctl("daemon-reload")


# -- the kernel ----------------------------------------------------------------------------------------


def connections() -> list[Connection]:
    """TCP sockets of the host that listen or are connected."""
    found = []
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as handle:
            for line in handle.read().splitlines()[1:]:
                fields = line.split()
                host, _colon, port = fields[1].partition(":")
                # Words of four bytes, each in the order of this machine.
                words = [struct.pack("=I", int(host[at : at + 8], 16)) for at in range(0, len(host), 8)]
                address = socket.inet_ntop(family, b"".join(words))
                found.append(Connection(family, address, int(port, 16), fields[3], fields[9]))
    return found


def address_of(listen: str) -> tuple[int, str, int]:
    """Family, host and port of an address of ``ListenStream=``."""
    host, _colon, port = listen.rpartition(":")
    if host.startswith("["):
        host = host[1:-1]
        return socket.AF_INET6, socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host)), int(port)
    return socket.AF_INET, host, int(port) if port.isdigit() else 0


def duplicate(pid: int, number: int) -> socket.socket:
    """A duplicate of a socket of another process.

    :raises OSError: where the kernel has no such call, or forbids it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        copy = libc.syscall(PIDFD_GETFD, process, number, 0)
    finally:
        os.close(process)
    if copy < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return socket.socket(fileno=copy)


def can_share() -> bool:
    """Does this host let root duplicate a socket of another process? Tried on one of this one."""
    try:
        with socket.socket() as own:
            duplicate(os.getpid(), own.fileno()).close()
    except (OSError, AttributeError):
        return False
    return True


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
