# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of an operator runs as what serves would: its sandbox, settings and user, while what serves serves."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator

import pytest
from conftest import REPOSITORY, SET, Fleet
from tiny import PLAIN, load, write_project

SECRET = "hunter22-hunter22"
WHO = (
    "python -c \"import os, sys, getpass; print(getpass.getuser(), os.environ['FORGE_COLOUR'], os.getcwd()); "
    "print(os.environ['FORGE_SECRET_KEY'], file=sys.stderr); open('/etc/x', 'w')\""
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    source = write_project(tmp_path_factory.mktemp("command") / "shop", "gunicorn", "uvicorn-worker")
    variables = {
        **PLAIN,
        "forge_app": "shop",
        "forge_project": "command",
        "forge_listen": ["8000"],
        "forge_workers": 1,
        "forge_watch_seconds": 1,
        "forge_source": str(source),
        "forge_environment": {"COLOUR": "blue", "SECRET_KEY": SECRET},
    }
    fleet = Fleet(variables, lab_set=f"{SET}command", without_database=True)
    with fleet.with_nodes("one=debian12:forge_app", "two=debian13:forge_app"):
        fleet.play("site")
        yield fleet


def ledger(fleet: Fleet, node: str) -> dict[str, object]:
    event: dict[str, object] = json.loads(fleet.on(node, "tail -n1 /srv/shop/ledger.jsonl"))
    return event


def test_it_has_the_user_the_settings_and_the_sandbox_and_fails_as_it_does(shop: Fleet) -> None:
    with load(shop.url("one", "/healthz"), keepalive=2) as result:
        run = shop.play("run", check=False, command=WHO)
    assert run.rc != 0
    assert re.search(r"one: shop blue /srv/shop/releases/\w+", run.output)
    assert "one: ********" in run.output
    assert SECRET not in run.output
    assert "OSError: [Errno 30] Read-only file system: '/etc/x'" in run.output
    assert "it ended with exit code 1." in run.said()
    assert "two: " not in run.output, "on one host"
    assert result["lost"] == {}
    found = ledger(shop, "one")
    assert str(found["action"]).startswith("run python -c ")
    assert (found["result"], found["reason"]) == ("failed", "exit code 1")
    assert str(found["by"]).count("@") == 1
    assert (
        shop.on(
            "one", "ls /srv/shop/locks | grep command; systemctl list-units --all --no-legend 'shop-command*'; true"
        )
        == ""
    )


def test_everywhere_and_on_the_host_that_the_limit_names(shop: Fleet) -> None:
    run = shop.play("run", command="echo here", everywhere=True)
    assert "one: here" in run.output
    assert "two: here" in run.output
    assert ledger(shop, "two")["action"] == "run echo here"
    assert "two: here" in shop.play("run", command="echo here", limit="two").output


def test_what_it_prints_is_shown_as_it_comes(shop: Fleet) -> None:
    command = "python -uc \"import time; print('first'); time.sleep(6); print('last')\""
    arguments = {**shop.variables, "command": command}
    process = subprocess.Popen(
        ["ansible-playbook", "-i", "inventories/lab", "playbooks/run.yml", "-e", json.dumps(arguments)],
        cwd=REPOSITORY, env={**os.environ, "FORGE_LAB_SET": shop.lab_set, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    for line in process.stdout:
        if line.strip() == "one: first":
            break
    assert shop.on("one", "systemctl list-units --no-legend 'shop-command*' | wc -l") == "1", "it still runs"
    rest = process.stdout.read()
    assert "one: last" in rest
    assert process.wait() == 0


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"command": "sleep 60", "forge_run_seconds": 2}, "'sleep 60': it took too long and was ended."),
        ({"command": "nosuch"}, "it ended with exit code 127."),
        ({"command": "echo 'x"}, "no closing quotation. Nothing was run."),
        ({"command": "true", "process": "x"}, "Say one of -e process=NAME"),
        ({}, "Say one of -e process=NAME"),
    ],
)
def test_bad_input_is_a_sentence(shop: Fleet, variables: dict[str, object], sentence: str) -> None:
    run = shop.play("run", check=False, **variables)
    assert run.rc != 0
    assert sentence in run.said()
    assert "Traceback" not in run.output
