# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Poetry and PDM have in tables of their own, in those of the standard (PEP 621 and PEP 735), and what they have locked.

poetry-core reads Poetry's tables: its ranges (``^1.2``), groups and sources are a language that only it knows whole.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .cache import digest, put
from .errors import BuildError
from .origin import split_git
from .packaging_library import InvalidRequirement, Requirement, Version, canonicalize_name
from .source import Source
from .workspace import Workspace, one_line, without_secrets

POETRY_CORE = "poetry-core>=1.9,<3"
# Tables of Poetry that the standard's do not have.
OWN_TABLES = ("dependencies", "group", "dev-dependencies", "extras")
ASK = """\
import json, sys
from pathlib import Path
from poetry.core.factory import Factory

package = Factory().create_poetry(Path(sys.argv[1])).package
groups = {
    name: package.dependency_group(name).dependencies for name in package.dependency_group_names(include_optional=True)
}
main = groups.pop("main", [])
print(json.dumps({
    "requires-python": str(package.python_constraint),
    "dependencies": [each.to_pep_508(with_extras=False) for each in main if not each.is_optional()],
    "optional-dependencies": {
        str(name): [each.to_pep_508(with_extras=False) for each in main if each.name in {one.name for one in members} and each.is_optional()]
        for name, members in package.extras.items()
    },
    "dependency-groups": {name: [each.to_pep_508() for each in members] for name, members in groups.items()},
}))
"""


def in_standard_tables(source: Source, workspace: Workspace) -> Source:
    """A source whose ``project`` has the standard's tables, whichever tool it was written for.

    :raises BuildError: when poetry-core cannot be had, or cannot read the project.
    """
    tool = source.project.get("tool", {})
    own = tool.get("poetry", {})
    if any(own.get(table) for table in OWN_TABLES):
        found = ask_poetry(source, workspace)
        groups = {**source.project.get("dependency-groups", {}), **found.pop("dependency-groups")}
        about = {**source.project.get("project", {}), **found}
        about.setdefault("name", own.get("name", ""))
        return replace(source, project={**source.project, "project": about, "dependency-groups": groups}, translated=True)
    older = tool.get("pdm", {}).get("dev-dependencies", {})
    dynamic = source.project.get("project", {}).get("dynamic", [])
    if (older or read_other_lock(source)) and "project" in source.project and "dependencies" not in dynamic:
        groups = {**older, **source.project.get("dependency-groups", {})}
        return replace(source, project={**source.project, "dependency-groups": groups}, translated=True)
    return source


def ask_poetry(source: Source, workspace: Workspace) -> dict[str, Any]:
    """What poetry-core makes of a project; kept until its pyproject.toml changes."""
    pyproject = source.directory / "pyproject.toml"
    key = digest(pyproject.read_bytes(), str(source.directory).encode(), ASK.encode())[:16]
    answer = workspace.cache / "projects" / f"{key}.json"
    if not answer.is_file():
        done = workspace.uv(
            "run", "--quiet", "--no-project", "--isolated", "--python", sys.executable, "--with", POETRY_CORE,
            "python", "-", str(source.directory), text=ASK, cwd=source.directory.parent,
            extra={"UV_INDEX": workspace.extra_indexes()},
        )  # fmt: skip
        if done.returncode != 0:
            raise BuildError(f"poetry-core could not read {pyproject}: {cause(done.stderr)}")
        put(answer, done.stdout.encode())
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    # Of "2.7 or 3.8 and newer" the newer part: the standard has no "or".
    found["requires-python"] = found["requires-python"].split("||")[-1].strip().replace("*", "")
    return found


def cause(stderr: str) -> str:
    """The reason in what uv or Python printed: of a traceback its last part, which may have several lines."""
    return one_line(re.split(r"^(?:[\w.]+(?:Error|Exception)): ", stderr, flags=re.MULTILINE)[-1], 600)


def requirements_of(source: Source, extras: Sequence[str], groups: Sequence[str]) -> str:
    """What a project with the standard's tables depends on, a line each.

    :raises BuildError: for an extra or a group that it does not have.
    """
    about = source.project.get("project", {})
    optional = {canonicalize_name(name): lines for name, lines in about.get("optional-dependencies", {}).items()}
    own = canonicalize_name(str(about.get("name", "")))
    lines = list(about.get("dependencies", []))
    waiting, seen = [canonicalize_name(each) for each in extras], set[str]()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        if extra not in optional:
            raise BuildError(f"forge_source_extras: {source.directory} has no extra {extra}{those_of(optional)}.")
        for line in optional[extra]:
            requirement = requirement_in(source, line)
            if canonicalize_name(requirement.name) == own:  # "all" is often the project itself with other extras
                waiting += [canonicalize_name(each) for each in requirement.extras]
            else:
                lines.append(line)
    check_groups(source, groups)
    for group in groups:
        lines += members_of(source, group)
    return "".join(f"{line}\n" for line in lines)


def requirement_in(source: Source, line: str) -> Requirement:
    """:raises BuildError: when a line of a project's tables is no requirement."""
    try:
        return Requirement(line)
    except InvalidRequirement:
        raise BuildError(f"{source.directory / 'pyproject.toml'}: {without_secrets(line)!r} is no requirement.") from None


def groups_of(source: Source) -> dict[str, Any]:
    """Dependency groups by their normalized names."""
    groups: dict[str, Any] = {canonicalize_name(name): members for name, members in source.project.get("dependency-groups", {}).items()}
    older = source.project.get("tool", {}).get("uv", {}).get("dev-dependencies", [])
    return {"dev": older, **groups} if older else groups


def check_groups(source: Source, groups: Sequence[str]) -> None:
    """:raises BuildError: for a group that a project does not have."""
    known = groups_of(source)
    for group in groups:
        if canonicalize_name(group) not in known:
            raise BuildError(f"forge_source_groups: {source.directory} has no dependency group {group}{those_of(known)}.")


def those_of(known: Collection[str]) -> str:
    return f" (it has {', '.join(sorted(known))})" if known else ""


def members_of(source: Source, group: str, within: tuple[str, ...] = ()) -> Iterator[str]:
    """Requirements of a dependency group, those of the groups that it includes too (PEP 735)."""
    name = canonicalize_name(group)
    members = groups_of(source).get(name)
    if members is None or name in within:
        raise BuildError(f"{source.directory / 'pyproject.toml'}: the dependency group {within[-1]} includes {group}, which is "
                         f"{'itself' if members else 'not there'}.")  # fmt: skip
    for member in members:
        if isinstance(member, dict):
            yield from members_of(source, str(member.get("include-group", "")), (*within, name))
        else:
            yield str(member)


@dataclass(frozen=True)
class Locked:
    """A release in the lock of another tool."""

    version: str
    hashes: tuple[str, ...]
    marker: str


@dataclass(frozen=True)
class OtherLock:
    """What Poetry or PDM has locked."""

    path: Path
    releases: dict[str, list[Locked]] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)  # of git dependencies

    @property
    def command(self) -> str:
        return "poetry lock" if self.path.name == "poetry.lock" else "pdm lock"

    def constraints(self) -> str:
        """Its versions, as constraints. Of several that do not say where each is for (Poetry 1), what lies between them."""
        lines = []
        for name, releases in sorted(self.releases.items()):
            markers = [each.marker for each in releases]
            if len(releases) == 1:
                lines.append(f"{name}=={releases[0].version}\n")
            elif all(markers) and len(set(markers)) == len(markers):
                lines += [f"{name}=={each.version} ; {each.marker}\n" for each in releases]
            else:
                versions = sorted((each.version for each in releases), key=Version)
                lines.append(f"{name}>={versions[0]},<={versions[-1]}\n")
        return "".join(lines)

    def with_commits(self, requirements: str) -> str:
        """Requirements whose git dependencies are at the commits that are locked."""

        def at_commit(line: str) -> str:
            name, at, rest = line.partition(" @ git+")
            commit = self.commits.get(canonicalize_name(name.partition("[")[0].strip()), "")
            if not at or not commit:
                return line
            address, semicolon, marker = rest.partition(" ;")
            address, hash_sign, fragment = address.partition("#")
            return f"{name}{at}{split_git('git+' + address)[0]}@{commit}{hash_sign}{fragment}{semicolon}{marker}"

        return "".join(f"{at_commit(line)}\n" for line in requirements.splitlines())

    def find(self, name: str, version: str) -> Locked | None:
        return next((each for each in self.releases.get(name, []) if each.version == version), None)


def read_other_lock(source: Source) -> OtherLock | None:
    """The lock of Poetry or PDM, where it is what a project has.

    :raises BuildError: when it cannot be read.
    """
    found = source.find("poetry.lock", "pdm.lock")
    if found is None:
        return None
    try:
        content = tomllib.loads(found.read_text(encoding="utf-8"))
        older = content.get("metadata", {}).get("files", {})  # Poetry before 1.3
        lock = OtherLock(found)
        for package in content.get("package", []):
            add_package(lock, package, older)
    except (ValueError, KeyError, AttributeError, TypeError) as error:  # also of TOML, UTF-8 and versions
        raise BuildError(f"{found} cannot be read: {error}.") from None
    return lock


def add_package(lock: OtherLock, package: dict[str, Any], files: dict[str, Any]) -> None:
    name = canonicalize_name(package["name"])
    origin = package.get("source", {})
    commit = origin.get("resolved_reference") or package.get("revision")
    if commit:
        lock.commits[name] = commit
    elif origin.get("type", "legacy") == "legacy" and not {"git", "url", "path"} & set(package):
        listed = package.get("files") or files.get(package["name"], [])
        marker = package.get("marker") or package.get("markers") or ""
        if isinstance(marker, dict):  # Poetry: by group
            marker = marker.get("main", "")
        Version(package["version"])
        entry = Locked(package["version"], tuple(sorted({each["hash"] for each in listed})), marker)
        if not any(entry.version == each.version for each in lock.releases.get(name, [])):  # PDM has one for each set of extras
            lock.releases.setdefault(name, []).append(entry)
