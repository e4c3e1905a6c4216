# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database comes back: rows that were written under load, to a moment, beside what serves, and in its place."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from conftest import SET, Fleet

BACKUPS = "/var/backups/postgresql"
VAULT = "/srv/vault"
KEY = "the key of the vault"
OFFSITE = {"forge_backup_offsite": VAULT, "forge_backup_offsite_password": KEY}
DRILL = "/var/lib/thecodeforge.fastapi/drill-{}.json"
TOLD = "/root/told"
BEATS = "/root/beats"
WATCH = {
    "forge_backup_on_failure": f"sh -c 'echo \"$FORGE_FAILURE\" >> {TOLD}'",
    "forge_backup_heartbeat": "http://127.0.0.1:9099/beat",
}
RECEIVER = f"""
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        open("{BEATS}", "a").write(self.path + " " + body + "\\n")
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 9099), Handler).serve_forever()
"""
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

    def instance(self) -> str:
        return self.cluster().replace("/", "-")

    def watch(self) -> str:
        """Look as the timer does, and say what the log has then."""
        return self.fleet.on(
            "db", f"systemctl start thecodeforge-backup-watch@{self.instance()}; cat {TOLD} 2>/dev/null; true"
        )

    def drill(self, what: str) -> Any:
        """A result of the last drill."""
        return json.loads(self.fleet.on("db", f"cat {DRILL.format(self.instance())}")).get(what)

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
    fleet = Fleet(lab_set=f"{SET}backup", variables={"forge_backup": True, **OFFSITE, **WATCH})
    with fleet.with_nodes("app=debian12:forge_app", "db=debian12:forge_database") as fleet:
        assert fleet.play("site", flags=("--check",)).failed("db") == 0  # nothing is there yet
        fleet.on(
            "db", f"cat > /root/receiver.py <<'E'\n{RECEIVER}\nE\nsystemd-run --unit receiver python3 /root/receiver.py"
        )
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


def test_the_first_drill_is_made_and_shown_and_leaves_nothing(data: Data) -> None:
    good = data.fleet.until(lambda: data.drill("good"), what="the first drill")
    assert good["tables"]["forge: public.parts"]["rows"] == int(data.ask("SELECT count(*) FROM parts"))
    assert good["backup"].startswith(f"{BACKUPS}/15-main/")
    assert data.fleet.on("db", "pg_lsclusters --no-header | wc -l") == "1"
    data.ask("INSERT INTO parts (serial, name) VALUES ('drilled', 'x')")
    run = data.fleet.play("backup", kind="drill", forge_backup_drill_command="psql -Atc 'SELECT count(*) FROM parts'")
    assert re.search(r"The last good drill was now: \d+ MiB in [\d.]+ s, \d tables with \d+ rows\.", run.said())
    assert (
        data.drill("good")["tables"]["forge: public.parts"]["rows"] == good["tables"]["forge: public.parts"]["rows"] + 1
    )
    assert data.watch() == "", "nobody is told of what is well"
    beats = data.fleet.on("db", f"tail -n1 {BEATS}")
    assert re.fullmatch(r'/beat \{"text": "Backups of 15/main on \S+ are well\."\}', beats)


def test_a_database_that_would_not_come_back_is_told(data: Data) -> None:
    """A check of theirs that fails, a base backup that is corrupted, and a drill that is silent."""
    data.fleet.on("db", f"rm -f {TOLD} {BEATS}")
    wrong = data.fleet.play(
        "backup", check=False, kind="drill", forge_backup_drill_command="psql -Atc 'SELECT 1 / count(*) FROM none'"
    )
    assert wrong.rc != 0
    sentence = (
        'forge_backup_drill_command failed with exit code 1 on what was restored: .*relation "none" does not exist'
    )
    assert re.search(f"15/main on db would not come back: {sentence}", wrong.said())
    told = data.fleet.until(lambda: data.fleet.on("db", f"cat {TOLD}", check=False), what="the notice")
    assert re.search(rf"Backups of 15/main on \S+: The drill of 20\S+ \S+ UTC has failed: {sentence}", told)
    assert data.watch().count("\n") == 0, "once"
    assert "has failed: forge_backup_drill_command" in data.fleet.play("status", check=False).said()
    assert data.fleet.play("backup", kind="drill").rc == 0
    assert data.watch().splitlines()[-1].endswith(": Nothing is wrong any more.")

    newest = data.fleet.on("db", f"ls -d {BACKUPS}/15-main/*.backup | tail -n1")
    data.fleet.on(
        "db",
        f"cp -a {newest} /root/kept; cd {newest}; for f in base.tar.*; do dd if=/dev/zero of=$f bs=1k seek=40 count=4 conv=notrunc; done",
    )
    torn = data.fleet.play("backup", check=False, kind="drill")
    data.fleet.on("db", f"rm -r {newest}; mv /root/kept {newest}")
    assert torn.rc != 0
    assert re.search(
        rf"would not come back: {newest} cannot be restored: .*(crc error|format violated|corrupt)", torn.said()
    ), torn.said()[-3000:]
    assert data.fleet.on("db", "pg_lsclusters --no-header | wc -l") == "1"
    assert "cannot be restored" in data.watch().splitlines()[-1]

    data.fleet.play("backup", kind="drill")
    data.fleet.on(
        "db", f'sed -i \'s/"ended": [0-9.]*/"ended": 1000000/\' {DRILL.format("15-main")}; systemctl stop receiver'
    )
    assert re.search(
        r"The last good drill was \d+ hours ago, and may be 36", data.fleet.play("status", check=False).said()
    )
    assert "The last good drill was" in data.watch().splitlines()[-1]
    assert data.fleet.play("backup", kind="drill").rc == 0
    data.watch()
    silent = data.fleet.play("status", check=False).said()
    assert "Nobody could be told: The address of forge_backup_heartbeat was not to be called: " in silent
    data.fleet.on("db", "systemd-run --unit receiver python3 /root/receiver.py")
    data.watch()
    assert data.fleet.play("status").rc == 0


def test_a_drill_that_is_killed_is_noticed_and_cleared(data: Data) -> None:
    data.fleet.on("db", "systemctl start --no-block thecodeforge-backup-drill@15-main")
    data.fleet.until(
        lambda: "15-drill" in data.fleet.on("db", "ls /etc/postgresql/15 | sed s/^/15-/"), what="the cluster"
    )
    data.fleet.on("db", "systemctl kill -s KILL thecodeforge-backup-drill@15-main")
    data.fleet.until(
        lambda: data.fleet.on("db", "systemctl is-failed thecodeforge-backup-drill@15-main"), what="its end"
    )
    assert "has failed: it was stopped before it had ended" in data.fleet.play("status", check=False).said()
    assert data.fleet.play("backup", kind="drill").rc == 0
    assert data.fleet.on("db", "pg_lsclusters --no-header | wc -l") == "1"
    data.fleet.on("db", "pg_createcluster 15 drill")
    theirs = data.fleet.play("backup", check=False, kind="drill")
    assert "There is a cluster 15/drill that is somebody's: rename it" in theirs.said()
    data.fleet.on("db", "pg_lsclusters --no-header | grep drill; pg_dropcluster 15 drill")
    assert data.fleet.play("backup", kind="drill").rc == 0


def test_what_is_not_wanted_any_more_goes(data: Data) -> None:
    timers = "ls /etc/systemd/system | grep thecodeforge-backup | grep -v wants; true"
    before = data.fleet.on("db", timers)
    none = {"forge_backup_drill_schedule": "", "forge_backup_on_failure": "", "forge_backup_heartbeat": ""}
    data.fleet.play("site", **none)
    assert data.fleet.on("db", timers).split() == [
        "thecodeforge-backup@15-main.service",
        "thecodeforge-backup@15-main.timer",
    ]
    assert data.fleet.play("site", **none).changed("db") == 0
    assert "there are no drills" in data.fleet.play("backup", check=False, kind="drill", **none).said()
    data.fleet.play("site")
    assert data.fleet.on("db", timers) == before


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
    assert "kind=base, -e kind=dump or -e kind=drill" in data.fleet.play("backup", check=False, kind="all").said()
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
