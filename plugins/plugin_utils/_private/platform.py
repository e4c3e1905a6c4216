# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""What an artifact is built for."""

from __future__ import annotations

import platform as machine_here
import sys
from dataclasses import dataclass, field

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
        try:
            tags = parse_wheel_filename(wheel)[3]
        except InvalidWheelFilename:
            return False
        bare = f"linux_{self.machine}"
        platforms = {"any", *self.tags()} - (set() if built_on and self.runs(built_on) else {bare})
        own = f"cp{self.minor.replace('.', '')}"
        pure = {"py3", f"py{self.minor.replace('.', '')}", "py2.py3"}
        newest = int(self.minor.split(".")[1])
        stable = {f"cp3{n}" for n in range(2, newest + 1)}
        return any(
            tag.platform in platforms
            and (
                (tag.interpreter in pure and tag.abi == "none")
                or (tag.interpreter == own and tag.abi in (own, "none"))
                or (tag.interpreter in stable and tag.abi == "abi3")
            )
            for tag in tags
        )


def running() -> str:
    return ".".join(map(str, sys.version_info[:3]))
