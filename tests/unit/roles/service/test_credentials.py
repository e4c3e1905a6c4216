# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings from a credential, without systemd: that is tried in tests/system/test_secrets.py."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.environment import (
    check_text,
    read_environment,
    write_environment,
)
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layer import STARTUP
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.settings import LAUNCHER
from hypothesis import given
from hypothesis import strategies as st

FILES = Path(__file__).parents[4] / "roles" / "service" / "files"
SETTINGS = {"TOKEN": "hunter22", "ODD": 'a"b\\c$d`e\nf é', "HOME": "/elsewhere", "KEPT": "theirs"}
SHOW = "import json, os; print(json.dumps([dict(os.environ), open('/proc/self/environ').read()]))"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "environment").write_text(write_environment(SETTINGS), encoding="utf-8")
    return tmp_path


def start(directory: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": "/root",
        "PYTHONPATH": str(FILES),
        "CREDENTIALS_DIRECTORY": str(directory),
        "FORGE_CREDENTIAL": "environment",
    }
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)


def value_is_passed_on(text: str) -> bool:
    try:
        return check_text("X", text) == text
    except ValueError:
        return False


@given(st.dictionaries(st.from_regex(r"\A[A-Z_][A-Z0-9_]*\Z"), st.text().filter(value_is_passed_on)))
def test_it_reads_what_the_collection_writes(settings: dict[str, str]) -> None:
    spec = importlib.util.spec_from_file_location("forge_credentials", FILES / "forge_credentials.py")
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = write_environment(settings)
    assert module.read(text) == read_environment(text) == settings


def test_a_python_of_the_app_has_them_and_nobody_sees_them(directory: Path) -> None:
    done = start(directory, "python", "-c", f"import forge_credentials; {SHOW}")
    has, seen = json.loads(done.stdout)
    assert {name: has[name] for name in SETTINGS} == SETTINGS
    assert "FORGE_CREDENTIAL" not in has
    assert "hunter22" not in seen


@pytest.mark.parametrize("option", ["-B", "-I"])
def test_a_python_of_the_layer_sets_them_as_it_starts(directory: Path, option: str) -> None:
    """Also an isolated one, which takes no module from PYTHONPATH."""
    (directory / "forge.pth").write_text(STARTUP)
    done = start(directory, "python", option, "-c", f"import site; site.addsitedir({str(directory)!r}); {SHOW}")
    has, seen = json.loads(done.stdout)
    assert {name: has[name] for name in SETTINGS} == SETTINGS
    assert "hunter22" not in seen


def test_what_a_command_is_given_stays_and_its_python_sets_the_rest(directory: Path) -> None:
    done = start(directory, *LAUNCHER, "KEPT=ours", "python", "-c", f"import forge_credentials; {SHOW}")
    has, seen = json.loads(done.stdout)
    assert {name: has[name] for name in SETTINGS} == {**SETTINGS, "KEPT": "ours"}
    assert "hunter22" not in seen


def test_another_program_has_them_too(directory: Path) -> None:
    done = start(directory, *LAUNCHER, "KEPT=ours", "sh", "-c", 'printf "%s|%s|%s" "$TOKEN" "$ODD" "$KEPT"')
    assert done.stdout == f"hunter22|{SETTINGS['ODD']}|ours"
    assert start(directory, *LAUNCHER, "not-there").returncode == 127


def test_without_them_nothing_runs(tmp_path: Path) -> None:
    done = start(tmp_path, "python", "-c", "import forge_credentials; print('ran')")
    assert (done.returncode, done.stdout) == (1, "")
    sentence = "The settings, credential environment of systemd, cannot be read: No such file or directory."
    assert done.stderr.strip() == sentence


def test_where_they_are_in_a_file_nothing_is_done(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(FILES)}
    done = subprocess.run(
        [sys.executable, "-c", "import forge_credentials; print(forge_credentials.BEFORE)"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "{}\n"
