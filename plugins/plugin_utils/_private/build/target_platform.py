# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an artifact is built for."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from .packaging_library import InvalidWheelFilename, SpecifierSet, Tag, compatible_tags, cpython_tags, parse_wheel_filename
from .errors import BuildError

# Of the glibc versions that uv knows as a platform (uv pip install --help, --python-platform), newest first.
UV_GLIBC = ((2, 40), (2, 39), (2, 38), (2, 37), (2, 36), (2, 35), (2, 34), (2, 33), (2, 32), (2, 31), (2, 28), (2, 17))
UV_MACHINES = ("x86_64", "aarch64")


def version_tuple(version: str) -> tuple[int, ...]:
    """Major and minor part of a version as numbers."""
    return tuple(int(part) for part in version.split(".")[:2])


@dataclass(frozen=True)
class Platform:
    """Python, machine and glibc of hosts that share an artifact."""

    python: str  # full version, such as 3.11.2
    machine: str  # such as x86_64
    glibc: str  # such as 2.36
    hosts: tuple[str, ...] = field(default=(), compare=False)
    interpreter: str = ""  # id of a standalone Python; empty for the hosts' own
    standalone: str = ""  # which version of one is wanted, until it is known
    automatic: bool = field(default=False, compare=False)  # is their own to be taken unless the app refuses it?

    @classmethod
    def of_controller(cls) -> Platform:
        libc, version = platform.libc_ver()
        return cls(platform.python_version(), platform.machine(), version if libc == "glibc" else "0.0")

    @property
    def python_version(self) -> str:
        """Such as 3.11."""
        return ".".join(self.python.split(".")[:2])

    @property
    def key(self) -> str:
        """Names the platform: hosts with the same key share an artifact."""
        own = f"py{self.python_version}-{self.machine}-glibc{self.glibc}"
        return f"{own}-{self.interpreter}" if self.interpreter else own

    def __str__(self) -> str:
        text = f"Python {self.python_version} on {self.machine} with glibc {self.glibc}"
        return f"{text} ({', '.join(self.hosts)})" if self.hosts else text

    def runs(self, other: Platform) -> bool:
        """Whether it can run what was made for, or on, another one."""
        if self.standalone:
            wanted = f"{other.python}.".startswith(f"{self.standalone}.") and bool(other.interpreter)
            return wanted and self.machine == other.machine and version_tuple(self.glibc) >= version_tuple(other.glibc)
        mine, others = ((each.python_version, each.machine, each.interpreter) for each in (self, other))
        return mine == others and version_tuple(self.glibc) >= version_tuple(other.glibc)

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
            "python_version": self.python_version,
            "sys_platform": "linux",
            "extra": "",
        }

    def uv_options(self) -> list[str]:
        """What makes uv install for this platform.

        :raises BuildError: for a machine that uv does not install for.
        """
        if self.machine not in UV_MACHINES:
            raise BuildError(f"{self}: layers are built for {' and '.join(UV_MACHINES)} only.")
        glibc = next((each for each in UV_GLIBC if each <= version_tuple(self.glibc)), UV_GLIBC[-1])
        return [
            "--python-platform", f"{self.machine}-manylinux_{glibc[0]}_{glibc[1]}",
            "--python-version", self.python_version,
        ]  # fmt: skip

    def takes(self, wheel: str, built_on: Platform | None = None) -> bool:
        """Whether a wheel of that file name runs here.

        :param built_on: where a wheel with the bare tag ``linux`` was built: it needs that glibc.
        """
        try:
            tags = parse_wheel_filename(wheel)[3]
        except InvalidWheelFilename:
            return False
        bare = f"linux_{self.machine}"
        known = built_on is not None and self.runs(built_on)
        return any(tag in wheel_tags(self) and (known or tag.platform != bare) for tag in tags)


@cache
def wheel_tags(target: Platform) -> frozenset[Tag]:
    """What a wheel may be tagged with to run on a platform (PEP 600: any glibc up to the host's own)."""
    version, interpreter = version_tuple(target.python_version), f"cp{target.python_version.replace('.', '')}"
    major, minor = version_tuple(target.glibc)
    platforms = [f"manylinux_{major}_{n}_{target.machine}" for n in range(minor, 4, -1)]
    platforms += [f"{name}_{target.machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    return frozenset([
        *cpython_tags(version, abis=[interpreter], platforms=platforms),
        *compatible_tags(version, interpreter=interpreter, platforms=platforms),
    ])  # fmt: skip


def platforms_of(hosts: dict[str, dict[str, Any]]) -> list[Platform]:
    """Hosts (name to what host_info says) grouped by platform.

    :raises BuildError: naming the hosts that cannot be built for.
    """
    found: dict[tuple[str, str, str, str, bool], list[str]] = {}
    for name, host in sorted(hosts.items()):
        python = host["python"]
        if not python["version"]:
            raise BuildError(f"{name} does not have the interpreter that forge_python names.")
        if not host["glibc"]:
            raise BuildError(f"{name} does not use glibc: only Debian and Ubuntu hosts are supported.")
        key = (python["version"], host["machine"], host["glibc"], python.get("standalone", ""), python.get("automatic", False))
        found.setdefault(key, []).append(name)
    return [
        Platform(*key[:3], hosts=tuple(names), standalone=key[3], automatic=key[4]) for key, names in found.items()
    ]


def too_old(specifier: str, platforms: Iterable[Platform]) -> list[str]:
    """Hosts whose Python a version specifier does not accept, each with its version."""
    accepted = SpecifierSet(specifier)
    return [
        f"{host} has {each.python}"
        for each in platforms
        if not accepted.contains(each.python, prereleases=True)
        for host in each.hosts or (each.key,)
    ]
