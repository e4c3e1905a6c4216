# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrations that are rehearsed on a copy: what fails, locks or bars the way back is known before production is touched."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import SET, Fleet, Run
from tiny import PLAIN, load, write_project

MAIN = """
import os

import psycopg
from fastapi import FastAPI

app = FastAPI()
QUERY = "{query}"


@app.get("/healthz")
def healthz():
    return {{"release": "{release}"}}


@app.get("/items")
def items():
    with psycopg.connect(os.environ["FORGE_DATABASE_URL"], connect_timeout=5) as connection:
        return [list(row) for row in connection.execute(QUERY)]
"""
MIGRATE = """
import os
import sys

import psycopg

STEPS = {steps!r}

with psycopg.connect(os.environ["FORGE_DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS steps (number int)")
    done = connection.execute("SELECT coalesce(max(number), 0) FROM steps").fetchone()[0]
    if sys.argv[1:] != ["version"]:
        for number, step in enumerate(STEPS[done:], done + 1):
            print("step", number, flush=True)
            connection.execute(step)
            connection.execute("INSERT INTO steps VALUES (%s)", (number,))
        done = max(done, len(STEPS))
    print(done)
"""
FIRST = "CREATE TABLE items (id int PRIMARY KEY, name text, note text); INSERT INTO items VALUES (1, 'nut', 'x')"
LOCKS = "ALTER TABLE items ADD COLUMN price int; SELECT pg_sleep(5)"
FAILS = "ALTER TABLE items ADD COLUMN name text"
DROPS = "ALTER TABLE items DROP COLUMN note"
SETTINGS: dict[str, Any] = {
    **PLAIN,
    "forge_app": "shop",
    "forge_project": "rehearsal",
    "forge_listen": ["8000"],
    "forge_workers": 1,
    "forge_watch_seconds": 1,
    "forge_migrations": ["python -m shop.migrate"],
    "forge_migrations_paths": ["shop/migrate.py"],
    "forge_schema_version": "python -m shop.migrate version",
    "forge_environment": {"DATABASE_URL": "{{ forge_database_url }}"},
    "forge_smoke": [{"path": "/items"}],
    "forge_backup": True,
    "forge_backup_drill_schedule": "",
    "forge_rehearsal": True,
}
BOX = os.environ.get("FORGE_TEST_BOX", "debian12")
KEPT = "SELECT number FROM steps ORDER BY 1 DESC LIMIT 1"


class Shop:
    """An app that reads one column after the other, and its database."""

    def __init__(self, fleet: Fleet, source: Path) -> None:
        self.fleet, self.source = fleet, source

    def change(self, release: str, query: str, *steps: str) -> None:
        files = {"main": MAIN.format(query=query, release=release), "migrate": MIGRATE.format(steps=list(steps))}
        for name, text in files.items():
            (self.source / "shop" / f"{name}.py").write_text(text)

    def release(self, *args: Any, **variables: Any) -> Run:
        return self.fleet.play("deploy", *args, **variables)

    def serves(self) -> str:
        return str(httpx.get(self.fleet.url("app", "/healthz")).json()["release"])

    def version(self) -> str:
        return self.fleet.on("db", f"su postgres -c 'psql -XAtq shop -c \"{KEPT}\"'")

    def traces(self) -> str:
        """What a rehearsal may leave: nothing."""
        return self.fleet.on(
            "app", "ls -d /srv/shop/generations/*-r /run/shop/*-r* /etc/systemd/system/*-r.* 2>/dev/null; true"
        ) + self.fleet.on(
            "db", "pg_lsclusters --no-header | grep -v main; ls /var/lib/postgresql/1? | grep -v main; true"
        )

    def ledger(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.fleet.on("app", "cat /srv/shop/ledger.jsonl").splitlines()]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    source = write_project(
        tmp_path_factory.mktemp("rehearsal") / "shop", "fastapi", "gunicorn", "uvicorn-worker", "psycopg[binary]"
    )
    fleet = Fleet({**SETTINGS, "forge_source": str(source)}, lab_set=f"{SET}rehearsal")
    with fleet.with_nodes(f"app={BOX}:forge_app", f"db={BOX}:forge_database"):
        shop = Shop(fleet, source)
        shop.change("one", "SELECT id, name, note FROM items", FIRST)
        first = fleet.play("site")
        assert "Rehearsed" not in first.output, "a first release has nothing to lose"
        yield shop


def test_a_release_without_migrations_is_not_rehearsed(shop: Shop) -> None:
    shop.change("two", "SELECT id, name, note FROM items ", FIRST)
    assert "Rehearsed" not in shop.release().output
    assert shop.serves() == "two"


def test_a_migration_that_fails_is_refused_before_production_is_touched(shop: Shop) -> None:
    shop.change("bad", "SELECT id, name FROM items", FIRST, FAILS)
    with load(shop.fleet.url("app", "/items"), keepalive=2) as result:
        refused = shop.release(check=False)
    assert refused.rc != 0
    assert "The rehearsal has refused the release: 'python -m shop.migrate' failed with exit code 1" in refused.said()
    assert 'DuplicateColumn: column "name" of relation "items" already exists' in refused.said().replace("\\", "")
    assert "Rehearsal:" in refused.output
    assert shop.version() == "1"
    assert shop.serves() == "two"
    assert shop.traces() == ""
    assert result["lost"] == {}
    assert result["total"] > 100
    assert shop.fleet.on("app", "ls /srv/shop/lock.json 2>/dev/null; true") == ""


def test_a_release_that_does_not_work_with_what_it_migrates_to_is_refused(shop: Shop) -> None:
    shop.change("bad", "SELECT id, colour FROM items", FIRST, "ALTER TABLE items ADD COLUMN color int")
    refused = shop.release(check=False)
    assert re.search(
        r"The rehearsal has refused the release: Candidate \S+ failed a smoke test: GET /items answered 500, not 200",
        refused.said(),
    )
    assert "-r " not in refused.said().partition("The rehearsal has refused")[2].partition("PLAY RECAP")[0]
    assert shop.version() == "1"
    assert shop.traces() == ""


def test_a_lock_of_five_seconds_is_said_and_may_be_refused(shop: Shop) -> None:
    shop.change("three", "SELECT id, name, note FROM items", FIRST, LOCKS)
    refused = shop.release(check=False, forge_rehearsal_lock_seconds=2)
    sentence = r"The migrations would hold AccessExclusiveLock on public\.items for ([\d.]+) s, and may for 2"
    said = re.search(sentence, refused.said())
    assert said, refused.output[-3000:]
    assert 4.8 < float(said[1]) < 7
    assert shop.version() == "1"
    assert shop.serves() == "two"
    run = shop.fleet.play("rehearse")
    shown = re.search(r"public\.items +AccessExclusiveLock +([\d.]+) +reads and writes", run.output)
    assert shown, run.output[-3000:]
    assert 4.8 < float(shown[1]) < 7
    assert "after these migrations works." in run.said()
    assert shop.version() == "1"
    assert shop.serves() == "two"
    assert shop.traces() == ""


def test_going_back_is_a_fact_that_a_rollback_uses(shop: Shop) -> None:
    run = shop.release(forge_backup_before_migrations="dump")
    assert re.search(r"Rehearsed on a copy of \d+ MiB, made in [\d.]+ s: the migrations took 5[\d.]* s\.", run.said())
    assert shop.version() == "2"
    assert shop.serves() == "three"
    assert shop.fleet.on("db", "ls -d /var/backups/postgresql/1?-main/*.dump | wc -l") == "1"
    found = shop.ledger()[-1]["way_back"]
    assert found["state"] == "works"
    back = shop.fleet.play("rollback")  # the schema is another one, and nobody has said that it is compatible
    assert back.rc == 0
    assert shop.serves() == "two"
    assert shop.version() == "2"


def test_a_dropped_column_bars_the_way_back(shop: Shop) -> None:
    shop.change("four", "SELECT id, name FROM items", FIRST, LOCKS.partition(";")[0], DROPS)
    run = shop.release()
    assert re.search(
        r"after these migrations does not work: Candidate \S+ failed a smoke test: GET /items answered 500, not 200",
        run.said(),
    )
    assert shop.serves() == "four"
    refused = shop.fleet.play("rollback", check=False)
    assert refused.rc != 0
    assert re.search(
        r"the rehearsal of the migrations that followed it has shown that \S+ does not work with the database as it is: "
        r"Candidate \S+ failed a smoke test: GET /items answered 500, not 200: "
        r"psycopg\.errors\.UndefinedColumn: column \"note\" does not exist\. To go back all the same, run again with "
        r"-e forge_schema_compatible=true\. Nothing was changed\.",
        refused.said().replace("\\", ""),
    )
    assert shop.serves() == "four"


def test_a_smoke_test_that_the_old_one_never_passed_says_nothing(shop: Shop) -> None:
    shop.change("five", "SELECT id FROM items", FIRST, LOCKS.partition(";")[0], DROPS, "SELECT 1")
    shop.fleet.on("app", "mount --make-rshared /")  # for credentials, as where systemd is the machine's first
    smoke = [{"path": "/items"}, {"path": "/healthz", "contains": "five"}]
    run = shop.release(forge_smoke=smoke, forge_secrets="credentials")
    assert "Rehearsed on a copy" in run.said()
    assert "after these migrations works." in run.said()
    assert shop.serves() == "five"


def test_what_could_reach_the_real_database_is_refused(shop: Shop) -> None:
    shop.change("six", "SELECT id FROM items", FIRST, LOCKS.partition(";")[0], DROPS, "SELECT 1", "SELECT 2")
    url = shop.fleet.on(
        "app", "systemd-creds decrypt --name=environment /srv/shop/current/environment.cred - 2>/dev/null"
    )
    password = re.search(r"//shop:([^@]+)@", url)[1]  # type: ignore[index]
    beside = {"DATABASE_URL": "{{ forge_database_url }}", "OTHER": password}
    refused = shop.release(check=False, forge_environment=beside)
    assert "FORGE_OTHER has the password of the database beside its URL" in refused.said()
    pool = {"DATABASE_URL": "{{ forge_database_url | replace(':5432', ':6432') }}"}
    pooled = shop.release(check=False, forge_environment=pool, forge_smoke=[])
    assert "is a URL of the database that its role shop logs in to at port 5432" in pooled.said()
    elsewhere = {"DATABASE_URL": "postgresql://other:hunter22@192.0.2.7/shop"}
    nowhere = shop.release(check=False, forge_environment=elsewhere, forge_smoke=[])
    assert "no setting of the app has its URL, forge_database_url" in nowhere.said()
    (shop.source / "shop" / "hidden.py").write_text(f"P = '{password}'\n")
    hidden = shop.release(check=False)
    (shop.source / "shop" / "hidden.py").unlink()
    assert "shop/hidden.py of the release has the password of the database" in hidden.said()
    for run in (refused, pooled, nowhere, hidden):
        assert run.rc != 0
        assert password not in run.output
    assert shop.version() == "4"
    assert shop.serves() == "five"
    assert shop.traces() == ""


@pytest.mark.thorough
def test_a_rehearsal_that_is_killed_leaves_nothing_for_long(shop: Shop) -> None:
    shop.change("six", "SELECT id FROM items", FIRST, LOCKS.partition(";")[0], DROPS, "SELECT 1", "SELECT pg_sleep(20)")
    # Kills the module on the app's host while the copy is migrated, as a controller that dies does.
    kill = 'until p=$(pgrep -of "[s]ystemd-run .*shop[.]migrate"); do sleep 0.1; done; sleep 2; kill -KILL $(ps -o ppid= -p $p)'
    shop.fleet.on("app", f"systemd-run --unit killer sh -c '{kill}'")
    assert shop.release(check=False).rc != 0
    assert shop.fleet.on("app", "systemctl is-active killer; true") == "inactive", "it has killed something"
    assert shop.version() == "4"
    shop.change("six", "SELECT id FROM items", FIRST, LOCKS.partition(";")[0], DROPS, "SELECT 1", "SELECT 3")
    time.sleep(1)
    assert shop.release().rc == 0
    assert shop.serves() == "six"
    assert shop.traces() == ""


def test_what_serves_and_does_not_fit_what_was_restored_is_refused(shop: Shop) -> None:
    """Release five reads a table that has no such column at an earlier moment."""
    before, moment = shop.version(), shop.fleet.on("db", "date --iso-8601=seconds")
    time.sleep(2)
    steps = [FIRST, LOCKS.partition(";")[0], DROPS, "SELECT 1", "SELECT 3"]
    shop.change("seven", "SELECT id, weight FROM items", *steps, "ALTER TABLE items ADD COLUMN weight int")
    shop.release()
    assert shop.serves() == "seven"
    assert shop.fleet.play("restore", at=moment).rc == 0
    refused = shop.fleet.play("restore", check=False, switch=True)
    assert refused.rc != 0
    assert re.search(
        r"What serves does not work with what was restored: Candidate \S+ failed a smoke test: GET /items answered 500, not 200",
        refused.said(),
    )
    assert shop.version() == "6"
    assert shop.serves() == "seven"
    assert shop.fleet.on("db", "ss -Hltn sport = :5433") == ""
    assert shop.fleet.play("restore", switch=True, forge_schema_compatible=True).rc == 0
    assert shop.version() == before
    shop.fleet.play("restore", remove="main")
