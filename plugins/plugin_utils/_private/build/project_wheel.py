# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What installing a project adds to its source: metadata, entry points, commands, generated and compiled modules.

The release is the source tree, completed with what of the project's own wheel is not in it. So files that are only in
the source (alembic.ini, templates) stay where they are, importlib.metadata finds the package, and the layer, which
holds the dependencies alone, is shared by every release of a lock. A project with compiled parts has a wheel for each
platform; their modules lie side by side, as their names say which Python and machine they are for.
"""

from __future__ import annotations

import configparser
import io
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from email.parser import HeaderParser
from functools import partial
from pathlib import Path

from .packaging_library import canonicalize_name, parse_wheel_filename
from ....module_utils._private.archive import Entry
from .cache import digest, put, touch
from .errors import BuildError
from .source import Source, git, is_left_out
from .target_platform import Platform, version_tuple
from .wheel_builder import CompileJob, NeedsCompiling, build_wheel, has_compiled_part, run_build, unpack_sdist
from .workspace import Workspace

INSTALLED = ".installed"
POETRY_BUILDS = '\n[build-system]\nrequires = ["poetry-core"]\nbuild-backend = "poetry.core.masonry.api"\n'
COMMANDS = f"{INSTALLED}/bin"
LANGUAGES = (".c", ".cc", ".cpp", ".cxx", ".f", ".f90", ".pyx", ".rs")
COMPILERS = {"cffi", "cython", "mypy"}  # of what is written in Python
COMMAND = """\
#!/usr/bin/env python
import sys
from {module} import {name}
sys.exit({call}())
"""


def complete(
    source: Source, names: list[str], exclude: list[str], archive: bytes, platforms: Sequence[Platform], workspace: Workspace
) -> tuple[list[str], dict[str, Entry]]:
    """What installing the project makes of a release.

    :param names: files of the source.
    :param archive: made of them.
    :returns: which of those files the release keeps, and by name the files that are added.
    :raises NeedsCompiling: for compiled parts that have to be made on hosts first.
    :raises BuildError: when the project does not build, or its compiled parts cannot lie side by side.
    """
    if not source.is_package:
        return names, {}
    added: dict[str, Entry] = {}
    made_for: dict[str, Platform] = {}
    for platform, wheel in project_wheels(source, names, archive, platforms, workspace):
        for name, entry in overlay(wheel.read_bytes(), source, set(names), exclude).items():
            told_apart = ".dist-info/" not in name and not name.endswith(LANGUAGES)  # nothing that runs
            if added.setdefault(name, entry) != entry and told_apart:
                raise BuildError(
                    f"{source.directory}: {name} for {platform} differs from that for {made_for[name]}, and a release is one for all "
                    "hosts: let its name say Python and machine (no abi3, no bare .so), or publish the project to an index and make "
                    "forge_source that requirement."
                )
            made_for.setdefault(name, platform)
    fresh = {module_of(name, source) for name in added} - {""}
    # What was compiled in the source tree before would hide it.
    return [name for name in names if module_of(name, source) not in fresh], added


def roots_of(source: Source) -> list[str]:
    """What a file's name begins with for each directory of the release that is on ``sys.path``."""
    return ["" if root == "." else f"{root}/" for root in source.import_paths]


def module_of(name: str, source: Source) -> str:
    """Which module a file is the machine code of, such as ``shop/fast``; empty for other files."""
    if not name.endswith(".so"):
        return ""
    root = next(root for root in (f"{INSTALLED}/", *roots_of(source)) if name.startswith(root))
    directory, slash, file = name.removeprefix(root).rpartition("/")
    return f"{directory}{slash}{file.partition('.')[0]}"


def project_wheels(
    source: Source, names: list[str], archive: bytes, platforms: Sequence[Platform], workspace: Workspace
) -> list[tuple[Platform, Path]]:
    """The wheel of a project: one for all platforms, or when it has compiled parts one for each of them, in a fixed order.

    :raises NeedsCompiling: for those that have to be made on hosts first.
    :raises BuildError: when the project does not build.
    """
    dynamic = source.commit + (
        git(source.directory, "describe", "--tags", "--long", "--always") if source.commit else ""
    )
    key = digest(archive, dynamic.encode())[:16]
    pure = workspace.cache / "packages" / f"{key}.whl"
    ordered = sorted(platforms, key=lambda each: (version_tuple(each.python), version_tuple(each.glibc), each.key))
    if pure.is_file():
        return [(ordered[0], touch(pure))]
    given = {(source.directory / name).read_bytes() for name in names if ".so" in name and (source.directory / name).is_file()}
    wheels, jobs = list[tuple[Platform, Path]](), list[CompileJob]()
    for platform in ordered:
        place = digest(key.encode(), platform.python_version.encode(), platform.machine.encode())[:16]
        try:
            wheel = stable_wheel(wheels, platform) or build_wheel(
                source.directory.name, partial(copy_project, source, names), workspace.cache / "built" / place, platform,
                workspace, [], given,
            )  # fmt: skip
        except NeedsCompiling as needed:
            if needed.jobs[0].failure and not is_compiled(source, names):
                raise does_not_build(source, needed.jobs[0].failure) from None
            jobs += needed.jobs
            continue
        if wheel.name.endswith("-none-any.whl") and not has_compiled_part(wheel, given):
            put(pure, wheel.read_bytes())
            return [(platform, pure)]
        wheels.append((platform, wheel))
    if jobs:
        name, metadata = describe(source, names, workspace)
        there = partial(copy_for_host, source, names, metadata)
        raise NeedsCompiling([replace(job, requirement=name, source=there) for job in jobs])
    return wheels


def is_compiled(source: Source, names: list[str]) -> bool:
    """Whether a project seems to have compiled parts: sources that need a compiler, or a tool that compiles Python."""
    requires = (re.match(r"[\w.-]+", each) for each in source.project.get("build-system", {}).get("requires", []))
    tools = {canonicalize_name(found[0]) for found in requires if found}
    return bool(tools & COMPILERS) or any(name.endswith(LANGUAGES) for name in names)


def stable_wheel(wheels: list[tuple[Platform, Path]], platform: Platform) -> Path | None:
    """A wheel of an older platform that runs on this one, too: it keeps to Python's stable ABI (abi3)."""
    for built_for, wheel in wheels:
        stable = any(tag.abi == "abi3" for tag in parse_wheel_filename(wheel.name)[3])
        if stable and platform.takes(wheel.name, replace(built_for, python=platform.python)):
            return wheel
    return None


def overlay(wheel: bytes, source: Source, names: set[str], exclude: list[str]) -> dict[str, Entry]:
    """What of a wheel a source tree lacks, or has compiled before, and a command for each of its scripts."""
    added: dict[str, Entry] = {}
    roots = roots_of(source)
    with zipfile.ZipFile(io.BytesIO(wheel)) as opened:
        for name in opened.namelist():
            if name.endswith("/"):
                continue
            path = name
            parts = name.split("/")
            if parts[0].endswith(".data"):
                if parts[1] not in ("purelib", "platlib"):
                    continue
                path = "/".join(parts[2:])
            there = next((root for root in roots if f"{root}{path}" in names), None)
            if (there is not None and not path.endswith(".so")) or any(is_left_out(f"{root}{path}", exclude) for root in roots):
                continue
            top = path.split("/")[0]
            package = next((root for root in roots if "/" in path and f"{root}{top}/__init__.py" in names), f"{INSTALLED}/")
            home = package if there is None else there
            added[home + path] = Entry(home + path, opened.read(name))
            if re.fullmatch(r"[^/]+\.dist-info/entry_points\.txt", name):
                added |= commands(opened.read(name).decode("utf-8", "replace"))
    return added


def commands(text: str) -> dict[str, Entry]:
    """The scripts that installing a package makes. The layer's Python comes first on PATH."""
    parser = configparser.ConfigParser(delimiters=("=",), strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    if not parser.has_section("console_scripts"):
        return {}
    found = {}
    for name, value in parser.items("console_scripts"):
        module, _colon, call = value.split("[")[0].strip().partition(":")
        if re.fullmatch(r"[\w.-]+", name) and re.fullmatch(r"[\w.]+", module) and re.fullmatch(r"[\w.]+", call):
            script = COMMAND.format(module=module, name=call.split(".")[0], call=call)
            found[f"{COMMANDS}/{name}"] = Entry(f"{COMMANDS}/{name}", script.encode(), 0o755)
    return found


def does_not_build(source: Source, cause: str) -> BuildError:
    return BuildError(f"{source.directory} does not build ([build-system] of its pyproject.toml): {cause}")


def copy_project(source: Source, names: list[str], scratch: Path) -> Path:
    """As :func:`copy_tree`, for uv, which builds it there: some build backends leave files where they run."""
    project = copy_tree(source, names, scratch)
    if "build-system" not in source.project:  # what Poetry takes for granted
        with (project / "pyproject.toml").open("a", encoding="utf-8") as handle:
            handle.write(POETRY_BUILDS)
    return project


def copy_tree(source: Source, names: list[str], scratch: Path) -> Path:
    """Copy files of a source below a directory.

    :returns: where; it has the history, from which some projects take their version.
    """
    copy = project = scratch / "copy"
    top = git(source.directory, "rev-parse", "--show-toplevel").rstrip("\n") if source.commit else ""
    if top:
        done = subprocess.run(
            ["git", "clone", "--quiet", "--shared", top, str(copy)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            project = copy / source.directory.relative_to(Path(top).resolve())
    for name in git(source.directory, "ls-files", "-z", "--deleted").split("\0"):
        if name:
            (project / name).unlink(missing_ok=True)
    for name in names:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        shutil.copy2(source.directory / name, path, follow_symlinks=False)
    return project


def describe(source: Source, names: list[str], workspace: Workspace) -> tuple[str, bytes]:
    """Name of a project, and its metadata where only its backend knows them, perhaps from its history: an sdist says both.

    :raises BuildError: when nothing says its name.
    """
    about = source.project.get("project", {})
    if "name" in about and "version" in about:
        return about["name"], b""
    with tempfile.TemporaryDirectory() as scratch:
        sdist, error = run_build(copy_project(source, names, Path(scratch)), Path(scratch) / "out", workspace, kind="sdist")
        if sdist:
            metadata = (unpack_sdist(sdist, Path(scratch)) / "PKG-INFO").read_bytes()
            return HeaderParser().parsestr(metadata.decode("utf-8", "replace"))["Name"], metadata
    if "name" not in about:
        raise does_not_build(source, error)
    return about["name"], b""


def copy_for_host(source: Source, names: list[str], metadata: bytes, scratch: Path) -> Path:
    """As :func:`copy_project`, for where there is no git: what the history says is in the metadata, as in an sdist."""
    project = copy_project(source, names, scratch)
    shutil.rmtree(project / ".git", ignore_errors=True)
    if metadata:
        (project / "PKG-INFO").write_bytes(metadata)
    return project
