# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source of an app: which files belong to a release, and the archive made of them."""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....module_utils._private.archive import Entry, tar_bytes
from .errors import BuildError

# Never part of a release: development settings would be read by pydantic-settings on the host, the rest is bulk.
NEVER = {".git", ".venv", "venv", "__pycache__", "node_modules", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox"}
NEVER_PREFIX = ".env"
NEVER_SUFFIX = (".pyc", ".pyo")


@dataclass(frozen=True)
class Source:
    """Where the code of an app is: a directory with a project, or a requirement that an index answers."""

    directory: Path
    project: dict[str, Any]
    commit: str
    dirty: bool
    top: Path | None = None  # of the source, when the app is in a sub-directory of it
    requirement: str = ""
    wheel: Path | None = None

    @property
    def requires_python(self) -> str:
        """Specifier such as ``>=3.11``; empty when the project does not say."""
        return str(self.project.get("project", {}).get("requires-python", ""))

    @property
    def import_paths(self) -> list[str]:
        """Directories, relative to the release, that belong on ``sys.path``."""
        return ["src", "."] if (self.directory / "src").is_dir() else ["."]

    @property
    def is_package(self) -> bool:
        """Whether the project is made to be installed."""
        return "build-system" in self.project and self.project.get("tool", {}).get("uv", {}).get("package", True)

    def find(self, *names: str) -> Path | None:
        """The first of some files that is there: in the app's directory, or above it within the source."""
        for directory in (self.directory, *self.directory.parents):
            for name in names:
                if (directory / name).is_file():
                    return directory / name
            if directory == (self.top or self.directory):
                break
        return None

    def requirement_entry(self) -> Entry:
        """The whole code of a release that is a requirement: its layer has the app."""
        return Entry("requirement.txt", f"{self.requirement}\n".encode())

    def requirement_lines(self) -> str:
        """The requirement as uv reads it."""
        if self.wheel:
            return f"{self.requirement.partition('==')[0]} @ {self.wheel.as_uri()}\n"
        return f"{self.requirement}\n"


def open_source(directory: str, sub: str = "", commit: str = "") -> Source:
    """Look at a source.

    :param directory: path of the app's project.
    :param sub: directory within it that holds the app.
    :param commit: known already: the directory is a fresh checkout of it.
    :raises BuildError: when there is no project at that path.
    """
    top = Path(directory).expanduser()
    if not top.is_dir():
        raise BuildError(f"forge_source: there is no directory {top}.")
    top = top.resolve()
    path = (top / sub).resolve()
    if not path.is_relative_to(top) or not path.is_dir():
        raise BuildError(f"forge_source_directory: {directory} has no directory {sub}.")
    pyproject = path / "pyproject.toml"
    try:
        project = tomllib.loads(pyproject.read_text(encoding="utf-8")) if pyproject.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BuildError(f"forge_source: {pyproject} cannot be read: {error}.") from None
    if commit:
        return Source(path, project, commit, False, top)
    commit = git(path, "rev-parse", "HEAD").strip()
    return Source(path, project, commit, bool(commit and git(path, "status", "--porcelain", "--", ".")), top)


def git(directory: Path, *arguments: str) -> str:
    """What git prints; empty when it fails, for example outside a work tree.

    :raises BuildError: when git does not trust the work tree: without it, ignored files would be released.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="surrogateescape", check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return ""
    if "dubious ownership" in done.stderr:
        raise BuildError(
            f"forge_source: {directory} belongs to another user, so git does not read it: build as that user, "
            "or name it in git's safe.directory."
        )
    return done.stdout if done.returncode == 0 else ""


def belongs(relative: str) -> bool:
    parts = relative.split("/")
    return not (
        NEVER.intersection(parts)
        or any(part.startswith(NEVER_PREFIX) for part in parts)
        or parts[-1].endswith(NEVER_SUFFIX)
    )


def is_left_out(name: str, exclude: list[str]) -> bool:
    """Whether a file stays out of every release, or out of this one because the user says so."""
    entries = [entry.strip("/") for entry in exclude]
    return not belongs(name) or any(name == entry or name.startswith(f"{entry}/") for entry in entries)


def list_files(source: Source, exclude: list[str]) -> list[str]:
    """Files of a release, relative to the source, sorted: in a git work tree what git does not ignore.

    :param exclude: files or directories, relative to the source, that are left out.
    """
    listed = git(source.directory, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed:
        names = [name for name in listed.split("\0") if name and os.path.lexists(source.directory / name)]
    else:
        names = [
            str((Path(parent) / name).relative_to(source.directory))
            for parent, directories, files in os.walk(source.directory)
            for name in [*files, *(d for d in directories if (Path(parent) / d).is_symlink())]
            if belongs(str(Path(parent).relative_to(source.directory)) + "/x")
        ]
    return sorted(name for name in set(names) if not is_left_out(name, exclude))


def make_archive(source: Source, names: list[str], added: Mapping[str, Entry] | None = None) -> bytes:
    """A tar archive that depends on names and contents alone, so that the same input is the same artifact.

    :param added: further files, by name.
    :raises BuildError: for a link that leads out of the release, or a file that cannot be read.
    """
    entries = [entry_of(source, name) for name in names]
    return tar_bytes([*entries, *(entry for _name, entry in sorted((added or {}).items()))])


def entry_of(source: Source, name: str) -> Entry:
    path = source.directory / name
    if path.is_symlink():
        target = os.readlink(path)
        if os.path.isabs(target) or not path.resolve().is_relative_to(source.directory):
            raise BuildError(f"{path} is a link that leads out of the source ({target}).")
        return Entry(name, link=target)
    if path.is_dir():
        raise BuildError(f"{path} is a git submodule or nested repository, which a release cannot hold yet.")
    try:
        return Entry(name, path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}.") from None


def check_target(source: Source, names: list[str], import_paths: list[str], target: str) -> None:
    """Check that the target's module is in the release. Modules of dependencies are looked for when the app is loaded.

    :raises BuildError: when the form is wrong, or the module's package is in the source but the module is not.
    """
    module, colon, attribute = target.partition(":")
    parts = module.split(".")
    if not colon or not attribute or not all(part.isidentifier() for part in parts):
        raise BuildError(f"forge_target: {target!r} must have the form package.module:app.")
    if source.requirement:
        return  # it is in the layer
    files = set(names)
    known = False
    for root in import_paths:
        prefix = "" if root == "." else root + "/"
        stem = prefix + "/".join(parts)
        if f"{stem}.py" in files or f"{stem}/__init__.py" in files:
            return
        top = prefix + parts[0]
        known = known or f"{top}.py" in files or any(name.startswith(f"{top}/") for name in files)
    if known:
        raise BuildError(f"forge_target: {source.directory} has no module {module}, which {target!r} names.")
