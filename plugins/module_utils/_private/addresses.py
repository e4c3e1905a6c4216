# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the addresses of a public socket can be opened, and who has them otherwise. Opens nothing that stays open."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import stat
import sys
from dataclasses import dataclass
from fnmatch import fnmatch

from . import systemd

LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
UNIT = re.compile(r"([^/]+\.(?:service|scope|socket))(?=/|$)", re.MULTILINE)


@dataclass(frozen=True)
class Address:
    """An address as ``ListenStream=`` has it; a unix socket has a ``path``, others a ``host`` (an IP address) and a ``port``."""

    text: str
    host: str = ""
    port: int = 0
    path: str = ""

    def overlaps(self, other: Address) -> bool:
        """Can only one of the two be open?"""
        if self.path or other.path:
            return self.path == other.path
        if self.port != other.port:
            return False
        one, two = ipaddress.ip_address(self.host), ipaddress.ip_address(other.host)
        if one.version != two.version:  # [::] takes IPv4 as well, unless the host says otherwise
            return any(each.version == 6 and each.is_unspecified for each in (one, two)) and not ipv6_only()
        return one == two or one.is_unspecified or two.is_unspecified


def parse(text: str) -> Address | None:
    """An address of ``ListenStream=``, or a port; None where it is neither and systemd has to judge."""
    if text.startswith("/"):
        return Address(text, path=text)
    host, _colon, port = text.rpartition(":")
    try:
        return Address(text, str(ipaddress.ip_address(host.strip("[]") or "::")), int(port))
    except ValueError:
        return None


def parse_all(texts: list[str]) -> list[Address]:
    return [address for address in map(parse, texts) if address]


def overlap(texts: list[str]) -> tuple[str, str] | None:
    """Two of these addresses of which only one can be open; None when all can."""
    found = parse_all(texts)
    for number, one in enumerate(found):
        for two in found[number + 1 :]:
            if one.overlaps(two):
                return one.text, two.text
    return None


def ipv6_only() -> bool:
    try:
        with open("/proc/sys/net/ipv6/bindv6only", encoding="ascii") as handle:
            return handle.read().strip() == "1"
    except OSError:
        return False


def problem(app: str, wanted: list[str], present: list[str]) -> str:
    """A sentence on the first address that cannot be opened; empty when all can, or when it is this app that has them.

    :param app: whose units may have them: a switch takes them over.
    :param wanted: addresses that are to be open.
    :param present: addresses that the app has open.
    """
    both = overlap(wanted)
    if both:
        return f"forge_listen: {both[0]} and {both[1]} cannot both be open: leave out one."
    for address in parse_all([text for text in wanted if text not in present]):
        reason = unix_problem(app, address) if address.path else tcp_problem(app, address)
        if reason:
            return f"forge_listen: {reason}"
    return ""


def are_disjoint(wanted: list[str], present: list[str]) -> bool:
    """Can all of these be open beside each other?"""
    return overlap([*wanted, *present]) is None and len(parse_all([*wanted, *present])) == len(wanted) + len(present)


def tcp_problem(app: str, address: Address) -> str:
    """Try it as systemd does; bound only, so that nobody connects to it."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address.host, address.port))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return f"{address.text}: this host does not have that address."
        if error.errno != errno.EADDRINUSE:
            return f"{address.text} cannot be opened: {error.strerror}."
        return taken(address, foreign(app, holders(address)))
    return ""


def unix_problem(app: str, address: Address) -> str:
    """systemd removes what is in the way of a unix socket: so what somebody uses is looked for."""
    try:
        mode = os.lstat(address.path).st_mode
    except OSError:
        return ""
    if not stat.S_ISSOCK(mode):
        return f"{address.path} is there and is no socket: remove it, or give another path."
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            trial.settimeout(1)
            trial.connect(address.path)
    except ConnectionRefusedError:
        return ""  # nobody listens any more
    except OSError:
        pass
    return taken(address, foreign(app, holders(address)))


def taken(address: Address, names: list[str]) -> str:
    if not names:
        return ""
    return f"{address.text} is taken by {', '.join(names)}: give this app another address, or stop what is there."


def foreign(app: str, found: list[tuple[str, str]]) -> list[str]:
    """Who of the holders is not this app.

    :param found: of :func:`holders`.
    """
    ours = (f"{app}.service", f"{app}.socket", f"{app}@*.service")
    others = [(name, unit) for name, unit in found if not any(fnmatch(unit, pattern) for pattern in ours)]
    return sorted({f"{name} ({unit})" if unit else name for name, unit in others})


def holders(address: Address) -> list[tuple[str, str]]:
    """Processes that listen where only one can, each with its unit.

    For what systemd itself holds it is the socket unit; one that cannot be found out is "another process".
    """
    found: list[tuple[str, str]] = []
    inodes = listening_inodes(address)
    sockets = socket_units(address)
    for pid in (name for name in os.listdir("/proc") if name.isdigit()):
        if not inodes & open_inodes(pid):
            continue
        if pid == "1":
            found += [("systemd", unit) for unit in sockets] or [("systemd", "")]
        else:
            found.append((f"{process_name(pid)}, process {pid}", unit_of(pid)))
    return found or [("another process", "")]


def listening_inodes(address: Address) -> set[str]:
    """Inodes of listening sockets that overlap with an address."""
    found = set()
    for table in ("unix",) if address.path else ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{table}", encoding="utf-8", errors="replace") as handle:
                rows = [line.split() for line in handle.read().splitlines()[1:]]
        except OSError:
            continue
        for row in rows:
            if address.path:
                if row[7:8] == [address.path]:
                    found.add(row[6])
            elif row[3] == LISTENING and address.overlaps(kernel_address(row[1])):
                found.add(row[9])
    return found


def kernel_address(text: str) -> Address:
    """``0100007F:1F40``: words of four bytes in the byte order of the machine."""
    host, _colon, port = text.partition(":")
    packed = b"".join(int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8))
    return Address(text, str(ipaddress.ip_address(packed)), int(port, 16))


def open_inodes(pid: str) -> set[str]:
    """Inodes of the sockets that a process has open."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass  # it has ended
    return found


def socket_units(address: Address) -> list[str]:
    """Socket units of systemd that listen where only one can."""
    shown = systemd.systemctl("list-sockets", "--plain", "--no-legend", "--full")
    rows = [line.split() for line in shown.splitlines() if line.strip()]
    found = [(parse(row[0]), next((word for word in row if word.endswith(".socket")), "")) for row in rows]
    return sorted({unit for each, unit in found if each and unit and each.overlaps(address)})


def process_name(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as handle:
            return handle.read().strip()
    except OSError:
        return "a process that has ended"


def unit_of(pid: str) -> str:
    """Unit of a process; empty when it has none."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as handle:
            return ([""] + UNIT.findall(handle.read()))[-1]
    except OSError:
        return ""
