# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people read of a run, in real runs of Ansible: lines with the default callback, valid JSON with one that writes JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

REPOSITORY = Path(__file__).parents[4]
LINES = ["host    workers", "web1    5", "", '  a "quoted" word, and \\ too']
PLAY = [
    {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [{"name": "Show", "thecodeforge.fastapi.show": {"lines": LINES}}],
    }
]


def run(tmp_path: Path, *options: str, **environment: str) -> str:
    """Standard output of a run."""
    (tmp_path / "play.yml").write_text(json.dumps(PLAY))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", *options, "play.yml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "NO_COLOR": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("options", [[], ["-v"]])
@pytest.mark.parametrize("result_format", ["json", "yaml"])
def test_people_see_the_lines_as_they_are_and_once(tmp_path: Path, options: list[str], result_format: str) -> None:
    output = run(tmp_path, *options, ANSIBLE_CALLBACK_RESULT_FORMAT=result_format)
    assert "\n" + "\n".join(LINES) + "\n" in output
    assert output.count("web1") == 1


@pytest.mark.parametrize("callback", ["ansible.posix.json", "ansible.posix.jsonl"])
def test_json_stays_json_and_has_the_lines(tmp_path: Path, callback: str) -> None:
    output = run(tmp_path, ANSIBLE_STDOUT_CALLBACK=callback)
    documents = (
        [json.loads(output)] if callback.endswith("json") else [json.loads(each) for each in output.splitlines()]
    )
    assert json.dumps("\n".join(LINES)) in json.dumps(documents)


def test_another_callback_shows_the_lines_in_its_way(tmp_path: Path) -> None:
    output = run(tmp_path, ANSIBLE_STDOUT_CALLBACK="ansible.posix.debug")
    assert "MSG:\n\n" + "\n".join(LINES) + "\n" in output
