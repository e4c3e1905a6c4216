# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the addresses of a public socket can be opened now, for a release. Opens nothing that stays open."""

from __future__ import annotations

import errno
import os
import socket
from fnmatch import fnmatch
from itertools import combinations

from .listening import Endpoint, Sockets, bind_error, endpoint, overlap, path_problem


def parse(text: str) -> Endpoint | None:
    """An address of ``ListenStream=``, or a port; None where it is neither and systemd has to judge."""
    try:
        address = endpoint(text)
        if address.port:
            socket.inet_pton(socket.AF_INET6 if ":" in address.host else socket.AF_INET, address.host)
    except (OSError, ValueError):
        return None
    return address


def first_overlap(texts: list[str]) -> tuple[str, str] | None:
    """Two of these addresses of which only one can be open; None when all can."""
    found = [(text, each) for text in texts if (each := parse(text))]
    pairs = ((one[0], two[0]) for one, two in combinations(found, 2) if overlap(one[1], two[1]))
    return next(pairs, None)


def are_disjoint(wanted: list[str], present: list[str]) -> bool:
    """Can all of these be open beside each other?"""
    return all(map(parse, [*wanted, *present])) and first_overlap([*wanted, *present]) is None


def problem(app: str, wanted: list[str], present: list[str]) -> str:
    """A sentence on the first address that cannot be opened; empty when all can, or when it is this app that has them.

    :param app: whose units may have them: a switch takes them over.
    :param wanted: addresses that are to be open.
    :param present: addresses that the app has open.
    """
    both = first_overlap(wanted)
    if both:
        return f"forge_listen: {both[0]} and {both[1]} are the same or overlap: leave out one of them."
    reasons = (reason(app, text, address) for text in wanted if text not in present and (address := parse(text)))
    return next((f"forge_listen: {each}" for each in reasons if each), "")


def reason(app: str, text: str, address: Endpoint) -> str:
    """Why an address cannot be opened; empty when it can, or when this app has it."""
    is_path = address.port == 0
    error = 0 if is_path else bind_error(address)
    if is_path and path_problem(address.host) not in ("", "is taken"):
        return f"{text} is there and is no socket: remove it, or give another path."
    if error == errno.EADDRNOTAVAIL:
        return f"{text}: this host does not have that address."
    if error not in (0, errno.EADDRINUSE):
        return f"{text} cannot be opened: {os.strerror(error)}."
    if not (error or is_path):
        return ""
    sockets = Sockets()
    found = [sockets.holder(each) for each in sockets.listeners() if overlap(each.endpoint, address)]
    ours = (f"{app}.service", f"{app}.socket", f"{app}@*.service")
    others = sorted({str(each) for each in found if not any(fnmatch(each.unit, pattern) for pattern in ours)})
    if not found and error:
        others = ["another program"]
    # A socket on which nobody listens any more is no problem: systemd takes its place.
    return (
        f"{text} is taken by {', '.join(others)}: give this app another address, or stop what is there."
        if others
        else ""
    )
