# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The quick call and Ansible's own way give the same results, in real runs of Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy
REPOSITORY = Path(__file__).parents[4]
HOST = {"app": "no-such-app", "root": "/srv", "python": "python3", "user": "{{ secret_name }}", "group": "shop"}
PLAY: dict[str, Any] = {
    "hosts": "localhost",
    "gather_facts": False,
    "ignore_errors": True,
    "vars": {"secret_name": "shop"},
    "environment": {"HOME": "{{ playbook_dir }}"},
    "tasks": [
        {"thecodeforge.fastapi.host_info": HOST},
        {"thecodeforge.fastapi.host_info": HOST, "check_mode": True, "diff": True},
        {"thecodeforge.fastapi.host_info": {**HOST, "systems": ["plan9 4"]}},
        {"thecodeforge.fastapi.host_info": {**HOST, "colour": "red"}},
        {"thecodeforge.fastapi.host_info": {"python": "python3"}},
        {"thecodeforge.fastapi.host_info": {**HOST, "packages": {"a": 1}}},
        {"thecodeforge.fastapi.deploy_lock": {"app": "shop", "root": "~/srv", "state": "lost"}},
        # Its file is broken: a warning. The path is that of the task's environment.
        {"thecodeforge.fastapi.deploy_lock": {"app": "shop", "root": "~/srv"}, "check_mode": True},
    ],
}


def results(tmp_path: Path) -> list[list[dict[str, Any]]]:
    """What each task gives, in the quick way and in Ansible's own."""
    plays = [{**PLAY, "vars": {**PLAY["vars"], "forge_quick_calls": quick}} for quick in (True, False)]
    (tmp_path / "play.json").write_text(json.dumps(plays))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local", "play.json",
         "-e", json.dumps({"ansible_python_interpreter": sys.executable})],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [[task["hosts"]["localhost"] for task in play["tasks"]] for play in json.loads(done.stdout)["plays"]]


def test_both_ways_give_the_same(tmp_path: Path) -> None:
    lock = tmp_path / "srv" / "shop" / "lock.json"
    lock.parent.mkdir(parents=True)
    lock.write_text('{"expires": "soon"}')
    quick, slow = results(tmp_path)
    assert len(quick) == len(PLAY["tasks"])
    for one, other in zip(quick, slow, strict=True):
        # What Ansible says of a module that has failed beside its sentence.
        for result in (one, other):
            for key in ("rc", "exception", "module_stdout", "module_stderr"):
                result.pop(key, None)
        assert one == other
    assert "host" in quick[0]
    assert "this collection supports plan9 4" in quick[2]["msg"]
    assert str(lock) in str(quick[7]["warnings"])
