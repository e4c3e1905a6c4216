# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: one clear sentence, no secret, and hosts that were not touched. Runs on virgin nodes."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import HOSTS, REPOSITORY, Fleet

SECRET = "hunter2-hunter2-hunter2"


@pytest.fixture(scope="module")
def before(nodes: Fleet) -> dict[str, str]:
    return {host: nodes.fingerprint(host) for host in (*HOSTS, "db")}


CASES = {
    "unknown variable": (
        {"forge_worker": 3},
        "forge_worker is not a variable of this collection (did you mean forge_workers?)",
    ),
    "wrong type": ({"forge_workers": "many"}, "forge_workers must be of type int"),
    "missing secret": (
        {"forge_environment": {"DATABASE_URL": f"postgresql://forge:{SECRET}@db/forge"}},
        "FORGE_SECRET_KEY is missing",
    ),
    "short secret": (
        {"forge_environment": {"DATABASE_URL": "postgresql://forge@db/forge", "SECRET_KEY": SECRET}},
        "FORGE_SECRET_KEY is wrong",
    ),
    "undefined secret": (
        {"forge_environment": {"SECRET_KEY": "{{ vault_of_nobody }}", "DATABASE_URL": "postgresql://x@db/forge"}},
        "forge_environment.SECRET_KEY cannot be worked out: 'vault_of_nobody' is undefined",
    ),
    "DSN without a name": (
        {"forge_environment": {"DATABASE_URL": f"postgresql://forge:{SECRET}@db", "SECRET_KEY": SECRET}},
        "FORGE_DATABASE_URL names no database",
    ),
    "DSN of another kind": (
        {"forge_environment": {"DATABASE_URL": f"mysql://forge:{SECRET}@db/forge", "SECRET_KEY": SECRET * 2}},
        "FORGE_DATABASE_URL is wrong",
    ),
    "no such source": ({"forge_source": "/nowhere/at/all"}, "forge_source: there is no directory /nowhere/at/all"),
    "no such module": ({"forge_target": "thecodeforge.maim:app"}, "has no module thecodeforge.maim"),
    "no such migrations": (
        {"forge_migrations_paths": ["alembic.ini", "migration"]},
        "forge_migrations_paths: the release has no migration: correct the path",
    ),
    "no such Python and package": (
        {"forge_python": "python3.14", "forge_packages": ["libpq5", "libpq55"]},
        "forge_python: app12 has no python3.14, and no package source of it does: give one that Debian 12 has, such as "
        "python3, or add a source. forge_packages: no package source of app12 has libpq55: correct the name",
    ),
    "unsupported system": (
        {"forge_supported_systems": ["debian 12"]},
        "app13 runs Debian 13: this collection supports debian 12 with systemd",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_sentence(nodes: Fleet, before: dict[str, str], name: str) -> None:
    extra, sentence = CASES[name]
    run = nodes.play("site", check=False, **extra)
    assert run.rc != 0
    assert sentence in run.said()
    assert SECRET not in run.output


def test_a_deploy_to_hosts_that_were_not_prepared_says_what_they_lack(nodes: Fleet, before: dict[str, str]) -> None:
    run = nodes.play("deploy", check=False, forge_packages=["libpq5"])
    assert run.rc != 0
    for host in HOSTS:
        lacks = f"{host} lacks the account forge (group forge, no login), the package libpq5"
        assert f"{lacks}: run the playbook site, which prepares hosts. Nothing was released." in run.said()


def test_unreachable_host_stops_before_anything(nodes: Fleet, before: dict[str, str]) -> None:
    nodes.lab("stop", "app13")
    try:
        run = nodes.play("site", check=False)
    finally:
        nodes.lab("start", "app13")
    assert run.rc != 0
    assert re.search(r"app13 \([^)]+\) does not answer: start what is down, or go on without it", run.said())


PARTS = {
    "tags": (("--tags", "x"), "The playbooks have no tags, so with --tags x nothing would be done"),
    "start at the build": (
        ("--start-at-task", "thecodeforge.fastapi.build : Build the app"),
        "The look at the hosts is missing, because the run began in the middle of the playbook",
    ),
    "start at the switch": (
        ("--start-at-task", "thecodeforge.fastapi.rollout : Switch wave by wave"),
        "The release is missing, because the run began in the middle of the playbook",
    ),
    "limit": (("--limit", "db"), "The limit (db) leaves no host of the group forge_app"),
}


@pytest.mark.parametrize("name", PARTS)
def test_part_of_a_run_is_one_sentence(nodes: Fleet, before: dict[str, str], name: str) -> None:
    flags, sentence = PARTS[name]
    run = nodes.play("deploy", check=False, flags=flags, limit="")
    assert run.rc != 0
    assert sentence in run.said()
    assert "HostVars" not in run.output


def test_two_names_of_one_machine_are_both_named(nodes: Fleet, before: dict[str, str], tmp_path: Path) -> None:
    listed = subprocess.run(
        ["ansible-inventory", "-i", str(REPOSITORY / "inventories" / "lab" / "nodes.py"), "--host", "app12"],
        env={**os.environ, "FORGE_LAB_SET": nodes.lab_set}, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    twin = json.loads(listed)
    inventory = tmp_path / "twin.json"
    inventory.write_text(json.dumps({"forge_app": {"hosts": {"twin": twin}}}))
    run = nodes.play("site", check=False, flags=("-i", str(inventory)))
    assert run.rc != 0
    assert "app12 and twin are one machine: keep one of these names in the group forge_app." in run.said()


def test_no_host_was_touched_by_any_of_these(nodes: Fleet, before: dict[str, str]) -> None:
    assert {host: nodes.fingerprint(host) for host in before} == before
