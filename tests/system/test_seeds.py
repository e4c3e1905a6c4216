# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the first release of a fleet: once, on one host, and again only when they failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import SET, Fleet
from tiny import write_project

NODES = ("one", "two")
COMMON: dict[str, Any] = {
    "forge_target": "shop.main:app",
    "forge_migrations": ["python -m shop.note migrate"],
    "forge_migrations_paths": [],
    "forge_schema_version": "",
    "forge_server": "uvicorn",
    "forge_environment": {"API_KEY": "hunter22-hunter22"},
    "forge_state_directories": ["forge"],
    "forge_watch_seconds": 0,
}
NOTE = """
import os
import sys

with open("/var/lib/forge/notes", "a") as notes:
    notes.write(sys.argv[1] + "\\n")
if os.path.exists("/var/lib/forge/broken"):
    sys.exit(f"no users in {os.environ['FORGE_API_KEY']}")
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[Fleet]:
    """Two virgin nodes without a database."""
    fleet = Fleet(lab_set=f"{SET}seeds", without_database=True)
    with fleet.with_nodes(*(f"{node}=debian12:forge_app" for node in NODES)):
        yield fleet


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    source = write_project(tmp_path_factory.mktemp("seeds") / "shop", "uvicorn", note=NOTE)
    return {
        **COMMON,
        "forge_source": str(source),
        "forge_seeds": ["python -m shop.note seed", "python -m shop.note more"],
    }


def notes(fleet: Fleet) -> list[list[str]]:
    return [fleet.on(node, "cat /var/lib/forge/notes 2>/dev/null || true").split() for node in NODES]


def test_a_seed_that_fails_is_a_sentence_and_nothing_serves(pair: Fleet, settings: dict[str, Any]) -> None:
    run = pair.play("site", check=False, **{**settings, "forge_seeds": ["python -m shop.nothing"]})
    assert run.rc != 0
    assert "'python -m shop.nothing' failed with exit code 1: " in run.said()
    assert "No module named shop.nothing" in run.said()
    assert notes(pair) == [["migrate"], []]
    for node in NODES:
        assert pair.on(node, "readlink /srv/forge/current || true") == ""

    pair.on("one", "touch /var/lib/forge/broken")
    run = pair.play("deploy", check=False, **{**settings, "forge_migrations": []})
    assert run.rc != 0
    assert "'python -m shop.note seed' failed with exit code 1: no users in" in run.said()
    assert "no users in ********" in run.said()
    assert "hunter22-hunter22" not in run.output
    assert notes(pair) == [["migrate", "seed"], []]
    pair.on("one", "rm /var/lib/forge/broken /var/lib/forge/notes")


def test_seeds_follow_the_migrations_of_the_first_release_on_one_host(pair: Fleet, settings: dict[str, Any]) -> None:
    pair.play("deploy", **settings)
    assert notes(pair) == [["migrate", "seed", "more"], []]
    for node in NODES:
        assert pair.on(node, "curl -fsS --max-time 5 http://127.0.0.1:8000/healthz")


@pytest.mark.thorough
def test_seeds_do_not_run_again(pair: Fleet, settings: dict[str, Any]) -> None:
    pair.play("site", **settings)
    assert [pair.play("deploy", **settings).changed(node) for node in NODES] == [0, 0]
    assert notes(pair) == [["migrate", "seed", "more"], []]
    changed = {**settings, "forge_environment": {"COLOUR": "green"}}
    run = pair.play("deploy", **changed)
    assert "shop.note seed" not in run.output
    assert notes(pair) == [["migrate", "seed", "more", "migrate"], []]
    # A host that comes later joins a fleet that has its data.
    pair.on("two", "systemctl stop forge; rm -r /srv/forge/current")
    pair.play("deploy", **changed)
    assert notes(pair)[0].count("seed") + notes(pair)[1].count("seed") == 1
