# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""What an artifact is built for."""

from __future__ import annotations

import platform as machine_here
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


@dataclass(frozen=True)
class Platform:
    """What an artifact is built for."""

    python: str  # full version, such as 3.11.2
    machine: str  # such as x86_64
    glibc: str  # such as 2.36
    hosts: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def here(cls) -> Platform:
        """That of the controller."""
        libc, version = machine_here.libc_ver()
        return cls(machine_here.python_version(), machine_here.machine(), version if libc == "glibc" else "0.0")

    @property
    def minor(self) -> str:
        return ".".join(self.python.split(".")[:2])

    @property
    def key(self) -> str:
        """Names the platform: hosts with the same key share an artifact."""
        return f"py{self.minor}-{self.machine}-glibc{self.glibc}"

    def __str__(self) -> str:
        where = f"Python {self.minor} on {self.machine} with glibc {self.glibc}"
        return f"{where} ({', '.join(self.hosts)})" if self.hosts else where

    def runs(self, other: Platform) -> bool:
        """Can it run what was made for, or on, another one?"""
        same = (self.minor, self.machine) == (other.minor, other.machine)
        return same and release(self.glibc) >= release(other.glibc)

    def markers(self) -> dict[str, str]:
        """Environment markers of the platform (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": self.minor,
            "sys_platform": "linux",
            "extra": "",
        }

    def tags(self) -> list[str]:
        """Platform tags a wheel may have, best first (PEP 600: any glibc up to the host's own)."""
        major, minor = release(self.glibc)
        tags = [f"manylinux_{major}_{n}_{self.machine}" for n in range(minor, 4, -1)]
        tags += [f"{name}_{self.machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
        return tags

    def takes(self, wheel: str, built_on: Platform | None = None) -> bool:
        """Does a wheel of that name run here?

        :param built_on: where a wheel with the bare tag ``linux`` was built: it needs that glibc.
        """
        return self.best([wheel], built_on) is not None

    def best(self, wheels: Iterable[str], built_on: Platform | None = None) -> str | None:
        """Of wheels, by their names, the one that pip would take here."""
        order = wheel_tags(self)
        bare = f"linux_{self.machine}"
        known = bool(built_on and self.runs(built_on))
        ranks: dict[str, int] = {}
        for wheel in wheels:
            with suppress(InvalidWheelFilename):
                tags = parse_wheel_filename(wheel)[3]
                fitting = [order[tag] for tag in tags if tag in order and (known or tag.platform != bare)]
                if fitting:
                    ranks[wheel] = min(fitting)
        return min(ranks, key=lambda wheel: ranks[wheel], default=None)


@cache
def wheel_tags(platform: Platform) -> dict[Tag, int]:
    """What a wheel may be tagged with to run on a platform, and how good that is: 0 is best."""
    minor, interpreter = release(platform.minor), f"cp{platform.minor.replace('.', '')}"
    tags = [
        *cpython_tags(minor, abis=[interpreter], platforms=platform.tags()),
        *compatible_tags(minor, interpreter=interpreter, platforms=platform.tags()),
    ]
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def running() -> str:
    return ".".join(map(str, sys.version_info[:3]))
