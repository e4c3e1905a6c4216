# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of ``forge_listen``: which of them overlap, and who on the host listens there already."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
from collections.abc import Iterable
from contextlib import closing, suppress
from typing import NamedTuple

from .command import run

LISTENING = "0A"  # state of a TCP socket in /proc/net/tcp
ACCEPTS = 0x10000  # flag of a unix socket in /proc/net/unix
V4, V6 = "0.0.0.0", "::"  # noqa: S104 (any address)


class Endpoint(NamedTuple):
    """``host`` is an IP address, or the path of a unix socket, whose ``port`` is 0."""

    host: str
    port: int


class Listener(NamedTuple):
    """A socket that somebody listens on; the inode tells it from others."""

    endpoint: Endpoint
    inode: str


class Holder(NamedTuple):
    """Who holds a socket. ``unit`` is empty for a process outside of units, such as one in a shell."""

    program: str
    unit: str

    def __str__(self) -> str:
        return f"{self.program} (unit {self.unit})" if self.unit else self.program


def endpoint(entry: str) -> Endpoint:
    """An entry of ``forge_listen``. A port alone is every address, as in the unit of the socket."""
    if entry.startswith("/"):
        return Endpoint(os.path.normpath(entry), 0)
    host, _colon, port = entry.rpartition(":")
    return Endpoint(plain(host.strip("[]") or V6), int(port))


def plain(host: str) -> str:
    """An IP address in its usual form; one of IPv4 that is written as one of IPv6 as what it is.

    ``ipaddress`` would do the same, but costs a host 10 ms to import.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with suppress(OSError):
        host = socket.inet_ntop(family, socket.inet_pton(family, host))
    return host.removeprefix("::ffff:") if "." in host else host


def overlap(one: Endpoint, other: Endpoint) -> bool:
    """Whether only one of two sockets can be opened."""
    if one.port != other.port:
        return False
    hosts = {one.host, other.host}
    return len(hosts) == 1 or V6 in hosts or (V4 in hosts and not any(":" in host for host in hosts))


def bind_error(wanted: Endpoint) -> int:
    """Number of the error that binding ends with, 0 when the address is free. Nobody is listened to."""
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((wanted.host, wanted.port))
        except OSError as error:
            return error.errno or errno.EIO
    return 0


class Sockets:
    """Who listens on this host. ``proc`` is where the kernel tells."""

    def __init__(self, proc: str = "/proc") -> None:
        self.proc = proc

    def listeners(self) -> list[Listener]:
        """Sockets of TCP, and unix sockets with a path."""
        found = []
        for name in ("tcp", "tcp6"):
            for line in self.lines("net", name):
                fields = line.split()
                if len(fields) > 9 and fields[3] == LISTENING:
                    host, _colon, port = fields[1].partition(":")
                    found.append(Listener(Endpoint(address_of(host), int(port, 16)), fields[9]))
        for line in self.lines("net", "unix"):
            fields = line.split(None, 7)
            if len(fields) == 8 and int(fields[3], 16) & ACCEPTS:
                found.append(Listener(Endpoint(fields[7].strip(), 0), fields[6]))
        return found

    def lines(self, *path: str) -> list[str]:
        """Lines of a table of the kernel, its head left out."""
        with suppress(OSError), open(os.path.join(self.proc, *path), encoding="utf-8", errors="replace") as handle:
            return handle.read().splitlines()[1:]
        return []

    def holds(self, pid: str, inode: str) -> bool:
        directory = os.path.join(self.proc, pid, "fd")
        with suppress(OSError):
            for descriptor in os.listdir(directory):
                with suppress(OSError):
                    if os.readlink(os.path.join(directory, descriptor)) == f"socket:[{inode}]":
                        return True
        return False

    def holder(self, listener: Listener) -> Holder:
        """Who holds a socket: a process, or, before its service runs, systemd for a unit."""
        pids = [pid for pid in os.listdir(self.proc) if pid.isdigit() and self.holds(pid, listener.inode)]
        others = [pid for pid in pids if pid != "1"]
        if "1" in pids:
            return Holder("systemd", socket_unit(listener.endpoint))
        for pid in others:
            with suppress(OSError):
                with open(os.path.join(self.proc, pid, "comm"), encoding="utf-8", errors="replace") as handle:
                    program = handle.read().strip()
                with open(os.path.join(self.proc, pid, "cgroup"), encoding="utf-8") as handle:
                    return Holder(program, unit_of(handle.read(), root_of(self.proc)))
        return Holder("a program", "")


def unit_of(cgroups: str, root: str = "") -> str:
    """Unit of the system in which a process runs, by its /proc/PID/cgroup; empty when it is in none.

    What a user's own systemd has started runs in a unit of the user's, inside of ``user@1000.service``, and what a container's has
    started inside of the container's scope. Those may have any name.

    :param root: of the system's own units, see :func:`root_of`.
    """
    path = cgroup_of(cgroups)
    parts = path[len(root) :].split("/")[1:] if path.startswith(f"{root}/") else []
    unit = next((part for part in parts if not part.endswith(".slice")), "")
    return unit if unit.endswith((".service", ".scope")) else ""


def cgroup_of(cgroups: str) -> str:
    """Path that systemd gave a process, in its /proc/PID/cgroup."""
    found = re.search(r"^(?:0:|\d+:name=systemd):(.*)$", cgroups, re.MULTILINE)
    return found[1] if found else ""


def root_of(proc: str = "/proc") -> str:
    """Path below which systemd, process 1, has its units: empty, but on a host that is a container itself."""
    with suppress(OSError), open(os.path.join(proc, "1", "cgroup"), encoding="utf-8", errors="replace") as handle:
        path = cgroup_of(handle.read())
        return path.removesuffix("/init.scope") if path.endswith("/init.scope") else ""
    return ""


def address_of(kernel: str) -> str:
    """An IP address as /proc/net/tcp has it: words of four bytes in the machine's own order."""
    words = [int(kernel[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(kernel), 8)]
    return plain(socket.inet_ntop(socket.AF_INET6 if len(words) == 4 else socket.AF_INET, b"".join(words)))


def socket_unit(wanted: Endpoint) -> str:
    """Name of the unit for which systemd listens; empty when it does not say."""
    for line in run(["systemctl", "list-sockets", "--no-legend", "--plain", "--full"]).stdout.splitlines():
        entry, _blank, rest = line.strip().partition(" ")
        if (entry.startswith("/") or re.search(r":\d+$", entry)) and endpoint(entry) == wanted and rest.split():
            return rest.split()[0]
    return ""


def why_taken(entry: str, is_ours: Iterable[Endpoint], proc: str = "/proc") -> str | Holder:
    """Why an entry of ``forge_listen`` cannot be opened: a reason, or who listens there; empty when it can.

    :param is_ours: what systemd listens on for this app.
    """
    wanted, ours = endpoint(entry), set(is_ours)
    if wanted.port == 0:
        problem = path_problem(wanted.host)
    else:
        code = bind_error(wanted)
        if code == errno.EADDRNOTAVAIL:
            return "is no address of this host"
        problem = "is taken" if code == errno.EADDRINUSE else ""
    if not problem:
        return ""
    sockets = Sockets(proc)
    listeners = [listener for listener in sockets.listeners() if overlap(listener.endpoint, wanted)]
    for listener in listeners:
        if listener.endpoint not in ours or not sockets.holds("1", listener.inode):
            return sockets.holder(listener)
    if wanted.port == 0 and not listeners:
        return "" if problem == "is taken" else problem  # a socket that was left: systemd takes its place
    return "" if listeners else problem


def path_problem(path: str) -> str:
    """What is at the path of a unix socket; empty when nothing is. systemd would remove it, whatever it is."""
    try:
        return "is taken" if stat.S_ISSOCK(os.lstat(path).st_mode) else "is a file that is no socket"
    except OSError:
        return ""
