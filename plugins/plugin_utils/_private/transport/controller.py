# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run of Ansible this is: who started it, where, and as which process."""

from __future__ import annotations

import getpass
import multiprocessing
import os
import platform
from dataclasses import dataclass

OLDEST_PYTHON, OLDEST_ANSIBLE = (3, 11), (2, 19)
INSTALL = "make a virtual environment of a newer Python, and install ansible-core and uv there with pip"


@dataclass(frozen=True)
class Controller:
    user: str
    host: str
    machine: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Controller:
        """The main process of this run; tasks are carried out in children of it."""
        parent = multiprocessing.parent_process()
        pid = parent.pid if parent and parent.pid else os.getpid()
        return cls(user_name(), platform.node(), machine(), pid, start_of(pid))

    def as_owner(self) -> dict[str, str | int]:
        token = f"{self.machine}-{self.pid}-{self.started}"
        return {"token": token, "user": self.user, "host": self.host, "machine": self.machine, "pid": self.pid}

    def __str__(self) -> str:
        return f"{self.user}@{self.host}"


def version_problems(python: tuple[int, ...], ansible: str) -> list[str]:
    """A sentence for each program of the controller that is too old for this collection."""
    found = tuple(int(part) for part in ansible.split(".")[:2])
    versions = [("Python", "3.11", python[:2] >= OLDEST_PYTHON, ".".join(map(str, python[:2]))),
                ("ansible-core", "2.19", found >= OLDEST_ANSIBLE, ansible)]  # fmt: skip
    return [
        f"The controller has {name} {version}, and {oldest} or newer is needed: {INSTALL}."
        for name, oldest, is_recent, version in versions
        if not is_recent
    ]


def user_name() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def machine() -> str:
    """Names this boot of this machine, and within it the space in which process numbers count."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            return f"{handle.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def start_of(pid: int) -> str:
    """When a process started, in clock ticks since the boot: tells it from a later one with its number.

    Source: proc(5), fields 3 and 22 of /proc/PID/stat. Empty when there is no such process, or only its exit code.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            fields = handle.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def is_dead(holder: dict) -> bool:
    """Was the lock taken by a process of this machine that has ended?"""
    if holder.get("machine") != machine():
        return False
    pid = int(holder.get("pid", 0))
    started = start_of(pid)
    # Without a start it was taken for a run that had just been killed, by a child of it.
    return not started or holder.get("token") != f"{machine()}-{pid}-{started}"
