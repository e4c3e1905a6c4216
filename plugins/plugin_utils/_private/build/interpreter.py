# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A standalone Python for hosts whose distribution has none that the app accepts: fetched by uv, checked by uv, and packed once."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .packaging_library import SpecifierSet, Version
from ....module_utils._private.archive import Entry, write_tar
from .cache import digest, file_digest, new_file, touch
from .errors import BuildError
from .layer import compress
from .target_platform import Platform
from .workspace import Workspace, one_line, without_secrets

ID_LENGTH = 12
UV_ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "aarch64"}
# Where python-build-standalone was installed when it was built: uv writes the path of the controller there, in what compilers are told.
PREFIX = b"/install"
NOT_PACKED = ("share",)


@dataclass(frozen=True)
class Interpreter:
    """The archive of a Python, as a host unpacks it."""

    id: str  # 3.14.10-0123456789ab
    version: str
    machine: str
    path: str
    sha256: str

    @property
    def minor(self) -> str:
        """Such as 3.14."""
        return ".".join(self.version.split(".")[:2])

    def for_host(self) -> dict[str, Any]:
        """As the role release takes it."""
        return {"id": self.id, "minor": self.minor, "blob": {"path": self.path, "sha256": self.sha256}}


@dataclass(frozen=True)
class Download:
    """A Python that uv knows where to get."""

    key: str  # of uv: cpython-3.14.10-linux-x86_64-gnu
    version: str
    url: str


def downloads(machine: str, workspace: Workspace) -> list[Download]:
    """Final versions that uv can get for a machine, the newest first.

    :raises BuildError: when uv does not say.
    """
    done = workspace.uv(
        "python", "list", "--only-downloads", "--all-versions", "--all-arches", "--output-format", "json", extra=fetching(workspace)
    )
    if done.returncode != 0:
        raise BuildError(f"uv does not say which Pythons it can get: {one_line(done.stderr)}")
    found = [
        Download(each["key"], each["version"], each["url"] or "")
        for each in json.loads(done.stdout or "[]")
        if (each["os"], each["libc"], each["implementation"], each["variant"]) == ("linux", "gnu", "cpython", "default")
        and each["arch"] == UV_ARCHITECTURES.get(machine)
        and not Version(each["version"]).is_prerelease
    ]
    return sorted(found, key=lambda each: Version(each.version), reverse=True)


def candidates(specifier: str, machine: str, workspace: Workspace) -> list[Download]:
    """The newest build of each minor version that a specifier accepts, the newest first.

    :param specifier: as ``requires-python``, or a version such as 3.14 or 3.14.2.
    :raises BuildError: when there is none.
    """
    exact = f"=={specifier}{'' if specifier.count('.') > 1 else '.*'}" if specifier[:1].isdigit() else specifier
    known = downloads(machine, workspace)
    accepted = [each for each in known if SpecifierSet(exact).contains(each.version)]
    if not accepted:
        newest = f"the newest is {known[0].version}" if known else "it knows none"
        raise BuildError(
            f"uv can get no Python {specifier} for {machine} ({newest}): say another forge_python, or update uv, or its list "
            "(UV_PYTHON_DOWNLOADS_JSON_URL)."
        )
    newest_of = dict[str, Download]()
    for each in accepted:
        newest_of.setdefault(".".join(each.version.split(".")[:2]), each)
    return list(newest_of.values())


def fetching(workspace: Workspace) -> dict[str, str]:
    """Environment with which uv gets Pythons into the cache."""
    return {"UV_PYTHON_DOWNLOADS": "manual", "UV_PYTHON_INSTALL_DIR": str(installed_in(workspace))}


def installed_in(workspace: Workspace) -> Path:
    """Where Pythons lie on the controller, for uv to find them, too."""
    return workspace.cache / "pythons" / "installed"


def fetch(download: Download, machine: str, workspace: Workspace) -> Interpreter:
    """Get a Python, and pack it: the same build gives the same bytes.

    :raises BuildError: when it cannot be had, or has another hash than uv's list says.
    """
    path = workspace.cache / "pythons" / f"{download.key}-{digest(download.url.encode())[:ID_LENGTH]}.tar.gz"
    home = installed_in(workspace) / download.key
    if not path.is_file() or not home.is_dir():
        done = workspace.uv("python", "install", "--no-progress", "--no-bin", "--reinstall", download.key, extra=fetching(workspace))
        if done.returncode != 0 or not home.is_dir():
            raise BuildError(
                f"Python {download.version} for {machine} could not be had: {without_secrets(one_line(done.stderr, 600))} A mirror is named "
                "in UV_PYTHON_INSTALL_MIRROR."
            )
    if not path.is_file():
        with tempfile.TemporaryFile(dir=workspace.cache) as archive, new_file(path) as output:
            write_tar(entries(home), archive)
            archive.seek(0)
            compress(archive, output)
    touch(installed_in(workspace))
    sha256 = file_digest(touch(path))
    return Interpreter(f"{download.version}-{sha256[:ID_LENGTH]}", download.version, machine, str(path), sha256)


def entries(home: Path) -> Iterator[Entry]:
    """Files of a Python, without what the controller has added: its path, and bytecode."""
    here = str(home).encode()
    for parent, directories, names in os.walk(home):
        directory = Path(parent).relative_to(home)
        directories[:] = sorted(
            name for name in directories if name != "__pycache__" and str(directory / name) not in NOT_PACKED
        )
        for name in sorted([*names, *(each for each in directories if (Path(parent) / each).is_symlink())]):
            file = Path(parent) / name
            if file.is_symlink():
                yield Entry(str(directory / name), link=os.readlink(file))
                continue
            content = file.read_bytes()
            if b"\0" not in content[:1024]:
                content = content.replace(here, PREFIX)
            yield Entry(str(directory / name), content, 0o755 if file.stat().st_mode & 0o100 else 0o644)


def choices(requires: str, platforms: list[Platform], workspace: Workspace) -> Iterator[tuple[list[Platform], dict[str, Interpreter]]]:
    """Platforms with the Python that each is to have, the best choice first; a second one is for an app whose dependencies have no wheel
    for the newest Python.

    :param requires: of the app, ``requires-python``.
    :returns: the platforms, and the standalone Pythons among them by their ids.
    :raises BuildError: when there is none that fits.
    """
    wanted = [(platform, wish(requires, platform)) for platform in platforms]
    asked = {(platform.machine, specifier) for platform, specifier in wanted if specifier}
    if not asked:
        yield platforms, {}
        return
    found = {(machine, specifier): candidates(specifier, machine, workspace) for machine, specifier in sorted(asked)}
    for number in range(max(map(len, found.values()))):
        chosen, pythons = [], dict[str, Interpreter]()
        for platform, specifier in wanted:
            if not specifier:
                chosen.append(platform)
                continue
            of_machine = found[platform.machine, specifier]
            interpreter = fetch(of_machine[min(number, len(of_machine) - 1)], platform.machine, workspace)
            pythons[interpreter.id] = interpreter
            chosen.append(replace(platform, python=interpreter.version, interpreter=interpreter.id, standalone=""))
        provide_for_the_controller(pythons, workspace)
        yield chosen, pythons


def wish(requires: str, platform: Platform) -> str:
    """Which standalone Python a platform is to have; empty for the one that its hosts have."""
    if platform.standalone:
        return platform.standalone
    unfit = platform.automatic and requires and not SpecifierSet(requires).contains(platform.python, prereleases=True)
    return requires if unfit else ""


def provide_for_the_controller(pythons: dict[str, Interpreter], workspace: Workspace) -> None:
    """uv reads the lock of a project with a Python that the project accepts, of the controller's own machine."""
    machine = Platform.of_controller().machine
    for interpreter in pythons.values():
        if interpreter.machine != machine and machine in UV_ARCHITECTURES:
            fetch(candidates(interpreter.version, machine, workspace)[0], machine, workspace)


def runs_here(interpreter: Interpreter, workspace: Workspace) -> bool:
    """Whether the controller can run that version. uv fails where it finds one that does not run."""
    key = f"cpython-{interpreter.version}-linux-{UV_ARCHITECTURES.get(Platform.of_controller().machine)}-gnu"
    python = installed_in(workspace) / key / "bin" / f"python{interpreter.minor}"
    if not python.exists():
        return False
    done = subprocess.run([python, "-Ic", "import ssl"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode == 0
