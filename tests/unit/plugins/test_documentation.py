# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of a module, as ansible-doc shows it with its fragments, says what its ARGUMENT_SPEC takes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
COLLECTION = "thecodeforge.fastapi"
MODULES = sorted(path.stem for path in (REPOSITORY / "plugins" / "modules").glob("*.py"))
SAME = ("type", "elements", "choices", "default", "required")


@cache
def documents() -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-doc"), "-t", "module", "-j", *(f"{COLLECTION}.{each}" for each in MODULES)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
    )  # fmt: skip
    return {name.rpartition(".")[2]: found["doc"] for name, found in json.loads(done.stdout).items()}


@pytest.mark.parametrize("module", MODULES)
def test_options_are_those_of_the_argument_spec(module: str) -> None:
    spec = getattr(
        importlib.import_module(f"ansible_collections.{COLLECTION}.plugins.modules.{module}"), "ARGUMENT_SPEC", {}
    )
    documented = documents()[module].get("options", {})
    assert set(documented) == set(spec)
    for name, option in spec.items():
        for key in SAME:
            assert (documented[name].get(key) or None) == (option.get(key) or None), f"{name}: {key}"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_supports(module: str) -> None:
    attributes = documents()[module]["attributes"]
    assert set(attributes) >= {"check_mode", "diff_mode", "idempotent"}
    assert all(each["support"] in ("full", "partial", "none") for each in attributes.values())


@pytest.mark.parametrize("path", sorted((REPOSITORY / "plugins" / "filter").glob("*.py")), ids=lambda path: path.stem)
def test_a_filter_can_be_shown_by_ansible_doc(path: Path) -> None:
    """Which fails without one of these."""
    text = importlib.import_module(f"ansible_collections.{COLLECTION}.plugins.filter.{path.stem}").DOCUMENTATION
    assert {"name", "short_description", "description", "author", "options"} <= set(yaml.safe_load(text))
