# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many connections the workers of a generation have open to the app's PostgreSQL database."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from .database_url import postgresql_url
from .environment import read_environment
from .layout import Layout
from .listening import Sockets
from .settings import read_settings

ESTABLISHED = "01"  # state of a TCP socket in /proc/net/tcp
DEFAULT_PORT = "5432"


def database_ports(settings: dict[str, str]) -> set[int]:
    """Ports in the first setting that is a URL of PostgreSQL, which may name several hosts; none where no setting is."""
    _name, url = postgresql_url(settings)
    place = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return {int(port) for port in re.findall(r":(\d+)(?=,|$)", place) or [DEFAULT_PORT]} if url else set()


def most_of_a_worker(layout: Layout, generation: str, proc: str = "/proc") -> int:
    """Return how many connections the worker has that has most; 0 where there are none, or it is not known."""
    try:
        text = read_settings(layout.generation(generation))
        workers = [name for name in os.listdir(layout.worker_states(generation)) if name.isdigit()]
    except (OSError, ValueError):
        return 0
    ports, sockets, inodes = database_ports(read_environment(text)), Sockets(proc), set[str]()
    for table in ("tcp", "tcp6") if ports else ():
        for fields in map(str.split, sockets.lines("net", table)):
            if len(fields) > 9 and fields[3] == ESTABLISHED and int(fields[2].rpartition(":")[2], 16) in ports:
                inodes.add(f"socket:[{fields[9]}]")
    return max((held_by(os.path.join(proc, pid, "fd"), inodes) for pid in workers), default=0)


def held_by(directory: str, inodes: set[str]) -> int:
    count = 0
    with suppress(OSError):
        for descriptor in os.listdir(directory):
            with suppress(OSError):
                count += os.readlink(os.path.join(directory, descriptor)) in inodes
    return count
