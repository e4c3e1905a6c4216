# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells a project from others, so that one does not take the place of another on a host."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...module_utils._private.records import ProjectRecord
from .build.errors import BuildError
from .build.origin import kind_of, split_git
from .build.source import git
from .build.workspace import without_secrets


def identity(source: str, directory: str, id_: str, inventory: str) -> ProjectRecord:
    """What is known of a project, without building it; a source that is not there is told by the build.

    :param source: ``forge_source``.
    :param directory: ``forge_source_directory``.
    :param id_: ``forge_project``.
    :param inventory: path of the inventory.
    """
    known = {"id": id_, "inventory": inventory}
    kind = kind_of(source) if source else ""
    if kind == "git":
        return ProjectRecord(**known, origin=normalised(split_git(source)[0]), path=directory.strip("/"))
    if kind == "directory":
        path = Path(os.path.abspath(os.path.join(os.path.expanduser(source), directory)))
        return ProjectRecord(**known, **history(path), name=name_of(path), source=str(path))
    if kind in ("requirement", "wheel"):
        name = re.split(r"[^A-Za-z0-9._]" if kind == "wheel" else r"[^A-Za-z0-9._-]", os.path.basename(source))[0]
        return ProjectRecord(**known, name=re.sub(r"[-_.]+", "-", name).lower())
    return ProjectRecord(**known, source=without_secrets(source))


def normalised(origin: str) -> str:
    """Where a repository is, however it is reached: without scheme, credentials, port and ``.git``."""
    if "://" in origin:
        url = urlsplit(origin)
        origin = f"{(url.hostname or '').lower()}{url.path}"
    elif re.match(r"[^/]+:", origin):  # git@host:path
        host, _colon, path = origin.rpartition("@")[2].partition(":")
        origin = f"{host.lower()}/{path.lstrip('/')}"
    return origin.rstrip("/").removesuffix(".git")


def history(directory: Path) -> dict[str, str]:
    """Origin and first commit of the repository that a directory is in, and its path there; empty without git."""
    try:
        found = git(directory, "rev-parse", "--is-shallow-repository", "--show-prefix").splitlines()
        if not found:
            return {}
        roots = git(directory, "rev-list", "--max-parents=0", "HEAD").split() if found[0] == "false" else []
        return {
            "origin": normalised(git(directory, "config", "--get", "remote.origin.url").strip()),
            "root": min(roots, default=""),
            "path": "".join(found[1:]).strip("/"),
        }
    except BuildError:  # of another user; the build says so
        return {}


def name_of(directory: Path) -> str:
    """Name of a Python project; empty when it has none, or when its pyproject.toml cannot be read."""
    try:
        project: dict[str, Any] = tomllib.loads((directory / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    for table in (project.get("project"), project.get("tool", {}).get("poetry")):
        if isinstance(table, dict) and isinstance(table.get("name"), str):
            return re.sub(r"[-_.]+", "-", table["name"]).lower()
    return ""
