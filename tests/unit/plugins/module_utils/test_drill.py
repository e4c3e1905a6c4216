# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill writes down, whom it leaves alone, and when the watch tells somebody."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import backup, backup_watch, drill
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.backup import BackupError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.restore import ALONE, SCRATCH, Cluster

NOW = 1_795_000_000.0
SETTINGS: dict[str, Any] = {
    "cluster": "15/main", "port": 5432, "limits": {"base_hours": 192}, "on_failure": "mail root", "heartbeat": "",
}  # fmt: skip


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (backup, drill, backup_watch):
        monkeypatch.setattr(module, "STATE", str(tmp_path))
    return tmp_path


def test_the_last_good_drill_is_kept_when_one_fails(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "drill", lambda *_args: {"bytes": 7})
    assert drill.record("15/main", 5432) == ""
    good = json.loads((state / "drill-15-main.json").read_text())["good"]
    assert good["bytes"] == 7

    def fails(*_args: object) -> dict[str, Any]:
        written = json.loads((state / "drill-15-main.json").read_text())
        assert written["last"]["problem"] == drill.STOPPED, "that is what one says that is killed"
        raise BackupError("It is torn.")

    monkeypatch.setattr(drill, "drill", fails)
    assert drill.record("15/main", 5432) == "It is torn."
    said = json.loads((state / "drill-15-main.json").read_text())
    assert said["good"] == good
    assert said["last"]["problem"] == "It is torn."
    monkeypatch.setattr(drill, "drill", lambda *_args: {}["x"])
    assert drill.record("15/main", 5432) == "KeyError: 'x'."

    def hangs(*_args: object) -> dict[str, Any]:
        raise subprocess.TimeoutExpired("psql", 5)

    monkeypatch.setattr(drill, "drill", hangs)
    assert "timed out after 5 seconds" in drill.record("15/main", 5432)


@pytest.mark.parametrize(
    ("text", "is_claimed", "ours"), [(SCRATCH, False, True), ("", True, True), (ALONE, False, False)]
)
def test_a_cluster_of_somebody_else_is_not_removed(
    state: Path, monkeypatch: pytest.MonkeyPatch, text: str, is_claimed: bool, ours: bool
) -> None:
    removed: list[str] = []
    monkeypatch.setattr(Cluster, "configuration", property(lambda _self: str(state / "etc")))
    monkeypatch.setattr(drill, "remove", lambda target: removed.append(str(target)))
    drill.clear(Cluster("15", "drill"))
    assert removed == [], "there is none"
    (state / "etc" / "conf.d").mkdir(parents=True)
    (state / "etc" / "conf.d" / "zz-thecodeforge-restored.conf").write_text(f"{text}port = 5433\n")
    if is_claimed:
        (state / "scratch-15-drill.json").touch()
    if ours:
        drill.clear(Cluster("15", "drill"))
        assert removed == ["15/drill"]
        return
    with pytest.raises(BackupError, match="There is a cluster 15/drill that is somebody's: rename it"):
        drill.clear(Cluster("15", "drill"))
    assert removed == []


def test_a_check_of_the_users_has_the_copy_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(argv: list[str], **_options: Any) -> Any:
        ran.append(argv)
        return type(
            "Done", (), {"returncode": 3, "stdout": "", "stderr": "first\nERROR: division by zero.\nLINE 1\n  ^\n"}
        )()

    monkeypatch.setattr(drill, "run", run)
    drill.check(5433, "shop", "")
    assert ran == []
    with pytest.raises(BackupError, match="failed with exit code 3 on what was restored: ERROR: division by zero.$"):
        drill.check(5433, "shop", "psql -Atc 'SELECT 1'")
    assert ran[0][3:] == [
        "--", "/usr/bin/env", "--", "PGHOST=/var/run/postgresql", "PGPORT=5433", "PGDATABASE=shop", "psql", "-Atc", "SELECT 1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "told", "expected"),
    [
        ([], {}, False),
        (["It is 3 hours old."], {}, True),
        (["It is 4 hours old."], {"problems": ["It is 3 hours old."], "at": NOW - 60}, False),
        (["It is 27 hours old."], {"problems": ["It is 3 hours old."], "at": NOW - 86400}, True),
        (["It is gone."], {"problems": ["It is 3 hours old."], "at": NOW - 60}, True),
        ([], {"problems": ["It is 3 hours old."], "at": NOW - 60}, True),
        ([], {"problems": [], "at": NOW - 90000}, False),
        (["It is 3 hours old."], {"problems": ["It is 3 hours old."], "at": NOW, "problem": "It was away."}, True),
        ([], {"problems": [], "at": NOW, "problem": "It was away."}, False),
    ],
)
def test_somebody_is_told_of_what_changes_and_once_a_day(
    found: list[str], told: dict[str, Any], expected: bool
) -> None:
    assert backup_watch.is_to_be_told(found, told, NOW) is expected


def test_the_watch_tells_and_says_when_it_cannot(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    wrong = ["It is 3 hours old."]
    monkeypatch.setattr(backup_watch, "state_of", lambda *_args: {})
    monkeypatch.setattr(backup_watch, "problems", lambda *_args: wrong)

    def tell(whom: str, text: str, *_args: object) -> str:
        told.append(f"{whom}: {text.partition(': ')[2] or text}")
        return "It was away." if len(told) == 1 else ""

    settings = {**SETTINGS, "heartbeat": "https://example.org/x"}
    assert backup_watch.watch(settings, NOW, tell) == ["It is 3 hours old.", "It was away."]
    assert json.loads((state / "watch-15-main.json").read_text())["problem"] == "It was away."
    assert backup_watch.watch(settings, NOW + 900, tell) == ["It is 3 hours old."], "it is tried again"
    assert backup_watch.watch(settings, NOW + 1800, tell) == ["It is 3 hours old."]
    assert told == ["mail root: It is 3 hours old."] * 2, "and no heart beats"
    wrong.clear()
    assert backup_watch.watch(settings, NOW + 2700, tell) == []
    assert told[2] == "mail root: Nothing is wrong any more."
    assert told[3].startswith("https://example.org/x: Backups of 15/main on ")
