# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a directory of backups holds, which of them reaches a moment, and when they are too old."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.filter.backup_report import backup_report
from ansible_collections.thecodeforge.fastapi.plugins.filter.restore_report import restore_report
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.backup import (
    Backup,
    BackupError,
    Limits,
    backups_in,
    base_for,
    moment_of,
    newest_wal,
    problems,
)
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.restore import Cluster, compared, quoted

NOW = 1_795_000_000.0
GOOD: dict[str, Any] = {
    "base_age": 3600.0,
    "wal_age": 0.0,
    "slot": {"status": "reserved", "active": True},
    "offsite": True,
    "offsite_age": 600.0,
    "failed": [],
    "told": "",
    "drill": {"last": {}, "good": {}, "age": 3600.0, "scheduled": 9e9, "running": False},
}
FAILED = {"began": NOW, "problem": "It is torn."}


def backup(kind: str, end: float) -> Backup:
    return Backup(f"/b/{end}.{kind}", kind, end, 1.0, 100)


def test_only_what_is_complete_is_a_backup(tmp_path: Path) -> None:
    for name, status in {
        "2026-01-01T000000Z.backup": {"type": "basebackup", "end": "Thu Jan  1 00:00:10 2026", "duration": 10},
        "2026-01-02T000000Z.dump": {"type": "dump", "end": "2026-01-02T000000Z", "duration": 1},  # of Debian 13
        "2026-01-03T000000Z.backup": None,
        "2026-01-04T000000Z.backup": "torn",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "base.tar.gz").write_bytes(b"12345")
        if status is not None:
            (tmp_path / name / "status").write_text(json.dumps(status) if isinstance(status, dict) else status)
    (tmp_path / "wal").mkdir()
    found = backups_in(str(tmp_path))
    assert [(each.kind, each.end, each.seconds) for each in found] == [
        ("basebackup", 1767225610.0, 10.0),
        ("dump", 1767312000.0, 1.0),
    ]
    assert found[0].bytes > 5
    assert backups_in(str(tmp_path / "none")) == []


def test_the_newest_wal_is_also_what_is_not_full(tmp_path: Path) -> None:
    assert newest_wal(str(tmp_path)) == 0.0
    (tmp_path / "wal").mkdir()
    for number, name in enumerate(["0" * 24 + ".gz", "0" * 23 + "1.partial", "other"]):
        (tmp_path / "wal" / name).touch()
        os.utime(tmp_path / "wal" / name, (100 + number, 100 + number))
    assert newest_wal(str(tmp_path)) == 101.0


def test_a_moment_is_reached_from_the_newest_base_backup_before_it() -> None:
    have = [backup("basebackup", 10), backup("dump", 15), backup("basebackup", 20), backup("basebackup", 30)]
    assert base_for(have, 29).end == 20
    assert base_for(have, 30).end == 30
    with pytest.raises(
        BackupError, match="as old as 1970-01-01 00:00:09 UTC: the oldest one is of 1970-01-01 00:00:10 UTC"
    ):
        base_for(have, 9)
    with pytest.raises(BackupError, match="there is none at all"):
        base_for([backup("dump", 1)], 9)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-18T12:26:40+00:00", 1795004800.0),
        ("2026-11-18T12:26:40Z", 1795004800.0),
        ("2026-11-18 13:26:40+01:00", 1795004800.0),
        (" 2026-11-18 12:26:40.5+00:00 ", 1795004800.5),
    ],
)
def test_a_moment_is_read_with_its_zone(text: str, moment: float) -> None:
    assert moment_of(text, NOW + 10_000) == moment


def test_a_moment_without_a_zone_is_in_that_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert moment_of("2026-11-18 13:26:40", NOW + 10_000) == 1795004800.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "yesterday", "14:03", "2026-13-01", "now; DROP TABLE x"])
def test_what_is_no_moment_is_said(text: str) -> None:
    with pytest.raises(BackupError, match="is no moment: give it as 2026-11-26 14:03"):
        moment_of(text, NOW)


def test_the_future_has_not_come() -> None:
    with pytest.raises(BackupError, match="has not come yet"):
        moment_of("2099-01-01", NOW)


@pytest.mark.parametrize(
    ("changed", "sentences"),
    [
        ({}, []),
        ({"base_age": None}, ["There is no base backup."]),
        ({"base_age": 200 * 3600.0}, ["The newest base backup is 200 hours old, and may be 192"]),
        ({"wal_age": None}, ["No WAL was ever received."]),
        ({"wal_age": 1200.0}, ["WAL was not received for 20 minutes, and may be 15"]),
        ({"slot": {"status": "lost"}, "wal_age": 9999.0}, ["The server has removed WAL that was not received yet"]),
        ({"offsite_age": None}, ["Nothing was ever copied"]),
        ({"offsite_age": 7200.0}, ["The newest copy in another place is 120 minutes old, and may be 60"]),
        ({"offsite": False, "offsite_age": None}, []),
        ({"failed": ["pg_dump@15-main.service"]}, ["pg_dump@15-main.service has failed: see journalctl"]),
        ({"told": "It is away."}, ["Nobody could be told: It is away."]),
        ({"drill": {**GOOD["drill"], "age": 2e5}}, ["The last good drill was 56 hours ago, and may be 36"]),
        ({"drill": {**GOOD["drill"], "age": None}}, ["No drill has ever ended well"]),
        ({"drill": {**GOOD["drill"], "age": None, "scheduled": 60.0}}, []),
        ({"drill": {**GOOD["drill"], "age": None, "scheduled": None}}, []),
        (
            {"drill": {**GOOD["drill"], "last": FAILED}},
            ["The drill of 2026-11-18 11:06:40 UTC has failed: It is torn."],
        ),
        ({"drill": {**GOOD["drill"], "last": FAILED, "running": True}}, []),
        ({"base_age": None, "wal_age": None}, ["There is no base backup.", "No WAL was ever received."]),
    ],
)
def test_what_is_too_old_is_said(changed: dict[str, Any], sentences: list[str]) -> None:
    found = problems({**GOOD, **changed}, Limits())
    assert len(found) == len(sentences)
    assert all(said.startswith(sentence) for said, sentence in zip(found, sentences, strict=True))


def test_what_differs_is_a_row_and_the_rest_is_counted() -> None:
    before = {
        "a: public.x": {"rows": 3, "newest": "2026"},
        "a: public.y": {"rows": 1, "newest": None},
        "a: public.z": {"rows": 0, "newest": None},
    }
    after = {
        "a: public.x": {"rows": 2, "newest": "2025"},
        "a: public.y": {"rows": 1, "newest": None},
        "a: public.w": {"rows": 5, "newest": None},
    }
    tables = compared(before, after)
    result = {"reached": "2025-01-01", "port": 5433, "bytes": 3 << 20, "seconds": 4.5, "tables": tables}
    lines = restore_report(result, serves="15/main", restored="restored")
    assert (
        lines[0] == "Restored as 15/restored on port 5433, 3 MiB in 4.5 s, up to 2025-01-01. 15/main serves as before."
    )
    assert [line.split()[1] for line in lines[2:-1]] == ["public.w", "public.x", "public.z"]
    assert lines[-1] == "1 tables are the same."
    assert (
        "nothing was committed after it" in restore_report({**result, "reached": ""}, serves="15/main", restored="r")[0]
    )


def test_data_without_a_configuration_is_somebodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore that fails removes what it has made: so it never begins where something is."""
    monkeypatch.setattr("os.path.isdir", lambda path: path == "/var/lib/postgresql/15/restored")
    assert Cluster("15", "restored").exists()
    assert not Cluster("15", "restored2").exists()


def test_a_name_of_a_table_is_quoted() -> None:
    assert quoted('a"b; drop') == '"a""b; drop"'


def test_backups_are_rows_and_problems_sentences() -> None:
    state = {
        **GOOD,
        "drill": {
            "age": 3600.0,
            "good": {
                "bytes": 3 << 20,
                "seconds": 4.5,
                "tables": {"a: public.x": {"rows": 3}, "a: public.y": {"rows": 4}},
            },
        },
        "backups": [{"path": "/b/1.backup", "kind": "basebackup", "end": "2026", "seconds": 2.0, "bytes": 3 << 20}],
    }
    never = {**state, "wal_age": None, "offsite": False, "drill": {"good": {}}}
    assert backup_report(never, [], host="db", cluster="15/main")[2:] == ["WAL was never received."]
    lines = backup_report(state, ["It is bad."], host="db", cluster="15/main")
    assert lines[1].split() == ["db", "15/main", "1.backup", "basebackup", "2026", "2", "3.0"]
    assert lines[2:] == [
        "WAL is received up to now. The newest copy in another place is of 10 minutes ago. The last good drill was 60 minutes ago: "
        "3 MiB in 4.5 s, 2 tables with 7 rows.",
        "It is bad.",
    ]
