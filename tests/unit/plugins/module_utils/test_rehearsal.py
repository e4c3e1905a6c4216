# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rehearsal names the copy wherever the settings name the database, and nothing that could reach the real one."""

from __future__ import annotations

import io
import json
import select
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.filter.rehearsal_report import rehearsal_report
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import database_session
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import StageError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.rehearsal import Copy, Rehearsal
from fake_host import OLD, Host
from hypothesis import given
from hypothesis import strategies as st

COPY = Copy("shop", 5432, 5433, "new/word")


@pytest.mark.parametrize(
    ("text", "pointed"),
    [
        ("postgresql://shop:old@db/shop", "postgresql://shop:new%2Fword@db:5433/shop"),
        ("postgresql://shop:old@db:5432/shop?sslmode=require", "postgresql://shop:new%2Fword@db:5433/shop?sslmode=require"),
        ("postgres://shop:o%2Fd@[2001:db8::1]:5432/shop", "postgres://shop:new%2Fword@[2001:db8::1]:5433/shop"),
        ("postgresql+asyncpg://shop:old@127.0.0.1/x", "postgresql+asyncpg://shop:new%2Fword@127.0.0.1:5433/x"),
        ('{"url": "postgresql://shop:old@db/shop"}', '{"url": "postgresql://shop:new%2Fword@db:5433/shop"}'),
        ("a: postgresql://shop:old@db/a\nb: 'postgresql://shop:old@db/b'", "a: postgresql://shop:new%2Fword@db:5433/a\nb: 'postgresql://shop:new%2Fword@db:5433/b'"),
        ("postgresql://other:old@db/shop", None),
        ("postgresql://shop:old@db:6432/shop", None),  # a pool
        ("postgresql://shop:old@db:5432,db2:5432/shop", None),  # either of them may answer
        ("mysql://shop:old@db:5432/shop", None),
        ("shop:old@db", None),
    ],
)  # fmt: skip
def test_urls_of_the_database_name_the_copy(text: str, pointed: str | None) -> None:
    found, passwords, hosts = COPY.point(text)
    assert found == (text if pointed is None else pointed)
    assert bool(passwords) == bool(hosts) == (pointed is not None)


def test_without_a_password_of_its_own_the_copy_has_the_real_one() -> None:
    assert (
        Copy("shop", 5432, 5433, "").point("postgresql://shop:old@db/shop")[0] == "postgresql://shop:old@db:5433/shop"
    )


@given(st.text(min_size=1), st.text(min_size=1), st.text(alphabet="abcxyz-.09", min_size=1))
def test_whatever_the_password_is_it_is_found_and_replaced(old: str, new: str, host: str) -> None:
    url = f"postgresql://shop:{quote(old, safe='')}@{host}:5432/shop"
    found, passwords, hosts = Copy("shop", 5432, 5433, new).point(url)
    assert [unquote(each) for each in passwords] == [old]
    assert hosts == {host}
    assert unquote(str(urlsplit(found).password)) == new
    assert urlsplit(found).port == 5433


def test_the_longest_time_in_a_row_of_each_lock_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [[], [["a", "X"]], [["a", "X"], ["b", "Y"]], [["b", "Y"]], [["a", "X"]], []]
    times = iter(range(0, 60, 10))
    ends = iter([False] * (len(looks) - 1) + [True])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(select, "select", lambda *_args: ([1], [], []) if next(ends) else ([], [], []))
    monkeypatch.setattr(database_session.time, "monotonic", lambda: next(times))
    asked = iter(looks)
    found = database_session.watch_locks(lambda _statement: json.dumps(next(asked)))
    assert found["locks"] == [
        {"table": "a", "mode": "X", "seconds": 10.05},
        {"table": "b", "mode": "Y", "seconds": 10.05},
    ]


def test_a_sentence_names_the_generation_and_nothing_else_of_it_changes() -> None:
    rehearsal = Rehearsal.__new__(Rehearsal)
    rehearsal.new, rehearsal.old = "0123456789ab-01234567", ""
    text = "Candidate 0123456789ab-01234567-r: psycopg-rows is not-ready, see --reload."
    assert rehearsal.named(text) == "Candidate 0123456789ab-01234567: psycopg-rows is not-ready, see --reload."


RESULT: dict[str, Any] = {
    "copy": {"bytes": 37 << 20, "seconds": 6.1},
    "seconds": 5.2,
    "locks": [{"table": "public.parts", "mode": "AccessExclusiveLock", "seconds": 5.1}],
    "locks_problem": "",
    "way_back": {"release": "0123456789ab", "state": "works", "reason": ""},
}


def test_a_rehearsal_is_a_few_lines() -> None:
    assert rehearsal_report(RESULT) == [
        "Rehearsed on a copy of 37 MiB, made in 6.1 s: the migrations took 5.2 s.",
        "lock on       mode                 seconds  what waits meanwhile",
        "public.parts  AccessExclusiveLock  5.1      reads and writes",
        "Going back to 0123456789ab after these migrations works.",
    ]
    barred = {
        **RESULT,
        "locks": [],
        "way_back": {**RESULT["way_back"], "state": "does not work", "reason": "It is gone."},
    }
    assert rehearsal_report(barred)[1:] == [
        "They held no lock that the app would wait for.",
        "Going back to 0123456789ab after these migrations does not work: It is gone.",
    ]
    assert rehearsal_report({**RESULT, "way_back": {}}) == rehearsal_report(RESULT)[:-1]
    blind = {**RESULT, "locks": [], "locks_problem": "the app has no driver"}
    assert rehearsal_report(blind)[1] == "Nobody could look at the locks: the app has no driver."


@pytest.mark.parametrize(
    ("passwords", "settings", "code", "sentence"),
    [
        ({"hunter22"}, ["DATABASE_URL\0postgresql://x"], "x = 1", ""),
        ({""}, [], "", "The URL of the database has no password"),
        ({"hunter22"}, ["OTHER\0hunter22"], "", "^OTHER has the password of the database beside its URL"),
        ({"hunter%2F22"}, ["files/a.ini\0p=hunter/22"], "", "^files/a.ini has the password"),
        ({"hunter22"}, [], "P = 'hunter22'", "^shop.py of the release has the password of the database"),
    ],
)
def test_nothing_is_rehearsed_that_could_reach_the_real_database(
    host: Host, passwords: set[str], settings: list[str], code: str, sentence: str
) -> None:
    release = Path(host.layout.release(host.layout.read_record(OLD).release))
    release.mkdir(parents=True, exist_ok=True)
    (release / "shop.py").write_text(code)
    rehearsal = Rehearsal.__new__(Rehearsal)
    rehearsal.layout = host.layout
    if not sentence:
        rehearsal.check_passwords(OLD, passwords, settings)
        return
    with pytest.raises(StageError, match=sentence) as caught:
        rehearsal.check_passwords(OLD, passwords, settings)
    assert "hunter" not in str(caught.value)


def test_what_commands_of_the_release_have_made_could_reach_it_too(host: Host) -> None:
    made = Path(host.layout.made(OLD)) / "static"
    made.mkdir(parents=True)
    (made / "settings.json").write_text("hunter22")
    rehearsal = Rehearsal.__new__(Rehearsal)
    rehearsal.layout = host.layout
    with pytest.raises(StageError, match="^static/settings.json of the release has the password of the database"):
        rehearsal.check_passwords(OLD, {"hunter22"}, [])
