# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source of an app: which files belong to a release, and the archive made of them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....module_utils._private.archive import Entry, tar_bytes
from .errors import BuildError

# Left out unless it is included by name: development settings would be read by pydantic-settings on the host.
NEVER = {".git", "__pycache__"}
NEVER_PREFIX = ".env"
# Bulk, where git does not track it.
BULK = {".venv", "venv", "node_modules", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox"}
BULK_SUFFIX = (".pyc", ".pyo")
# What setuptools has compiled here; it would take it for up to date on a host, too.
SETUPTOOLS_OUTPUT = re.compile(r"(?:^|/)build/(?:lib|temp|bdist)\.[^/]+(?:/|$)")
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
SHOWN = 3  # names in a sentence
# Of a pyproject.toml, what is read here: what it must be, and keys that lead there; * is any.
SHAPES = {
    "a table": (
        dict,
        ("project", "project.optional-dependencies", "dependency-groups", "build-system", "tool", "tool.uv", "tool.poetry", "tool.pdm",
         "tool.pdm.dev-dependencies", "tool.uv.index.*", "tool.poetry.source.*", "tool.pdm.source.*"),
    ),
    "a list": (
        list,
        ("project.dependencies", "project.optional-dependencies.*", "dependency-groups.*", "tool.pdm.dev-dependencies.*", "tool.uv.index",
         "tool.poetry.source", "tool.pdm.source"),
    ),
    "a text": (str, ("project.dependencies.*", "project.optional-dependencies.*.*", "tool.pdm.dev-dependencies.*.*")),
}  # fmt: skip


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
    translated: bool = False  # its tables are made of another tool's own: uv cannot read them from its pyproject.toml

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
        tool = self.project.get("tool", {})
        if not (tool.get("uv", {}).get("package", True) and tool.get("pdm", {}).get("distribution", True)):
            return False
        if self.is_poetry:
            return bool(tool["poetry"].get("package-mode", True)) and self.poetry_finds_package()
        return "build-system" in self.project

    @property
    def is_poetry(self) -> bool:
        """Whether Poetry builds the project; it does so too where no build system is named."""
        backend = str(self.project.get("build-system", {}).get("build-backend", "poetry"))
        return "poetry" in self.project.get("tool", {}) and backend.startswith("poetry")

    def poetry_finds_package(self) -> bool:
        """Whether there is what Poetry would install (poetry/core/masonry/utils/module.py). Many apps have a project name that is
        no directory's, and are run from where they lie (``poetry install --no-root``)."""
        own = self.project["tool"]["poetry"]
        if own.get("packages") or own.get("include"):
            return True
        name = str(self.project.get("project", {}).get("name") or own.get("name", ""))
        module = re.sub(r"[^\w]+", "_", name)
        roots = (self.directory, self.directory / "src")
        return bool(module) and any((root / module).is_dir() or (root / f"{module}.py").is_file() for root in roots)

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
    problem = misshapen(project)
    if problem:
        raise BuildError(f"forge_source: {pyproject} cannot be read: {problem}.")
    if commit:
        return Source(path, project, commit, False, top)
    commit = git(path, "rev-parse", "HEAD").strip()
    return Source(path, project, commit, bool(commit and git(path, "status", "--porcelain", "--", ".")), top)


def misshapen(project: dict[str, Any]) -> str:
    """What of a pyproject.toml is not what it has to be, the end of a sentence; empty when all is."""
    for name, (kind, places) in SHAPES.items():
        for place in places:
            if not all(isinstance(each, kind) for each in values_at(project, place.split("."))):
                return f"{place.replace('.*', '')} {'has what is not' if place.endswith('*') else 'must be'} {name}"
    return ""


def values_at(value: Any, keys: Sequence[str]) -> Iterator[Any]:
    """What is there where keys lead to; ``*`` leads to all that a table or a list has."""
    if not keys:
        yield value
    elif keys[0] == "*" and isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from values_at(each, keys[1:])
    elif isinstance(value, dict) and keys[0] in value:
        yield from values_at(value[keys[0]], keys[1:])


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
    return not (NEVER.intersection(parts) or any(part.startswith(NEVER_PREFIX) for part in parts))


def is_bulk(relative: str) -> bool:
    bulk = bool(BULK.intersection(relative.split("/"))) or relative.endswith(BULK_SUFFIX)
    return bulk or bool(SETUPTOOLS_OUTPUT.search(relative))


def is_excluded(name: str, exclude: Sequence[str]) -> bool:
    entries = [entry.strip("/") for entry in exclude]
    return any(name == entry or name.startswith(f"{entry}/") for entry in entries)


def is_left_out(name: str, exclude: Sequence[str]) -> bool:
    """Whether a file stays out of every release, or out of this one because the user says so."""
    return not belongs(name) or is_excluded(name, exclude)


def list_files(source: Source, exclude: Sequence[str], include: Sequence[str] = ()) -> list[str]:
    """Files of a release, relative to the source, sorted: in a git work tree what git does not ignore.

    :param exclude: files or directories, relative to the source, that are left out.
    :param include: files, directories or patterns, relative to the source, that belong to it in any case.
    :raises BuildError: when git tracks a file that is not checked out, what is included is not there, or a directory cannot
        be read.
    """
    wanted = {name for each in include for name in included(source, each) if not is_excluded(name, exclude)}
    # Each with its tag: "?" is not tracked, "S" is left out by a sparse checkout.
    listed = git(source.directory, "ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard")
    if listed:
        tagged = [(each[0], each[2:]) for each in listed.split("\0") if each]
        names = {name for tag, name in tagged if exists(source.directory / name) and not (tag == "?" and is_bulk(name))}
        absent = [name for tag, name in tagged if tag == "S" and name not in names and not is_left_out(name, exclude)]
        if absent:
            raise BuildError(
                f"{source.directory} is a sparse checkout without {in_words(absent)}: run 'git sparse-checkout disable' there, "
                "or leave that out with forge_source_exclude."
            )
        check_submodules(source, exclude, {name for _tag, name in tagged})
    else:
        names = set(files_below(source.directory, lambda name: not is_left_out(name, exclude) and not is_bulk(name)))
        check_submodules(source, exclude)
    found = wanted | {name for name in names if not is_left_out(name, exclude)}
    # A submodule is one entry; what is included of it are its files.
    return sorted(name for name in found if not any(each.startswith(f"{name.rstrip('/')}/") for each in wanted))


def all_files(source: Source, include: Sequence[str] = ()) -> list[str]:
    """Files that commands of a build find, sorted: also those that a release leaves out, but for environments and what git ignores.

    :param include: as :func:`list_files` has it.
    :raises BuildError: when a directory cannot be read, or what is included is not there.
    """
    listed = git(source.directory, "ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard")
    if listed:
        tagged = [(each[0], each[2:]) for each in listed.split("\0") if each]
        names = {name for tag, name in tagged if tag != "?" or (belongs(name) and not is_bulk(name))}
    else:
        names = set(files_below(source.directory, lambda name: belongs(name) and not is_bulk(name)))
    names |= {name for each in include for name in included(source, each)}
    # A submodule, or another repository, is one entry and no file.
    paths = {name: source.directory / name for name in names}
    return sorted(name for name, path in paths.items() if exists(path) and (path.is_symlink() or path.is_file()))


def content_of(path: Path) -> bytes:
    """What a file holds, or where a link leads to, told apart, with whether it may be executed.

    :raises BuildError: when it cannot be read.
    """
    try:
        if path.is_symlink():
            return b"link " + os.fsencode(os.readlink(path))
        return (b"program " if path.stat().st_mode & 0o100 else b"file ") + path.read_bytes()
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}.") from None


def exists(path: Path) -> bool:
    """Unlike os.path.lexists, a file is not absent because one may not look.

    :raises BuildError: when its directory cannot be read.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}.") from None
    return True


def files_below(top: Path, keeps: Callable[[str], bool]) -> Iterator[str]:
    """Files and links below a directory, relative to it.

    :param keeps: of a file or a directory, relative to the top, whether it counts.
    :raises BuildError: when a directory cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise BuildError(f"{error.filename} cannot be read: {error.strerror}.")

    for parent, directories, files in os.walk(top, onerror=refuse):
        place = Path(parent).relative_to(top)
        links = [name for name in directories if (Path(parent) / name).is_symlink()]
        directories[:] = [name for name in directories if name not in links and keeps(str(place / name))]
        for name in [*files, *links]:
            mode = (Path(parent) / name).lstat().st_mode
            # As git has it: no sockets and no pipes.
            if (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) and keeps(str(place / name)):
                yield str(place / name)


def included(source: Source, pattern: str) -> list[str]:
    """Files that an entry of forge_source_include means.

    :raises BuildError: when it leads out of the source, or there is none.
    """
    inside = pattern.strip("/")
    if not inside or pattern.startswith("/") or ".." in inside.split("/"):
        raise BuildError(f"forge_source_include: {pattern!r} must be a path or a pattern below the source.")
    found: list[str] = []
    for path in sorted(source.directory.glob(inside)):
        name = str(path.relative_to(source.directory))
        is_directory = path.is_dir() and not path.is_symlink()
        found += [f"{name}/{each}" for each in files_below(path, belongs)] if is_directory else [name]
    if not found:
        raise BuildError(
            f"forge_source_include: there is no {pattern} in {source.directory}: run what makes it before the build."
        )
    return found


def check_submodules(source: Source, exclude: Sequence[str], tracked: Collection[str] | None = None) -> None:
    """
    :param tracked: what git lists, where the source has its repository.
    :raises BuildError: for a git submodule that is not checked out.
    """
    modules = source.directory / ".gitmodules"
    text = modules.read_text(encoding="utf-8", errors="replace") if modules.is_file() else ""
    for path in re.findall(r"^\s*path\s*=\s*(.+?)\s*$", text, re.MULTILINE):
        directory = source.directory / path
        known = tracked is None or path in tracked
        if known and not is_left_out(path, exclude) and not (directory.is_dir() and any(directory.iterdir())):
            raise BuildError(
                f"{directory} is a git submodule that is not checked out: make forge_source a directory in which "
                "'git submodule update --init' has run, or leave it out with forge_source_exclude."
            )


def make_archive(source: Source, names: Sequence[str], added: Mapping[str, Entry] | None = None) -> bytes:
    """A tar archive that depends on names and contents alone, so that the same input is the same artifact.

    :param added: further files, by name.
    :raises BuildError: for a link that leads out of the release, a file that cannot be read, or a pointer of git LFS.
    """
    entries = [entry_of(source, name) for name in names]
    pointers = [entry.name for entry in entries if entry.content.startswith(LFS_POINTER)]
    if pointers:
        raise BuildError(
            f"{source.directory} has pointers of git LFS in place of files ({in_words(pointers)}): make forge_source a directory "
            "in which 'git lfs pull' has run, or leave them out with forge_source_exclude."
        )
    return tar_bytes([*entries, *(entry for _name, entry in sorted((added or {}).items()))])


def is_pointer(path: Path) -> bool:
    """Whether a file is only what stands for it in git (LFS)."""
    if path.is_symlink():
        return False
    with path.open("rb") as handle:
        return handle.read(len(LFS_POINTER)) == LFS_POINTER


def in_words(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def entry_of(source: Source, name: str) -> Entry:
    path = source.directory / name
    if path.is_symlink():
        target = os.readlink(path)
        if os.path.isabs(target) or not path.resolve().is_relative_to(source.directory):
            raise BuildError(f"{path} is a link that leads out of the source ({target}).")
        return Entry(name, link=target)
    if path.is_dir():
        raise BuildError(
            f"{path} is a git submodule or nested repository: name it in forge_source_include to take its files as they are, "
            "or in forge_source_exclude to leave it out."
        )
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
