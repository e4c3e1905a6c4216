# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of PostgreSQL is not upgraded, and that the old one serves where an upgrade fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import restore, upgrade
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.backup import BackupError, first_error
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.restore import Cluster
from ansible_collections.thecodeforge.fastapi.plugins.modules import cluster_upgrade as module

LIVE = Cluster("15", "main")
OURS = {"forge": "Managed by thecodeforge.fastapi for app forge"}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A host with 15/main, and PostgreSQL 17 installed."""
    state: dict[str, Any] = {
        "databases": OURS,
        "made": "0",
        "installed": {"15", "17"},
        "clusters": {"15/main"},
        "ran": [],
    }

    def query(_port: int, text: str, *_rest: object, **_options: object) -> str:
        return (
            json.dumps(state["databases"]) if text == upgrade.OWNERS else state["made"] if text == upgrade.MADE else "1"
        )

    class Done:
        returncode = 0
        stdout = stderr = ""

    def run(argv: list[str], **_options: object) -> Any:
        state["ran"].append(argv[0] if argv[0] != "systemctl" else " ".join(argv))
        done = Done()
        done.returncode = int(argv[0] == "pg_upgradecluster" and state.get("fails", False))
        done.stderr = "Creating new\nError: no such extension\nmore"
        return done

    monkeypatch.setattr(upgrade, "query", query)
    monkeypatch.setattr(upgrade, "run", run)
    monkeypatch.setattr(restore, "run", run)
    monkeypatch.setattr(upgrade.os.path, "exists", lambda path: str(path).split("/")[4] in state["installed"])
    monkeypatch.setattr(Cluster, "exists", lambda self: str(self) in state["clusters"])
    monkeypatch.setattr(upgrade, "query_port", lambda _cluster: "5433")
    for name in ("configure_as", "write", "read"):
        monkeypatch.setattr(upgrade, name, lambda *_args: "auto\n")
    monkeypatch.setattr(upgrade, "remove", lambda cluster: state["ran"].append(f"remove {cluster}"))
    monkeypatch.setattr(Cluster, "write_own", lambda _self, _text: None)
    return state


def test_one_of_ours_may_be_upgraded(host: dict[str, Any]) -> None:
    upgrade.check(LIVE, 5432, "17", "forge", shared=False)
    host["clusters"].add("17/main")  # that Debian has made, and nobody uses
    upgrade.check(LIVE, 5432, "17", "forge", shared=False)


@pytest.mark.parametrize(
    ("changed", "version", "sentence"),
    [
        ({}, "15", "15/main has version 15 already, and 15 is not newer"),
        ({}, "9", "and 9 is not newer"),
        ({}, "18", "PostgreSQL 18 is not installed"),
        ({"databases": {**OURS, "shop": ""}}, "17", r"15/main has other databases, too \(shop\)"),
        ({"databases": {"forge": "Managed by thecodeforge.fastapi for app shop"}}, "17", r"too \(forge\)"),
        (
            {"clusters": {"15/main", "17/main"}, "made": "1"},
            "17",
            "There is a cluster 17/main already, which is somebody's",
        ),
    ],
)
def test_what_is_in_the_way_is_said(host: dict[str, Any], changed: dict[str, Any], version: str, sentence: str) -> None:
    host.update(changed)
    with pytest.raises(BackupError, match=sentence):
        upgrade.check(LIVE, 5432, version, "forge", shared=False)


def test_databases_of_others_are_upgraded_when_told(host: dict[str, Any]) -> None:
    host["databases"] = {"shop": ""}
    upgrade.check(LIVE, 5432, "17", "forge", shared=True)


def test_a_cluster_that_does_not_run_is_not_taken_for_an_empty_one(
    host: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upgrade.is_empty(Cluster("17", "main"))
    monkeypatch.setattr(upgrade, "run", lambda _argv: type("Done", (), {"returncode": 3})())
    assert not upgrade.is_empty(Cluster("17", "main"))


def test_the_old_one_serves_again_when_an_upgrade_fails(host: dict[str, Any]) -> None:
    host["fails"] = True
    with pytest.raises(BackupError, match=r"15/main cannot be upgraded to PostgreSQL 17: Error: no such extension\.$"):
        upgrade.upgrade(LIVE, 5432, "17", "dump")
    assert host["ran"][-3:] == [
        "pg_conftool",
        "systemctl daemon-reload",
        "systemctl restart postgresql@15-main.service",
    ]


def test_a_cluster_that_is_not_ours_is_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "exists", lambda _self: True)
    monkeypatch.setattr(module, "is_restored", lambda _cluster: False)
    params = {"state": "removed", "old": "13/main", "port": 5432}
    with pytest.raises(BackupError, match="The cluster 13/main serves, or was not upgraded here: it is not removed"):
        module.take_step(params, LIVE, "17", check_mode=False)
    with pytest.raises(BackupError, match="The cluster 15/main serves"):
        module.take_step({**params, "old": "15/main"}, LIVE, "17", check_mode=False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\nERROR:  division by zero.\nLINE 1:\n  ^\n", "ERROR:  division by zero"),
        (
            "gzip: stdin: invalid compressed data--format violated\ntar: Exiting",
            "gzip: stdin: invalid compressed data--format violated",
        ),
        ("pg_dump: terrific\nlast", "last"),
        ("", "it does not say why"),
    ],
)
def test_the_first_error_is_the_cause(text: str, found: str) -> None:
    assert first_error(text) == found
