# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""From whatever says what an app depends on, to requirements with versions, hashes and markers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from .errors import BuildError
from .cache import digest, keep
from .index import Index, without_secrets
from .target_platform import Platform, release
from .source import Source

# What each server needs, and what of it the app's own lock must meet.
SERVERS = {
    "gunicorn": {"gunicorn": "", "uvicorn": "", "uvicorn-worker": ""},
    "gunicorn-asgi": {"gunicorn": ">=25.1"},
    "uvicorn": {"uvicorn": ""},
}
# Members of a workspace and other projects beside it, in a uv.lock.
LOCAL = re.compile(r'source = \{ (?:editable|virtual|directory) = "([^"]+)" \}')
AT_COMMIT = re.compile(r"git\+\S+@[0-9a-f]{40}(#|\s|$)")
OPTION = re.compile(r"^(-r|--requirement|-c|--constraint)[ =]*(\S+)")


@dataclass(frozen=True)
class Lock:
    """Requirements with hashes and markers."""

    text: str
    path: Path
    base: Path  # directory that paths in it start from
    note: str = ""  # for the user, when the lock was made just now


def lock_of(source: Source, extras: Sequence[str], platforms: list[Platform], cache: Path, index: Index) -> Lock:
    """The lock of a source: its own, or one that is made now and kept until what it was made of changes.

    :raises BuildError: one sentence.
    """
    if source.requirement:
        return compile_lock(source, source.requirement_lines(), [], platforms, cache, index)
    found = source.find("uv.lock", "pylock.toml", "requirements.txt", "pyproject.toml", "setup.cfg", "setup.py")
    workspace = source.find("uv.lock")
    if found == source.directory / "pyproject.toml":
        if workspace and holds(workspace, source.directory):
            found = workspace
        elif not {"project", "build-system"} & set(source.project):  # it only configures tools
            found = None
    if found is None:
        raise BuildError(
            f"forge_source: {source.directory} has no uv.lock, pylock.toml, requirements.txt or pyproject.toml, "
            "so nothing says what the app depends on."
        )
    if found.name == "uv.lock":
        return export_lock(source, found, extras, cache, index)
    if found.name == "pylock.toml":
        return keep_lock(cache, read_pylock(found), found.parent)
    if found.name == "requirements.txt":
        text = found.read_text(encoding="utf-8")
        if all_hashed(text):
            return keep_lock(cache, text, found.parent)
        return compile_lock(source, text, included(found), platforms, cache, index, found)
    text = found.read_text(encoding="utf-8")
    return compile_lock(source, text, [found], platforms, cache, index, found, extras)


def holds(workspace: Path, project: Path) -> bool:
    """Is a project a member of the workspace that a ``uv.lock`` is for?"""
    members = LOCAL.findall(workspace.read_text(encoding="utf-8"))
    return project in {(workspace.parent / member).resolve() for member in members}


def keep_lock(cache: Path, text: str, base: Path = Path()) -> Lock:
    path = cache / "locks" / f"{digest(text.encode())[:16]}.txt"
    keep(path, text.encode(), [])
    return Lock(text, path, base)


def export_lock(source: Source, found: Path, extras: Sequence[str], cache: Path, index: Index) -> Lock:
    """The project's ``uv.lock`` as requirements, its development groups left out.

    :raises BuildError: when it is out of date, or cannot be read.
    """
    text = found.read_text(encoding="utf-8")
    projects = [found.parent, *(found.parent / member for member in LOCAL.findall(text))]
    told = [project / "pyproject.toml" for project in projects if (project / "pyproject.toml").is_file()]
    where = str(source.directory.relative_to(found.parent))
    key = digest(*map(str.encode, [where, *extras, text, *(path.read_text(encoding="utf-8") for path in told)]))
    path = cache / "locks" / f"{key[:16]}.txt"
    if path.is_file():
        return Lock(path.read_text(encoding="utf-8"), path, found.parent)
    command = [
        "export", "--quiet", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate",
        "--format", "requirements.txt", "--project", str(source.directory), *(f"--extra={extra}" for extra in extras),
    ]  # fmt: skip
    done = index.uv(*command, "--locked")
    outdated = "needs to be updated" in done.stderr
    if done.returncode != 0 and not outdated and re.search(r"[Ii]nterpreter|requires-python|Python [>=<]", done.stderr):
        # The controller has no Python that the project accepts; reading the lock as it stands needs none.
        outdated = is_outdated(source.project, found)
        done = done if outdated else index.uv(*command, "--frozen")
    if outdated:
        raise BuildError(f"{found} is out of date: run 'uv lock' there and commit it.")
    if done.returncode != 0:
        raise BuildError(f"uv could not read the lock of {source.directory}: {done.stderr.strip()}")
    keep(path, done.stdout.encode(), [])
    return Lock(done.stdout, path, found.parent)


def is_outdated(project: dict[str, Any], found: Path) -> bool:
    """Does a ``uv.lock`` know other dependencies of its project than ``pyproject.toml`` names?"""
    locked = tomllib.loads(found.read_text(encoding="utf-8"))
    about = project.get("project", {})
    name = canonicalize_name(str(about.get("name", "")))
    own: dict[str, Any] = next((each for each in locked.get("package", []) if each.get("name") == name), {})
    known = {
        (canonicalize_name(each["name"]), SpecifierSet(each.get("specifier", "")))
        for each in own.get("metadata", {}).get("requires-dist", [])
    }
    optional = [each for group in about.get("optional-dependencies", {}).values() for each in group]
    asked = [Requirement(each) for each in [*about.get("dependencies", []), *optional]]
    needed = {(canonicalize_name(each.name), each.specifier) for each in asked}
    return known != needed or SpecifierSet(locked.get("requires-python", "")) != SpecifierSet(
        about.get("requires-python", "")
    )


def read_pylock(path: Path) -> str:
    """A ``pylock.toml`` (PEP 751) as requirements with hashes.

    :raises BuildError: when it cannot be read.
    """
    try:
        packages = tomllib.loads(path.read_text(encoding="utf-8"))["packages"]
        lines = []
        for package in packages:
            marker = f" ; {package['marker']}" if package.get("marker") else ""
            address = pylock_address(package)
            if address:
                lines.append(f"{address}{marker}\n")
                continue
            files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
            if not files or "version" not in package:
                raise BuildError(f"{path}: {package['name']} is not a release of a package.")
            hashes = "".join(f" \\\n    --hash=sha256:{each['hashes']['sha256']}" for each in files)
            lines.append(f"{package['name']}=={package['version']}{marker}{hashes}\n")
        return "".join(lines)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise BuildError(f"{path} cannot be read as a lock (PEP 751): {error}.") from None


def pylock_address(package: dict[str, Any]) -> str:
    """A package of a ``pylock.toml`` that is no release of an index, as a requirement; empty when it is one."""
    where = package.get("vcs") or package.get("archive") or package.get("directory") or {}
    name, sub = package["name"], f"#subdirectory={where['subdirectory']}" if where.get("subdirectory") else ""
    if "vcs" in package:
        return f"{name} @ {where['type']}+{where.get('url') or Path(where['path']).as_uri()}@{where['commit-id']}{sub}"
    if "url" in where:
        return f"{name} @ {where['url']}{sub} --hash=sha256:{where['hashes']['sha256']}"
    return f"./{where['path']}" if where else ""


def statements(text: str) -> Iterator[str]:
    """Lines of a requirements file: continued ones joined, comments and blank ones left out."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if line:
            yield line


def all_hashed(text: str) -> bool:
    """Is every requirement of a file locked with a hash? Then the file is a lock."""
    lines = list(statements(text))
    asked = [line for line in lines if not line.startswith("-")]
    return (
        bool(asked)
        and all("--hash=" in line or AT_COMMIT.search(line) for line in asked)
        and not any(map(OPTION.match, lines))
    )


def included(path: Path) -> list[Path]:
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
        for line in statements(path.read_text(encoding="utf-8")):
            named = OPTION.match(line)
            if named:
                waiting.append(path.parent / named[2])
    return found


def compile_lock(
    source: Source, text: str, inputs: list[Path], platforms: list[Platform], cache: Path, index: Index,
    found: Path | None = None, extras: Sequence[str] = (),
) -> Lock:  # fmt: skip
    """Lock and hash what is not locked, for all platforms at once; kept until the input changes."""
    oldest = min((platform.minor for platform in platforms), key=release)
    pins = pins_of(source)
    told = [text, pins, oldest, *extras, *(path.read_text(encoding="utf-8") for path in inputs)]
    path = cache / "locks" / f"{digest(*map(str.encode, told))[:16]}.txt"
    base = source.directory
    if path.is_file():
        return Lock(path.read_text(encoding="utf-8"), path, base)
    constraints = keep_lock(cache, pins).path if pins else None
    compiled = resolve(
        text,
        oldest,
        platforms,
        index,
        constraints=constraints,
        found=found,
        extras=extras,
        wheel=source.wheel,
        base=base,
    )
    keep(path, compiled.encode(), [])
    kept = "run 'uv lock' there" if found and found.name == "pyproject.toml" else "commit a copy as requirements.txt"
    note = f"{found or source.requirement}: locked just now in {path}, which is used until its input changes"
    return Lock(compiled, path, base, f"{note}; to keep it with the app, {kept}." if found else f"{note}.")


def pins_of(source: Source) -> str:
    """Versions of a lock that is not read otherwise: Poetry's or PDM's."""
    found = source.find("poetry.lock", "pdm.lock")
    if found is None:
        return ""
    versions: dict[str, set[str]] = {}
    try:
        for package in tomllib.loads(found.read_text(encoding="utf-8")).get("package", []):
            if "source" not in package or package["source"].get("type") == "legacy":
                versions.setdefault(package["name"], set()).add(package["version"])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise BuildError(f"{found} cannot be read: {error}.") from None
    return "".join(f"{name}=={one}\n" for name, (one, *more) in sorted(versions.items()) if not more)


def resolve(
    text: str, oldest: str, platforms: list[Platform], index: Index, constraints: Path | None = None,
    found: Path | None = None, extras: Sequence[str] = (), wheel: Path | None = None,
    base: Path | None = None,
) -> str:  # fmt: skip
    """Let uv choose versions and hashes of requirements.

    :raises BuildError: one sentence of why there is none.
    """
    done = index.uv(
        "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate",
        "--python-version", oldest, "--fork-strategy", "fewest",
        *(["--constraints", str(constraints)] if constraints else []),
        *(f"--extra={extra}" for extra in extras),
        *(["--no-emit-package", canonicalize_name(wheel.name.split("-")[0])] if wheel else []),
        str(found) if found else "-",
        text=text, cwd=base if base and base.is_dir() else None,
    )  # fmt: skip
    if done.returncode != 0:
        raise BuildError(explain_uv(done.stderr, found, platforms))
    return done.stdout


def explain_uv(words: str, found: Path | None, platforms: list[Platform]) -> str:
    """uv's complaint as one sentence."""
    words = " ".join(re.sub(r"^\s*[^\w\s(]*\s*(hint:)?", " ", words, flags=re.MULTILINE).split())
    what = f"The dependencies of {found}" if found else "forge_source"
    python = re.search(r"does not satisfy Python(\S+?)[, ]", words)
    if python:
        wanted = SpecifierSet(python[1])
        short = [
            f"{host} has {platform.python}"
            for platform in platforms
            if not wanted.contains(platform.python, prereleases=True)
            for host in platform.hosts or (platform.key,)
        ]
        if short:
            return f"The app needs Python {python[1]}, but {', '.join(short)}: set forge_python, or choose another version."
    missing = re.search(r"Because (\S+) was not found in the package registry", words)
    if missing:
        return f"{what}: the package index has no {missing[1]}."
    version = re.search(r"Because there is no version of (\S+)", words) or re.search(
        r"only the following versions of (\S+)", words
    )
    if version:
        return f"{what}: the package index has no release {version[1]}."
    if re.search(r"error sending request|[Ff]ailed to fetch|dns error|client error", words):
        return f"The package index cannot be reached (forge_build_index_url, forge_build_ca_bundle): {words[-600:]}"
    return f"{what} could not be locked: {words[-1500:]}"


@dataclass(frozen=True)
class Pin:
    """A line of a lock."""

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
    """A line of a lock that is no release of an index: git at a commit, an address, or a path."""

    address: str
    name: str  # empty when only its source says
    hashes: tuple[str, ...]
    marker: Marker | None

    def __str__(self) -> str:
        return self.name or without_secrets(self.address)


def entries(text: str) -> Iterator[Pin | Direct]:
    """Each requirement of a lock.

    :raises BuildError: for a line that is none.
    """
    for line in statements(text):
        if line.startswith(("--index-url", "-i ", "--extra-index-url", "--find-links", "-f ", "--require-hashes",
                            "--trusted-host", "--only-binary", "--no-binary", "--prefer-binary", "--pre")):  # fmt: skip
            continue
        words, *hashes = re.split(r"\s--hash[= ]", line)
        words, told = words.strip(), tuple(each.strip() for each in hashes)
        editable = re.match(r"(-e|--editable)[ =]\s*", words)
        try:
            requirement = Requirement(words)
        except InvalidRequirement:
            address, _space, condition = words[editable.end() if editable else 0 :].partition(" ; ")
            if not editable and not re.match(r"\.{0,2}/|\.{1,2}$|\w[\w+.-]*[:/]", address):
                raise BuildError(f"The lock holds {without_secrets(words)!r}, which is no requirement.") from None
            yield Direct(address.strip(), "", told, Marker(condition) if condition else None)
            continue
        if requirement.url:
            yield Direct(requirement.url, canonicalize_name(requirement.name), told, requirement.marker)
        elif not told and not requirement.specifier:  # uv writes a path as its project does, such as "libs"
            yield Direct(f"./{requirement.name}", "", (), requirement.marker)
        else:
            yield Pin(requirement, told)


def pins(text: str) -> Iterator[Pin]:
    """The releases of an index in a lock."""
    return (entry for entry in entries(text) if isinstance(entry, Pin))


def directs_for(text: str, platform: Platform) -> list[Direct]:
    """What of a lock a platform needs that is no release of an index."""
    found = (entry for entry in entries(text) if isinstance(entry, Direct))
    return [each for each in found if each.marker is None or each.marker.evaluate(platform.markers())]


def pins_for(text: str, platform: Platform) -> list[Pin]:
    """What of a lock a platform needs, by name.

    :raises BuildError: for a dependency without a hash.
    """
    chosen = []
    for pin in pins(text):
        if not pin.hashes:
            raise BuildError(f"The lock has no hash for {pin.requirement.name}: only hashed releases are installed.")
        if pin.requirement.marker is None or pin.requirement.marker.evaluate(platform.markers()):
            chosen.append(pin)
    return sorted(chosen, key=lambda pin: str(pin).lower())


def requirements_for(text: str, platform: Platform) -> str:
    """The lines of a lock that a platform needs, without their markers."""
    return "".join(map(str, pins_for(text, platform)))


def add_server(
    text: str, server: str, wanted: Sequence[str], platforms: list[Platform], cache: Path, index: Index
) -> tuple[str, str]:
    """What the server needs and a lock lacks, resolved with the lock as constraints.

    :param wanted: requirements from which what the server needs is taken.
    :returns: a second lock, empty when nothing is missing, and its path.
    :raises BuildError: when the lock has a version that the server cannot work with.
    """
    if server not in SERVERS:
        raise BuildError(f"forge_server: {server!r} must be one of {', '.join(SERVERS)}.")
    missing: dict[str, str] = {}
    offered: dict[str, str] = {canonicalize_name(Requirement(each).name): each for each in wanted}
    for platform in platforms:
        have = {pin.name: pin.version for pin in pins_for(text, platform)}
        have |= {each.name: "" for each in directs_for(text, platform)}
        for name, least in SERVERS[server].items():
            if name not in have:
                missing[name] = offered.get(name, name) if not least else f"{name}{least}"
            elif least and have[name] and Version(have[name]) not in SpecifierSet(least):
                raise BuildError(f"forge_server: {server} needs {name} {least}, the app's lock has {have[name]}.")
    if not missing:
        return "", ""
    constraints = "".join(
        f"{pin.requirement.name}{pin.requirement.specifier}"
        + (f" ; {pin.requirement.marker}" if pin.requirement.marker else "")
        + "\n"
        for pin in pins(text)
    )
    asked = "".join(f"{each}\n" for each in missing.values())
    oldest = min((platform.minor for platform in platforms), key=release)
    path = cache / "locks" / f"{digest(constraints.encode(), asked.encode(), oldest.encode())[:16]}-server.txt"
    if not path.is_file():
        bounds = keep_lock(cache, constraints).path
        keep(path, resolve(asked, oldest, platforms, index, constraints=bounds).encode(), [])
    return path.read_text(encoding="utf-8"), str(path)
