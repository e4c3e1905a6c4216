# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What installing a project adds to its source: metadata, entry points, commands, generated modules.

The release is the source tree, completed with what of the project's own wheel is not in it. So files that are only in
the source (alembic.ini, templates) stay where they are, importlib.metadata finds the package, and the layer, which
holds the dependencies alone, is shared by every release of a lock.
"""

from __future__ import annotations

import configparser
import io
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from ....module_utils._private.archive import Entry
from .cache import digest, put, touch
from .errors import BuildError
from .source import Source, git, is_left_out
from .wheel_builder import run_build
from .workspace import Workspace

INSTALLED = ".installed"
POETRY_BUILDS = '\n[build-system]\nrequires = ["poetry-core"]\nbuild-backend = "poetry.core.masonry.api"\n'
COMMANDS = f"{INSTALLED}/bin"
COMMAND = """\
#!/usr/bin/env python
import sys
from {module} import {name}
sys.exit({call}())
"""


def complete(
    source: Source, names: list[str], exclude: list[str], archive: bytes, workspace: Workspace
) -> dict[str, Entry]:
    """Files, by name, that installing the project adds to a release.

    :raises BuildError: when the project does not build, or has compiled parts.
    """
    if not source.is_package:
        return {}
    dynamic = source.commit + (
        git(source.directory, "describe", "--tags", "--long", "--always") if source.commit else ""
    )
    wheel = workspace.cache / "packages" / f"{digest(archive, dynamic.encode())[:16]}.whl"
    if not wheel.is_file():
        put(wheel, build_project(source, names, workspace))
    return overlay(touch(wheel).read_bytes(), source, set(names), exclude)


def overlay(wheel: bytes, source: Source, names: set[str], exclude: list[str]) -> dict[str, Entry]:
    """What of a wheel a source tree lacks, and a command for each of its scripts."""
    added: dict[str, Entry] = {}
    roots = ["" if root == "." else f"{root}/" for root in source.import_paths]
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
            if any(f"{root}{path}" in names or is_left_out(f"{root}{path}", exclude) for root in roots):
                continue
            top = path.split("/")[0]
            home = next(
                (root for root in roots if "/" in path and f"{root}{top}/__init__.py" in names), f"{INSTALLED}/"
            )
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


def build_project(source: Source, names: list[str], workspace: Workspace) -> bytes:
    """Build the wheel of a project, in a copy: some build backends leave files where they run.

    :raises BuildError: with the backend's own reason, or when it has compiled parts.
    """
    with tempfile.TemporaryDirectory() as scratch:
        project = copy_project(source, names, Path(scratch) / "copy")
        if "build-system" not in source.project:  # what Poetry takes for granted
            with (project / "pyproject.toml").open("a", encoding="utf-8") as handle:
                handle.write(POETRY_BUILDS)
        wheel, error = run_build(project, Path(scratch) / "out", workspace)
        if not wheel:
            raise BuildError(f"{source.directory} does not build ([build-system] of its pyproject.toml): {error}")
        if not wheel.name.endswith("-none-any.whl"):
            raise BuildError(
                f"{source.directory} has compiled parts ({wheel.name}): give its wheel as forge_source instead."
            )
        return wheel.read_bytes()


def copy_project(source: Source, names: list[str], copy: Path) -> Path:
    """Copy the files of a project, with its history, from which some projects take their version."""
    project = copy
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
