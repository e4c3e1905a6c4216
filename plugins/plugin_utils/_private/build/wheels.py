# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wheels of what no index has as a wheel: releases that have only a source, and dependencies of git, at a URL, or in a
directory next to the app."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ....module_utils._private.archive import unpack
from .cache import digest, file_digest, touch
from .errors import BuildError
from .lockfile import Direct, Pin
from .origin import fetch_git, split_git
from .source import belongs, files_below, in_words, is_pointer, list_files, make_archive, open_source
from .target_platform import Platform
from .wheel_builder import NeedsCompiling, build_wheel, unpack_sdist
from .workspace import Workspace, one_line, without_secrets


def released_files(pins: Sequence[Pin], platform: Platform, workspace: Workspace) -> tuple[dict[str, Any], str]:
    """What an index has of releases, without building anything.

    :returns: name to the ``sdist`` and the ``wheels`` of a release, as in a pylock.toml (PEP 751), and uv's message when
        there is nothing.
    """
    done = workspace.uv(
        "pip", "compile", "--quiet", "--no-deps", "--universal", "--no-header", "--no-annotate",
        "--format", "pylock.toml", "--python", sys.executable, "--python-version", platform.python_version,
        "--index-strategy", "unsafe-best-match", "-",
        text="".join(f"{pin.requirement.name}{pin.requirement.specifier}\n" for pin in pins),
        cwd=workspace.cache, extra={"UV_INDEX": workspace.extra_indexes()},
    )  # fmt: skip
    if done.returncode != 0:
        return {}, one_line(done.stderr)
    return {each["name"]: each for each in tomllib.loads(done.stdout).get("packages", [])}, ""


def source_only(pins: Sequence[Pin], platform: Platform, workspace: Workspace) -> list[tuple[Pin, dict[str, Any]]]:
    """Of releases those that have a source and no wheel for a platform, each with its ``sdist``."""
    found, _error = released_files(pins, platform, workspace)
    entries = [(pin, found.get(pin.name, {})) for pin in pins]
    return [
        (pin, entry["sdist"])
        for pin, entry in entries
        if "sdist" in entry and not any(platform.takes(name_of(wheel)) for wheel in entry.get("wheels", []))
    ]


def name_of(file: dict[str, Any]) -> str:
    """Name of a file of a pylock.toml."""
    return str(file.get("name") or unquote(urlsplit(address_of(file)).path).rpartition("/")[2])


def address_of(file: dict[str, Any]) -> str:
    return str(file.get("url") or file.get("path") or "")


def wheel_of_release(pin: Pin, sdist: dict[str, Any], platform: Platform, workspace: Workspace) -> Path:
    """The wheel of a release that has only its source, or wheels for other versions of Python.

    :raises NeedsCompiling: when it has to be compiled on a host of the platform.
    :raises BuildError: when the source cannot be had, or has another hash than the lock says.
    """
    key = digest(str(pin).encode(), platform.python_version.encode(), platform.machine.encode())[:16]
    source = partial(fetch_sdist, pin, sdist, workspace)
    try:
        return build_wheel(str(pin.requirement), source, workspace.cache / "built" / key, platform, workspace)
    except NeedsCompiling as needed:
        # uv lists only wheels that the version of Python which it is asked for, or a newer one, can use.
        older = (replace(platform, python=each) for each in ("3.9", "3.10", "3.11"))
        found = next(filter(None, (released_files([pin], each, workspace)[0] for each in older)), {})
        advice = other_pythons([name_of(wheel) for wheel in found.get(pin.name, {}).get("wheels", [])], platform)
        raise NeedsCompiling([replace(job, advice=advice) for job in needed.jobs]) from None


def other_pythons(wheels: Sequence[str], platform: Platform) -> str:
    """What to do where wheels are for other versions of Python, a sentence; empty when there are none.

    :param wheels: names of their files.
    """
    pythons = [f"3.{minor}" for minor in range(9, 20)]
    fitting = [each for each in pythons if any(replace(platform, python=each).takes(wheel) for wheel in wheels)]
    if not fitting:
        return ""
    return f"There are wheels for Python {', '.join(fitting)}: set forge_python to one of those, or lock a newer version of it."


def fetch_sdist(pin: Pin, sdist: dict[str, Any], workspace: Workspace, scratch: Path) -> Path:
    archive = scratch / name_of(sdist)
    workspace.fetch(address_of(sdist), archive, pin.hashes, f"The source of {pin.requirement}")
    return unpack_sdist(archive, scratch)


def wheel_of_direct(direct: Direct, base: Path, platform: Platform, workspace: Workspace) -> Path:
    """The wheel of a dependency that is no release of an index: found, or built once and cached.

    :param base: directory that a path starts from.
    :raises NeedsCompiling: when it has to be compiled on a host of the platform.
    :raises BuildError: when it is not there, moves, has no hash or another one, or does not run on the platform.
    """
    address = re.sub(r"\$\{([A-Z0-9_]+)\}", lambda name: os.environ.get(name[1], name[0]), direct.address)
    address, _hash, fragment = address.partition("#")
    found = re.search(r"(?:^|&)subdirectory=([^&]+)", fragment)
    subdirectory = found[1] if found else "."
    if address.startswith("git+"):
        commit = split_git(address)[1]
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise BuildError(
                f"{direct} is taken from git at {commit or 'its default branch'}, which moves: lock a commit."
            )
        key, source = [without_secrets(address), subdirectory], partial(check_out, direct, address, subdirectory, workspace)
    else:
        remote = re.match(r"https?://", address)
        path = download(direct, address, workspace) if remote else existing_path(address, base)
        if path.suffix == ".whl":
            if not platform.takes(path.name):
                raise BuildError(f"{direct}: {path.name} does not run on {platform}.")
            return path
        if path.is_dir():
            project = open_source(str(path))
            archive = make_archive(project, list_files(project, []))
            key, source = [digest(archive)], partial(extract, archive)
        else:
            key, source = [file_digest(path), subdirectory], partial(open_archive, path, subdirectory)
    wheel_dir = digest(*map(str.encode, [*key, platform.python_version, platform.machine]))[:16]
    return build_wheel(direct.name, source, workspace.cache / "built" / wheel_dir, platform, workspace)


def is_path_of(address: str, base: Path, directory: Path) -> bool:
    """Whether an address is that of a directory."""
    return not re.match(r"git\+|https?:", address) and path_of(address, base) == directory.resolve()


def path_of(address: str, base: Path) -> Path:
    return (base / (unquote(urlsplit(address).path) if address.startswith("file:") else address)).resolve()


def existing_path(address: str, base: Path) -> Path:
    path = path_of(address, base)
    if not path.exists():
        raise BuildError(f"The lock names {address}, without a hash, and there is no {path}.")
    return path


def download(direct: Direct, url: str, workspace: Workspace) -> Path:
    if not direct.hashes:
        raise BuildError(f"The lock has no hash for {direct}: only what is hashed is installed.")
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    path = workspace.cache / "downloads" / digest("".join(sorted(direct.hashes)).encode())[:16] / name
    if not path.is_file():
        workspace.fetch(url, path, direct.hashes, str(direct))
    touch(path.parent)
    return path


def check_out(direct: Direct, address: str, subdirectory: str, workspace: Workspace, scratch: Path) -> Path:
    checkout, _commit = fetch_git(address, workspace, f"The dependency {direct}")
    pointers = [name for name in files_below(checkout, belongs) if is_pointer(checkout / name)]
    if pointers:
        raise BuildError(f"{direct} has pointers of git LFS in place of files ({in_words(pointers)}): use a release of it.")
    shutil.copytree(checkout, scratch / "source", symlinks=True)
    return inside(scratch / "source", subdirectory)


def extract(archive: bytes, scratch: Path) -> Path:
    unpack(io.BytesIO(archive), scratch / "source")
    return scratch / "source"


def open_archive(path: Path, subdirectory: str, scratch: Path) -> Path:
    return inside(unpack_sdist(path, scratch), subdirectory)


def inside(directory: Path, subdirectory: str) -> Path:
    """:raises BuildError: when a directory has no such one in it."""
    path = (directory / subdirectory).resolve()
    if not path.is_dir() or not path.is_relative_to(directory.resolve()):
        raise BuildError(f"There is no directory {subdirectory} in the source of a dependency.")
    return path
