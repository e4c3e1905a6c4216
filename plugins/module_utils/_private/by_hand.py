# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hand-made service that runs under the app's name: what it listens on, who is connected to it, what taking it over costs.

Reads only.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from contextlib import closing, suppress
from dataclasses import dataclass

from .command import run
from .listening import V4, V6, Endpoint, endpoint, overlap, plain, root_of, unit_of

PIDFD_GETFD = 438  # the same on every architecture
# States in /proc/net/tcp, and of a unix socket the flag and the state in /proc/net/unix that mean the same.
LISTENS, ESTABLISHED = "0A", "01"
# How long nobody listens when the old socket cannot be shared: until the old one has closed it and systemd has bound it.
CLOSED = "about 0.1 s"
UNIX_ACCEPTS, UNIX_CONNECTED = 0x10000, "03"


@dataclass(frozen=True)
class Connection:
    """A socket of this host with its local address. ``host`` of a unix socket is its path, and ``port`` 0."""

    family: int
    host: str
    port: int
    state: str
    inode: str

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(plain(self.host) if self.port else self.host, self.port)

    def __str__(self) -> str:
        return (
            self.host
            if not self.port
            else f"[{self.host}]:{self.port}"
            if ":" in self.host
            else f"{self.host}:{self.port}"
        )


class ByHand:
    """What runs as ``<app>.service``.

    :param wanted: addresses of the app's public socket, as ``forge_listen`` or its unit has them.
    """

    def __init__(self, app: str, wanted: list[str]) -> None:
        self.service, self.socket = f"{app}.service", f"{app}.socket"
        self.wanted = [endpoint(each) for each in wanted]

    def is_active(self) -> bool:
        return "ActiveState=active\n" in show(self.service, "ActiveState")

    def processes(self) -> list[int]:
        """Ids of the processes that run in the service. Ours runs none: it starts a generation, and has done."""
        found, root = [], root_of()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as handle:
                if unit_of(handle.read(), root) == self.service:
                    found.append(int(pid))
        return sorted(found)

    def sockets(self, state: str) -> list[tuple[int, int, Connection]]:
        """Sockets of the service in a state: process, its file descriptor, and the socket. Each socket once."""
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

    def in_the_way(self) -> list[tuple[int, int, Connection]]:
        """Listening sockets at an address that ours wants."""
        return [each for each in self.sockets(LISTENS) if any(overlap(each[2].endpoint, one) for one in self.wanted)]

    def given_by_systemd(self) -> list[str]:
        """Addresses of the socket unit of the app's name, when systemd listens for it."""
        shown = show(self.socket, "ActiveState,Listen")
        return re.findall(r"^Listen=(.+) \(Stream\)$", shown, re.MULTILINE) if "ActiveState=active\n" in shown else []

    def problem(self) -> str:
        """Why it cannot be taken over; empty when it can."""
        given = [endpoint(each) for each in self.given_by_systemd()]
        if given and sorted(given) != sorted(self.wanted):
            return (
                f"{self.socket} on this host was made by somebody else and listens elsewhere than forge_listen says: give "
                "forge_listen its addresses, or stop and remove it."
            )
        return ""

    def state(self) -> str:
        """What it does now, for people: a verb and the rest."""
        listeners = sorted({str(each) for _pid, _number, each in self.sockets(LISTENS)} or self.given_by_systemd())
        if listeners:
            return f"serves at {', '.join(listeners)}"
        return "listens nowhere" if self.is_active() else "does not run"

    def cost(self) -> str:
        """What taking it over costs its clients, in sentences; empty when it has none."""
        listeners = self.sockets(LISTENS)
        places = {each.endpoint for _pid, _number, each in listeners}
        count = sum(
            any(each.port == place.port and (each.port or each.host == place.host) for place in places)
            for _pid, _number, each in self.sockets(ESTABLISHED)
        )
        given_up = sorted(
            {str(each) for _pid, _number, each in listeners if not is_covered(each.endpoint, self.wanted)}
        )
        found = []
        if self.in_the_way():
            if self.given_by_systemd():  # both accept from it then
                found.append(
                    "No new connection is refused; one that the old service accepts while it stops may be cut."
                )
            else:
                found.append(
                    "No new connection is lost." if can_share() else f"New connections are refused for {CLOSED}."
                )
        if given_up:
            found.append(f"Nobody listens at {', '.join(given_up)} any more: forge_listen does not name it.")
        if listeners:
            found.append(f"Its open connections, now {count}, end as at each restart of it.")
        return " ".join(found)


def show(unit: str, properties: str) -> str:
    """Properties of a unit, a line each. Not by the unit ``systemd``: with what that imports, each look would be a quarter larger."""
    return str(run(["systemctl", "show", unit, "--property", properties]).stdout)


def is_covered(place: Endpoint, wanted: list[Endpoint]) -> bool:
    """Will who connects to this address reach one of those?"""
    return any(
        one == place or (one.port == place.port and (one.host == V6 or (one.host == V4 and ":" not in place.host)))
        for one in wanted
    )


def connections() -> list[Connection]:
    """TCP sockets of the host, and unix sockets with a path, that listen or are connected."""
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
    with suppress(OSError), open("/proc/net/unix", encoding="utf-8", errors="replace") as handle:
        for line in handle.read().splitlines()[1:]:
            row = line.split(None, 7)
            if len(row) == 8 and row[7].startswith("/"):
                state = LISTENS if int(row[3], 16) & UNIX_ACCEPTS else ESTABLISHED if row[5] == UNIX_CONNECTED else ""
                found.append(Connection(socket.AF_UNIX, row[7], 0, state, row[6]))
    return found


def duplicate(pid: int, number: int) -> socket.socket:
    """A duplicate of a socket of another process.

    :raises OSError: where the kernel has no such call, or forbids it.
    """
    import ctypes  # it costs a host 10 ms, and hardly any has a service to take over

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
        with closing(socket.socket()) as own:
            duplicate(os.getpid(), own.fileno()).close()
    except (OSError, AttributeError):
        return False
    return True
