# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""From whatever says what an app depends on, to requirements with versions, hashes and markers."""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .packaging_library import InvalidRequirement, Marker, Requirement, SpecifierSet, Version, canonicalize_name
from .cache import digest, put
from .errors import BuildError
from .poetry import OtherLock, check_groups, read_other_lock, requirements_of, those_of
from .source import Source, in_words
from .target_platform import Platform, version_tuple
from .workspace import Workspace, one_line, without_secrets

# What each server needs, in the oldest version that works: tried by `make test-pins`.
# Uvicorn 0.22 is the first with timeout_graceful_shutdown.
SERVERS = {
    "gunicorn": {"gunicorn": "20.1", "uvicorn": "0.22", "uvicorn-worker": "0.1"},
    "gunicorn-asgi": {"gunicorn": "25.1"},
    "uvicorn": {"uvicorn": "0.22"},
}
# Members of a workspace and other projects next to it, in a uv.lock.
LOCAL = re.compile(r'source = \{ (?:editable|virtual|directory) = "([^"]+)" \}')
AT_COMMIT = re.compile(r"git\+\S+@[0-9a-f]{40}(#|\s|$)")
IN_SET = re.compile(r"""(["'])(?P<name>[\w.-]+)\1\s+(?P<not>not\s+)?in\s+(?P<set>extras|dependency_groups)""")
OPTION = re.compile(r"^(-r|--requirement|-c|--constraint)[ =]*(\S+)")
IGNORED_OPTIONS = (
    "--index-url", "-i ", "--extra-index-url", "--find-links", "-f ", "--require-hashes", "--trusted-host",
    "--only-binary", "--no-binary", "--prefer-binary", "--pre",
)  # fmt: skip
PROJECT_FILES = ("uv.lock", "pyproject.toml", "setup.cfg", "setup.py")
REQUIREMENTS_SUFFIXES = (".txt", ".in")
OUTDATED = 1  # exit code of `uv export --locked` then; 2 when it could not say
REQUIREMENTS_FORMAT = ("--no-header", "--no-annotate")


@dataclass(frozen=True)
class Lock:
    """Requirements with hashes and markers."""

    text: str
    path: Path
    base: Path  # directory that paths in it start from
    note: str = ""  # for the user, when the lock was made just now
    written: Path | None = None  # the user's own file, when nothing has resolved it


@dataclass(frozen=True)
class Pin:
    """A line of a lock: a release of an index."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        return next((each.version for each in self.requirement.specifier if each.operator in ("==", "===")), "")

    def __str__(self) -> str:
        options = "".join(f" \\\n    --hash={value}" for value in sorted(self.hashes))
        return f"{self.requirement.name}{self.requirement.specifier}{options}\n"


@dataclass(frozen=True)
class Direct:
    """A line of a lock that is no release of an index: git at a commit, a URL, or a path."""

    address: str
    name: str  # empty when only its source says
    hashes: tuple[str, ...]
    marker: Marker | None

    def __str__(self) -> str:
        return self.name or without_secrets(self.address)


@dataclass(frozen=True)
class Wanted:
    """What of a project's dependencies is wanted."""

    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    lock: str = ""  # file that says which versions, relative to the project

    def refuse(self, found: Path) -> None:
        """:raises BuildError: when there are extras or groups, which a file cannot have."""
        for variable, names in (("forge_source_extras", self.extras), ("forge_source_groups", self.groups)):
            if names:
                raise BuildError(f"{variable}: {found} is what says the app's dependencies, and it has no {', '.join(names)}.")


NOTHING_MORE = Wanted()


def lock_of(source: Source, wanted: Wanted, platforms: list[Platform], workspace: Workspace) -> Lock:
    """The lock of a source: its own, or one that is made now and kept until what it was made of changes.

    :raises BuildError: when nothing says what the app depends on, or that cannot be read or locked.
    """
    if source.requirement:
        if wanted.groups or wanted.lock:
            variable = "forge_source_groups" if wanted.groups else "forge_source_lock"
            raise BuildError(f"{variable}: forge_source is a package and no project (its extras are part of its name: shop[pg]==1.2).")
        return compile_lock(source, source.requirement_lines(), [], platforms, workspace)
    found = find_lock(source, wanted.lock)
    if found.name == "uv.lock":
        check_groups(source, wanted.groups)
        return export_lock(source, found, wanted, workspace)
    if is_pylock(found):
        return store_lock(workspace, read_pylock(found, wanted), found.parent)
    if found.suffix in REQUIREMENTS_SUFFIXES:
        wanted.refuse(found)
        text = read_text(found)
        if all_hashed(text):
            return replace(store_lock(workspace, text, found.parent), written=found)
        return compile_lock(source, text, included_files(found), platforms, workspace, found)
    if source.translated:
        return lock_translated(source, wanted, platforms, workspace, found)
    check_groups(source, wanted.groups)
    return compile_lock(source, read_text(found), [found], platforms, workspace, found, wanted)


def find_lock(source: Source, named: str) -> Path:
    """The file that says what a project depends on.

    :param named: by the user; else the first that is there, as uv, pip and Poetry would find it.
    :raises BuildError: when there is none.
    """
    if named:
        lock = source.directory / named
        if not lock.is_file():
            raise BuildError(f"forge_source_lock: {source.directory} has no file {named}.")
        if lock.name not in PROJECT_FILES and not is_pylock(lock) and lock.suffix not in REQUIREMENTS_SUFFIXES:
            raise BuildError(
                f"forge_source_lock: {named} is no file with versions: name a uv.lock, pylock.toml or requirements file "
                "(.txt or .in); locks of Poetry and PDM are found by themselves."
            )
        return lock
    found = source.find("uv.lock", "pylock.toml", "requirements.txt", *PROJECT_FILES)
    if found == source.directory / "pyproject.toml":
        above = source.find("uv.lock")
        if above and has_member(above, source.directory):
            found = above
        elif not {"project", "build-system"} & set(source.project):  # it only configures tools
            found = None
    if found is None:
        others = sorted(str(each.relative_to(source.directory)) for each in source.directory.glob("*requirements*/*.txt"))
        others += sorted(each.name for each in (*source.directory.glob("*requirements*.*"), *source.directory.glob("pylock.*.toml")))
        advice = f" There is {in_words(others)}: name it in forge_source_lock." if others else ""
        raise BuildError(
            f"forge_source: {source.directory} has no uv.lock, pylock.toml, requirements.txt or pyproject.toml, "
            f"so nothing says what the app depends on.{advice}"
        )
    return found


def is_pylock(path: Path) -> bool:
    return bool(re.fullmatch(r"pylock(\.[^.]+)?\.toml", path.name))


def lock_translated(
    source: Source, wanted: Wanted, platforms: list[Platform], workspace: Workspace, found: Path
) -> Lock:
    """The lock of a project whose tables uv does not know: with the versions, hashes and commits of Poetry's or PDM's, or made now.

    :raises BuildError: when that lock is out of date, or there is none and it cannot be locked.
    """
    other = read_other_lock(source)
    text = requirements_of(source, wanted.extras, wanted.groups)
    if other is None:
        return compile_lock(source, text, [], platforms, workspace, found)
    parts = [text, str(source.directory), oldest_python(platforms), read_text(other.path)]
    path = workspace.cache / "locks" / f"{digest(*map(str.encode, parts))[:16]}.txt"
    if not path.is_file():
        options = ["--constraints", str(store_lock(workspace, other.constraints()).path)]
        subject = f"The dependencies of {found}, as {other.path} has them,"
        try:
            resolved = resolve(other.with_commits(text), platforms, workspace, subject, options, None, source.directory)
        except BuildError as error:
            raise BuildError(f"{error} Where the lock is out of date, run '{other.command}' there and commit it.") from None
        put(path, as_locked(resolved, other, platforms).replace(f"{source.directory.as_uri()}/", "./").encode())
    return Lock(path.read_text(encoding="utf-8"), path, source.directory)


def as_locked(text: str, other: OtherLock, platforms: list[Platform]) -> str:
    """What uv has chosen, with the hashes that are locked.

    :raises BuildError: when it has chosen what is not locked.
    """
    needed = {(pin.name, pin.version) for platform in platforms for pin in pins_for(text, platform)}
    absent = sorted(f"{name} {version}" for name, version in needed if not other.find(name, version))
    if absent:
        raise BuildError(f"{other.path} is out of date: it has no {in_words(absent)}. Run '{other.command}' there and commit it.")

    def hashed(statement: str) -> str:
        (entry,) = entries(statement)
        locked = other.find(entry.name, entry.version) if isinstance(entry, Pin) else None
        if locked is None or not locked.hashes:
            return f"{statement}\n"
        return re.split(r"\s--hash[= ]", statement)[0].strip() + "".join(f" \\\n    --hash={each}" for each in locked.hashes) + "\n"

    return "".join(map(hashed, statements(text)))


def read_text(path: Path) -> str:
    """:raises BuildError: naming a file that is not UTF-8, and the line."""
    try:
        text, bad = path.read_text(encoding="utf-8-sig"), None
    except UnicodeDecodeError as error:
        text, bad = "", error
    if bad and not bad.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        line = bad.object.count(b"\n", 0, bad.start) + 1
        raise BuildError(f"forge_source: {path} is not UTF-8 (line {line}): save it as UTF-8.")
    if bad or "\0" in text:
        raise BuildError(f"forge_source: {path} is UTF-16, as PowerShell writes it: save it as UTF-8.")
    return text


def has_member(lock: Path, project: Path) -> bool:
    """Whether a project is a member of the workspace that a ``uv.lock`` is for."""
    return project in {(lock.parent / member).resolve() for member in LOCAL.findall(read_text(lock))}


def store_lock(workspace: Workspace, text: str, base: Path = Path()) -> Lock:
    path = workspace.cache / "locks" / f"{digest(text.encode())[:16]}.txt"
    put(path, text.encode())
    return Lock(text, path, base)


def export_lock(source: Source, found: Path, wanted: Wanted, workspace: Workspace) -> Lock:
    """The project's ``uv.lock`` as requirements, of its development groups only those that are wanted.

    :raises BuildError: when it is out of date, or cannot be read.
    """
    text = read_text(found)
    projects = [found.parent, *(found.parent / member for member in LOCAL.findall(text))]
    inputs = [project / "pyproject.toml" for project in projects if (project / "pyproject.toml").is_file()]
    member = str(source.directory.relative_to(found.parent))
    options = [f"--extra={extra}" for extra in wanted.extras] + [f"--group={group}" for group in wanted.groups]
    key = digest(*map(str.encode, [member, *options, text, *map(read_text, inputs)]))
    path = workspace.cache / "locks" / f"{key[:16]}.txt"
    if path.is_file():
        return Lock(path.read_text(encoding="utf-8"), path, found.parent)
    command = [
        "export", "--quiet", "--no-dev", "--no-emit-project", *REQUIREMENTS_FORMAT, "--format", "requirements.txt",
        "--project", str(source.directory), *options,
    ]  # fmt: skip
    done = workspace.uv(*command, "--locked")
    outdated = done.returncode == OUTDATED
    if not outdated and done.returncode != 0:
        # Perhaps the controller has no Python that the project accepts; reading the lock as it stands needs none.
        frozen = workspace.uv(*command, "--frozen")
        if frozen.returncode == 0:
            done, outdated = frozen, is_outdated(source.project, found)
    if outdated:
        raise BuildError(f"{found} is out of date: run 'uv lock' there and commit it.")
    if done.returncode != 0:
        raise BuildError(f"uv could not read the lock of {source.directory}: {one_line(done.stderr)}")
    put(path, done.stdout.encode())
    return Lock(done.stdout, path, found.parent)


def is_outdated(project: dict[str, Any], lock: Path) -> bool:
    """Whether a ``uv.lock`` knows other dependencies of its project than ``pyproject.toml`` names."""
    locked = tomllib.loads(read_text(lock))
    about = project.get("project", {})
    name = canonicalize_name(str(about.get("name", "")))
    package: dict[str, Any] = next((each for each in locked.get("package", []) if each.get("name") == name), {})
    known = {
        (canonicalize_name(each["name"]), SpecifierSet(each.get("specifier", "")))
        for each in package.get("metadata", {}).get("requires-dist", [])
    }
    optional = [each for group in about.get("optional-dependencies", {}).values() for each in group]
    named = [Requirement(each) for each in [*about.get("dependencies", []), *optional]]
    needed = {(canonicalize_name(each.name), each.specifier) for each in named}
    python = [SpecifierSet(each.get("requires-python", "")) for each in (locked, about)]
    return known != needed or python[0] != python[1]


def read_pylock(path: Path, wanted: Wanted) -> str:
    """A ``pylock.toml`` (PEP 751) as requirements with hashes.

    :raises BuildError: when it cannot be read, has something that is neither a release nor a source, or not an extra or
        a group that is wanted.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for variable, key, names in (
            ("forge_source_extras", "extras", wanted.extras),
            ("forge_source_groups", "dependency-groups", wanted.groups),
        ):
            for name in names:
                if name not in content.get(key, []):
                    raise BuildError(f"{variable}: {path} has no {name}{those_of(content.get(key, []))}.")
        groups = {*content.get("default-groups", []), *wanted.groups}
        chosen = {"extras": set(wanted.extras), "dependency_groups": groups}
        return "".join(pylock_line(path, package, chosen) for package in content["packages"])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise BuildError(f"{path} cannot be read as a lock (PEP 751): {error}.") from None


def pylock_line(path: Path, package: dict[str, Any], chosen: dict[str, set[str]]) -> str:
    """
    :param chosen: ``extras`` and ``dependency_groups``, which markers of a pylock.toml may ask for.
    """

    def answer(found: re.Match[str]) -> str:
        holds = (found["name"] in chosen[found["set"]]) != bool(found["not"])
        return f"python_version {'>=' if holds else '<'} '0'"

    name, condition = package["name"], IN_SET.sub(answer, package.get("marker", ""))
    marker = f" ; {condition}" if condition else ""
    origin = package.get("vcs") or package.get("archive") or package.get("directory") or {}
    subdirectory = f"#subdirectory={origin['subdirectory']}" if origin.get("subdirectory") else ""
    if "vcs" in package:
        url = origin.get("url") or Path(origin["path"]).as_uri()
        return f"{name} @ {origin['type']}+{url}@{origin['commit-id']}{subdirectory}{marker}\n"
    if "url" in origin:
        return f"{name} @ {origin['url']}{subdirectory} --hash=sha256:{origin['hashes']['sha256']}{marker}\n"
    if origin:
        return f"./{origin['path']}{marker}\n"
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    if not files or "version" not in package:
        raise BuildError(f"{path}: {name} is not a release of a package.")
    hashes = "".join(f" \\\n    --hash=sha256:{each['hashes']['sha256']}" for each in files)
    return f"{name}=={package['version']}{marker}{hashes}\n"


def statements(text: str) -> Iterator[str]:
    """Lines of a requirements file: continued ones joined, comments and blank ones left out."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if line:
            yield line


def all_hashed(text: str) -> bool:
    """Whether every requirement of a file is locked with a hash. Then the file is a lock."""
    lines = list(statements(text))
    requirements = [line for line in lines if not line.startswith("-")]
    hashed = all("--hash=" in line or AT_COMMIT.search(line) for line in requirements)
    return bool(requirements) and hashed and not any(map(OPTION.match, lines))


def included_files(path: Path) -> list[Path]:
    """A requirements file and those that it includes.

    :raises BuildError: when one is not there.
    """
    found: list[Path] = []
    waiting = [path]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        if not path.is_file():
            raise BuildError(f"forge_source: there is no {path}, which the requirements include.")
        found.append(path)
        options = filter(None, map(OPTION.match, statements(read_text(path))))
        waiting += [path.parent / option[2] for option in options]
    return found


def compile_lock(
    source: Source, text: str, inputs: list[Path], platforms: list[Platform], workspace: Workspace,
    found: Path | None = None, wanted: Wanted = NOTHING_MORE,
) -> Lock:  # fmt: skip
    """Lock and hash what is not locked, for all platforms at once; kept until the input changes.

    :param text: the requirements; of a file that uv is to read itself, its content.
    :param inputs: what uv reads.
    :param found: file that says what the app depends on, for people.
    """
    options = [f"--extra={extra}" for extra in wanted.extras]
    options += [f"--group={found}:{group}" for group in wanted.groups]
    parts = [text, oldest_python(platforms), *options, *map(read_text, inputs)]
    path = workspace.cache / "locks" / f"{digest(*map(str.encode, parts))[:16]}.txt"
    if path.is_file():
        return Lock(path.read_text(encoding="utf-8"), path, source.directory)
    if source.wheel:
        options += ["--no-emit-package", canonicalize_name(source.wheel.name.split("-")[0])]
    subject = f"The dependencies of {found}" if found else "forge_source"
    read = found if inputs else None
    put(path, resolve(text, platforms, workspace, subject, options, read, source.directory).encode())
    note = f"{found or source.requirement}: locked just now in {path}, which is used until its input changes"
    if found:
        lock = "poetry lock" if source.is_poetry else "uv lock"
        advice = f"run '{lock}' there" if found.name == "pyproject.toml" else "commit a copy as requirements.txt"
        note += f"; to keep it with the app, {advice}"
    return Lock(path.read_text(encoding="utf-8"), path, source.directory, f"{note}.")


def oldest_python(platforms: list[Platform]) -> str:
    return min((platform.python_version for platform in platforms), key=version_tuple)


def resolve(
    text: str, platforms: list[Platform], workspace: Workspace, subject: str, options: Sequence[str] = (),
    found: Path | None = None, directory: Path | None = None,
) -> str:  # fmt: skip
    """Let uv choose versions and hashes of requirements.

    :param subject: begins the sentence of an error.
    :param found: file that ``text`` was read from.
    :raises BuildError: when there are none, or the index cannot be reached.
    """
    done = workspace.uv(
        "pip", "compile", "--quiet", "--universal", "--generate-hashes", *REQUIREMENTS_FORMAT,
        "--python-version", oldest_python(platforms), "--fork-strategy", "fewest", *options, str(found) if found else "-",
        text=text, cwd=directory if directory and directory.is_dir() else None,
    )  # fmt: skip
    if done.returncode != 0:
        raise BuildError(f"{subject} could not be locked: {one_line(done.stderr)} {workspace.index_hint()}")
    return done.stdout


def entries(text: str) -> Iterator[Pin | Direct]:
    """Each requirement of a lock.

    :raises BuildError: for a line that is none.
    """
    for line in statements(text):
        if line.startswith(IGNORED_OPTIONS):
            continue
        statement, *found = re.split(r"\s--hash[= ]", line)
        statement, hashes = statement.strip(), tuple(each.strip() for each in found)
        editable = re.match(r"(-e|--editable)[ =]\s*", statement)
        try:
            requirement = Requirement(statement)
        except InvalidRequirement:
            address, _semicolon, condition = statement[editable.end() if editable else 0 :].partition(" ; ")
            if not editable and not re.match(r"\.{0,2}/|\.{1,2}$|\w[\w+.-]*[:/]", address):
                raise BuildError(f"The lock holds {without_secrets(statement)!r}, which is no requirement.") from None
            yield Direct(address.strip(), "", hashes, Marker(condition) if condition else None)
            continue
        if requirement.url:
            yield Direct(requirement.url, canonicalize_name(requirement.name), hashes, requirement.marker)
        elif not hashes and not requirement.specifier:  # uv writes a path as its project does, such as "libs"
            yield Direct(f"./{requirement.name}", "", (), requirement.marker)
        else:
            yield Pin(requirement, hashes)


def directs_for(text: str, platform: Platform) -> list[Direct]:
    """What of a lock a platform needs that is no release of an index."""
    found = (entry for entry in entries(text) if isinstance(entry, Direct))
    return [each for each in found if each.marker is None or each.marker.evaluate(platform.markers())]


def pins_for(text: str, platform: Platform) -> list[Pin]:
    """The releases that a platform needs of a lock, by name.

    :raises BuildError: for a dependency without a hash.
    """
    chosen = []
    for pin in entries(text):
        if isinstance(pin, Direct):
            continue
        if not pin.hashes:
            raise BuildError(f"The lock has no hash for {pin.requirement.name}: only hashed releases are installed.")
        if pin.requirement.marker is None or pin.requirement.marker.evaluate(platform.markers()):
            chosen.append(pin)
    return sorted(chosen, key=lambda pin: str(pin).lower())


def add_server(
    text: str, server: str, offered: Sequence[str], platforms: list[Platform], workspace: Workspace
) -> Lock | None:
    """What the server needs and a lock lacks, resolved with the lock as constraints.

    :param offered: requirements from which what the server needs is taken.
    :returns: a second lock; nothing when nothing is missing.
    :raises BuildError: when the lock has a version that the server cannot work with.
    """
    if server not in SERVERS:
        raise BuildError(f"forge_server: {server!r} must be one of {', '.join(SERVERS)}.")
    by_name: dict[str, str] = {canonicalize_name(Requirement(each).name): each for each in offered}
    missing: dict[str, str] = {}
    for platform in platforms:
        present = {pin.name: pin.version for pin in pins_for(text, platform)}
        present |= {each.name: "" for each in directs_for(text, platform)}
        for name, least in SERVERS[server].items():
            if name not in present:
                missing[name] = by_name.get(name, name)
            elif present[name] and Version(present[name]) < Version(least):
                raise BuildError(
                    f"forge_server: {server} needs {name} {least} or newer, the app's lock has {present[name]}: lock a newer one."
                )
        old, setuptools = present.get("gunicorn", ""), present.get("setuptools", "")
        if "gunicorn" in SERVERS[server] and old and Version(old) < Version("21") and Version(setuptools or "99") >= Version("82"):
            raise BuildError(
                f"forge_server: gunicorn {old} needs pkg_resources, which setuptools has before 82 only, and the app's lock has "
                f"{f'setuptools {setuptools}' if setuptools else 'no setuptools'}: lock gunicorn 21 or newer, or setuptools 81."
            )
    if not missing:
        return None
    constraints = "".join(
        f"{pin.requirement.name}{pin.requirement.specifier}"
        + (f" ; {pin.requirement.marker}" if pin.requirement.marker else "")
        + "\n"
        for pin in entries(text)
        if isinstance(pin, Pin)
    )
    wanted = "".join(f"{each}\n{name}>={SERVERS[server][name]}\n" for name, each in missing.items())
    key = digest(constraints.encode(), wanted.encode(), oldest_python(platforms).encode())
    path = workspace.cache / "locks" / f"{key[:16]}-server.txt"
    if not path.is_file():
        options = ["--constraints", str(store_lock(workspace, constraints).path)]
        put(path, resolve(wanted, platforms, workspace, "What the server needs", options).encode())
    return Lock(path.read_text(encoding="utf-8"), path, Path())
