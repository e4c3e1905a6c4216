# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database comes back: rows that were written under load, to a moment, beside what serves, and in its place."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from conftest import SET, Fleet

BACKUPS = "/var/backups/postgresql"
VAULT = "/srv/vault"
KEY = "the key of the vault"
OFFSITE = {"forge_backup_offsite": VAULT, "forge_backup_offsite_password": KEY}
QUERY = "su postgres -c 'psql -XAtq -p {port} {database} -c \"{text}\"'"


class Data:
    """The app's host and the database's, with backups."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.written: dict[str, float] = {}  # serial number to when it was acknowledged

    def ask(self, text: str, port: int = 5432, database: str = "forge") -> str:
        return self.fleet.on("db", QUERY.format(port=port, database=database, text=text))

    def now(self) -> str:
        """Of the database's clock."""
        return self.fleet.on("db", "date --iso-8601=ns | cut -c1-26,30-").replace(",", ".")

    def cluster(self) -> str:
        """Version and name of the one that serves."""
        return self.fleet.on("db", "pg_lsclusters --no-header | awk '$3 == 5432 {print $1 \"/\" $2}'")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Parts are made, one after the other, while the block runs."""
        ends = threading.Event()

        def write() -> None:
            number = 0
            while not ends.is_set():
                number += 1
                serial = f"w-{time.time_ns()}-{number}"
                try:
                    answer = httpx.post(
                        self.fleet.url("app", "/parts"), json={"serial": serial, "name": "x"}, timeout=5
                    )
                except httpx.HTTPError:
                    continue
                if answer.status_code == 201:
                    self.written[serial] = time.time()

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()


@pytest.fixture(scope="module")
def data() -> Iterator[Data]:
    fleet = Fleet(lab_set=f"{SET}backup", variables={"forge_backup": True, **OFFSITE})
    with fleet.with_nodes("app=debian12:forge_app", "db=debian12:forge_database") as fleet:
        assert fleet.play("site", flags=("--check",)).failed("db") == 0  # nothing is there yet
        fleet.play("site")
        yield Data(fleet)


def test_the_first_run_backs_up_and_the_second_changes_nothing(data: Data) -> None:
    units = "pg_receivewal@15-main.service pg_basebackup@15-main.timer pg_dump@15-main.timer thecodeforge-backup@15-main.timer"
    assert set(data.fleet.on("db", f"systemctl is-active {units}").split()) == {"active"}
    assert data.fleet.on("db", f"ls -d {BACKUPS}/15-main/*.backup | wc -l") == "1"
    assert data.fleet.on("db", "stat -c %a /etc/thecodeforge.fastapi/backup-15-main.env") == "600"
    snapshots = f"RESTIC_PASSWORD='{KEY}' restic -r {VAULT} snapshots --quiet | grep -c 15-main"
    assert int(data.fleet.on("db", snapshots)) >= 1
    again = data.fleet.play("site")
    assert again.changed("app") == again.changed("db") == 0, again.output[-3000:]
    assert KEY not in again.output
    assert data.fleet.play("site", flags=("--check", "--diff"), forge_backup_keep=4).changed("db") == 1
    status = data.fleet.play("status")
    assert "15/main" in status.output
    assert "WAL is received up to now" in status.said()


def test_what_was_written_before_a_moment_is_restored_beside_what_serves(data: Data) -> None:
    with data.writing():
        time.sleep(3)
        clock, moment = time.time(), data.now()
        time.sleep(3)
    before = {serial for serial, at in data.written.items() if at < clock}
    assert len(before) > 10
    count = data.ask("SELECT count(*) FROM parts")
    run = data.fleet.play("restore", at=moment)
    assert "15/main serves as before" in run.said()
    assert "forge: public.parts" in run.output
    port = int(re.search(r"on port (\d+)", run.said())[1])  # type: ignore[index]
    restored = set(data.ask("SELECT serial FROM parts", port).split())
    assert before <= restored, "nothing that was acknowledged before is missing"
    assert len(restored) < int(count), "and what came after is not there"
    assert data.ask("SELECT count(*) FROM parts") == count
    assert data.fleet.on("db", f"ss -Hltn sport = :{port}") == "", "nobody reaches it but over the socket"


def test_what_was_restored_takes_over_in_one_step_and_the_old_one_is_kept(data: Data) -> None:
    assert data.fleet.play("restore", switch=True).rc == 0
    assert data.cluster() == "15/restored"
    data.fleet.until(lambda: httpx.get(data.fleet.url("app", "/readyz")).status_code == 200, what="the app")
    assert httpx.post(data.fleet.url("app", "/parts"), json={"serial": "after", "name": "x"}).status_code == 201
    assert "15 main" in data.fleet.on("db", "pg_lsclusters --no-header | awk '$4 == \"down\" {print $1, $2}'")
    assert data.fleet.on("db", "systemctl is-active pg_receivewal@15-restored.service") == "active"
    assert data.fleet.play("status").rc == 0
    assert data.fleet.play("site").changed("db") == 0

    data.fleet.on("db", "systemctl restart postgresql")  # as a boot does: the one that is kept stays down
    assert data.cluster() == "15/restored"
    refused = data.fleet.play("restore", check=False, remove="restored")
    assert "The cluster 15/restored serves, or was not restored here: it is not removed." in refused.said()
    data.fleet.play("restore", remove="main")
    assert data.fleet.on("db", "pg_lsclusters --no-header | wc -l") == "1"


def test_a_server_that_was_destroyed_comes_back_while_the_app_waits(data: Data) -> None:
    """The data of the server is gone, under load. All that was received comes back."""
    data.written.clear()
    with data.writing():
        time.sleep(3)
        data.fleet.on("db", "systemctl kill -s KILL postgresql@15-restored; rm -rf /var/lib/postgresql/15/restored/*")
        time.sleep(2)
    lost_from = max(data.written.values())
    run = data.fleet.play("restore", check=False, at=data.now())
    assert run.rc == 0, run.output[-4000:]
    assert data.fleet.play("restore", check=False, switch=True).rc == 0
    data.fleet.until(lambda: httpx.get(data.fleet.url("app", "/readyz")).status_code == 200, what="the app")
    restored = set(data.ask("SELECT serial FROM parts").split())
    missing = {serial for serial in data.written if serial not in restored and data.written[serial] < lost_from - 1}
    assert missing == set()


def test_a_backup_is_made_now_and_one_that_finds_no_room_is_said(data: Data) -> None:
    run = data.fleet.play("backup", kind="dump")
    assert re.search(r"\.dump +dump +20", run.output)
    assert "kind=base or -e kind=dump" in data.fleet.play("backup", check=False, kind="all").said()
    data.fleet.on("db", f"mount -t tmpfs -o size=2m tmpfs {BACKUPS}")
    try:
        full = data.fleet.play("backup", check=False)
    finally:
        data.fleet.on("db", f"umount {BACKUPS}")
    assert full.rc != 0
    assert re.search(r"The backup of 15/\w+ on db was not made: .*No space left on device", full.said())
    assert data.fleet.play("backup").rc == 0


def test_backups_of_another_app_are_left_alone(data: Data) -> None:
    mark = "find /etc/systemd/system/pg_*.d -name thecodeforge.conf -exec sed -i 's/for app {}/for app {}/' {{}} +"
    have = f"ls -d {BACKUPS}/*/*.backup"
    before = data.fleet.on("db", have)
    data.fleet.on("db", mark.format("forge", "shop"))
    try:
        run = data.fleet.play("backup", forge_backup_keep=1)
    finally:
        data.fleet.on("db", mark.format("shop", "forge"))
    assert "is backed up by the app shop: left alone." in run.said()
    assert run.changed("db") == 0
    assert data.fleet.on("db", have) == before


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"at": "yesterday"}, "'yesterday' is no moment: give it as 2026-11-26 14:03"),
        ({"at": "2099-01-01 00:00"}, "2099-01-01 00:00:00 UTC has not come yet."),
        ({"at": "2001-01-01 00:00"}, "No base backup is as old as 2001-01-01 00:00:00 UTC: the oldest one is of 20"),
        ({}, "Say one of -e at='2026-11-26 14:03'"),
        ({"switch": True}, "There is no restored cluster: restore one first, with -e at=MOMENT."),
        (
            {"switch": True, "forge_restore_cluster": "none"},
            "The cluster 15/none is none that was restored and waits: restore one first",
        ),
    ],
)
def test_bad_input_is_a_sentence(data: Data, variables: dict[str, object], sentence: str) -> None:
    run = data.fleet.play("restore", check=False, **variables)
    assert run.rc != 0
    assert sentence in run.said()
    assert "Traceback" not in run.output


def test_a_receiver_that_is_away_and_copies_that_fail_are_noticed(data: Data) -> None:
    cluster = data.cluster().replace("/", "-")
    data.fleet.on(
        "db",
        f"systemctl stop pg_receivewal@{cluster}; find {BACKUPS}/{cluster}/wal -type f -exec touch -d '1 hour ago' {{}} +",
    )
    said = data.fleet.play("status", check=False).said()
    assert re.search(r"WAL was not received for (59|60|61) minutes, and may be 15", said)
    assert data.fleet.play("site").rc == 0
    wrong = data.fleet.play("site", check=False, forge_backup_offsite_password="another key")
    assert wrong.rc != 0
    assert "were not copied to forge_backup_offsite: wrong password or no key found" in wrong.said()
    away = data.fleet.play("site", check=False, forge_backup_offsite="/proc/none")
    assert "were not copied to forge_backup_offsite: " in away.said()
    assert data.fleet.play("site").rc == 0
    assert data.fleet.play("status").rc == 0
