# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/ansible_test does not take for a pass what did not run."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import scripts

LOG = """\
Running sanity test "compile" on Python 3.9
Run command: python
Running sanity test "compile" on Python 3.11
WARNING: Skipping sanity test "import" on Python 3.14 because it could not be found.
Running sanity test "pslint"
No tests applicable.
Running sanity test "pylint"
"""
SKIPPED = 'WARNING: Skipping sanity test "shellcheck" on Python 3.11 due to missing virtual environment support.\n'


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return scripts.load("ansible_test")


@pytest.mark.parametrize(
    ("log", "status", "all_pythons", "passes"),
    [
        (LOG, 0, False, True),
        (LOG, 1, False, False),
        (LOG, 0, True, False),
        (LOG + SKIPPED, 0, False, False),
        ("WARNING: All targets skipped.\n", 0, False, False),
    ],
)
def test_only_what_ran_passes(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, log: str, status: int, all_pythons: bool, passes: bool
) -> None:
    monkeypatch.setattr(tool, "run", lambda *_: (status, log.splitlines()))
    assert tool.test("2.19", {}, all_pythons, []) is passes


def test_the_report_names_what_ran(tool: ModuleType) -> None:
    assert tool.summary((LOG + SKIPPED).splitlines()) == (
        ["compile 3.9", "compile 3.11", "pylint"],
        ["pslint"],
        [SKIPPED.removeprefix("WARNING: ").rstrip()],
        ["3.14"],
    )


def test_a_machine_without_the_python_is_told_which(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tool, "BUILD", tmp_path)
    monkeypatch.setattr(tool, "uv", lambda: "false")
    with pytest.raises(SystemExit, match=r"ansible-core 2\.20 needs Python 3\.12 or newer"):
        tool.python_for("2.20", {(3, 11): Path("/usr/bin/python3.11")})


def test_the_oldest_python_that_fits_is_taken(tool: ModuleType) -> None:
    pythons = {(3, minor): Path(f"/usr/bin/python3.{minor}") for minor in (9, 11, 12, 13)}
    assert tool.python_for("2.19", pythons) == Path("/usr/bin/python3.11")
    assert tool.python_for("2.21", pythons) == Path("/usr/bin/python3.12")


def test_a_python_that_does_not_start_is_passed_over(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert tool.find_pythons() == {}
