# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds as the action plugin runs them, with the defaults of the module."""

from __future__ import annotations

import tarfile
from typing import Any

from ansible_collections.thecodeforge.fastapi.plugins.modules.build import ARGUMENT_SPEC
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.release import build as run
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace

DEFAULTS = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}


def build(source: str, target: str, platforms: list[Platform], workspace: Workspace, **options: Any) -> dict[str, Any]:
    """:param options: arguments of the module, and ``builder``."""
    builder = options.pop("builder", "")
    return run({**DEFAULTS, "source": source, "target": target, **options}, platforms, workspace, builder)


def installed(built: dict[str, Any], host: str = "web1") -> dict[str, str]:
    """Names and versions in the layer of a host."""
    lines = layer_file(built, "requirements.txt", host).splitlines()
    return dict(line.split()[0].split("==") for line in lines if "==" in line)


def layer_names(built: dict[str, Any], host: str = "web1") -> list[str]:
    with tarfile.open(built["hosts"][host]["blob"]["path"]) as layer:
        return layer.getnames()


def layer_file(built: dict[str, Any], name: str, host: str = "web1") -> str:
    with tarfile.open(built["hosts"][host]["blob"]["path"]) as layer:
        return layer.extractfile(name).read().decode()  # type: ignore[union-attr]
