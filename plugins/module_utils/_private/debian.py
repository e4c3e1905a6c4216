# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages of a host: what is installed, and what its package sources have."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from .command import run

UPDATE_SECONDS = 120
# As ansible.builtin.apt takes it: a name, which may have wildcards, an architecture, and a version or a release.
SPECIFIER = re.compile(r"^(?P<name>[^:=<>/ ]+)(:(?P<machine>[^:=<>/ ]+))?( *(?P<relation>>?=) *(?P<version>.+)|/.+)?\Z")
INSTALLED = "${db:Status-Status}\\t${Package}\\t${Architecture}\\t${Version}\\t${Provides}\\n"


class Package(NamedTuple):
    """A package that is installed, or a name that it provides; then the version is the one it provides, if any."""

    name: str
    machine: str
    version: str


def missing_packages(names: list[str]) -> list[str]:
    """Those that are not installed, and that no installed package provides."""
    if not names or not shutil.which("dpkg-query"):
        return names
    packages = installed_packages(run(["dpkg-query", "--show", "--showformat", INSTALLED]).stdout)
    return [name for name in names if not any(is_met(name, package) for package in packages)]


def installed_packages(listed: str) -> list[Package]:
    """What dpkg-query has listed, as :data:`INSTALLED` asks for it."""
    packages = []
    for line in listed.splitlines():
        status, name, machine, version, provides = [*line.split("\t"), "", "", "", ""][:5]
        if status != "installed":
            continue
        packages.append(Package(name, machine, version))
        for provided in filter(None, provides.split(", ")):
            virtual, _separator, of = provided.rstrip(")").partition(" (= ")
            packages.append(Package(virtual.partition(":")[0], machine, of))
    return packages


def is_met(specifier: str, package: Package) -> bool:
    """Is a package what a specifier asks for? A release, such as ``/bookworm-backports``, is left to apt."""
    wanted = SPECIFIER.match(specifier.strip())
    if not wanted or not fnmatchcase(package.name, wanted["name"]):
        return False
    if wanted["machine"] not in (None, "any", "all", package.machine) and package.machine != "all":
        return False
    if not wanted["relation"]:
        return True
    if wanted["relation"] == "=":
        return fnmatchcase(package.version, wanted["version"])
    compare = ["dpkg", "--compare-versions", package.version, "ge", wanted["version"]]
    return bool(package.version) and run(compare).returncode == 0


def unavailable_packages(names: list[str]) -> list[str]:
    """Those that no package source of the host has; none when that cannot be found out.

    The host's own lists of packages may be absent, or older than its sources: what they lack is looked for in new ones,
    which are fetched into a directory of their own. The host is left as it is.
    """
    found = names and without_candidate(names)
    if not found:
        return []
    with tempfile.TemporaryDirectory() as scratch:
        os.makedirs(os.path.join(scratch, "lists", "partial"))
        os.makedirs(os.path.join(scratch, "cache", "archives", "partial"))
        options = [
            f"Dir::State::Lists={scratch}/lists",
            f"Dir::Cache={scratch}/cache",
            "APT::Sandbox::User=",
            "Acquire::GzipIndexes=true",
        ]
        flags = [word for option in options for word in ("-o", option)]
        done = run(["timeout", str(UPDATE_SECONDS), "apt-get", "--quiet", *flags, "update"])
        failed = done.returncode != 0 or re.search(r"^(E|Err)\b", done.stdout + done.stderr, re.MULTILINE)
        if failed or not glob.glob(f"{scratch}/lists/*_Packages*"):
            return []
        return without_candidate(found, flags)


def without_candidate(names: list[str], flags: Sequence[str] = ()) -> list[str]:
    """Those for which apt knows no package, also none that provides them."""
    plain = {name: wanted["name"] for name in names if (wanted := SPECIFIER.match(name.strip()))}
    plain = {name: package for name, package in plain.items() if not set("*?[") & set(package)}
    if not plain or not shutil.which("apt-cache"):
        return []
    shown = run(["apt-cache", *flags, "showpkg", *plain.values()]).stdout
    sections = re.split(r"^Package: ", shown, flags=re.MULTILINE)[1:]
    available = {re.split(r"[:\s]", section, maxsplit=1)[0] for section in sections if is_available(section)}
    return [name for name, package in plain.items() if package not in available]


def is_available(section: str) -> bool:
    """Whether ``apt-cache showpkg`` names a version of a package, or a package that provides it."""
    versions = section.partition("Versions:")[2].partition("Reverse Depends:")[0]
    return bool(versions.strip() or section.rpartition("Reverse Provides:")[2].strip())
