# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database comes back: rows that were written under load, to a moment, beside what serves, and in its place."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from conftest import SET, Fleet

BOX = os.environ.get("FORGE_TEST_BOX", "debian12")
V = {"debian12": "15", "debian13": "17"}[BOX]
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
    with fleet.with_nodes(f"app={BOX}:forge_app", f"db={BOX}:forge_database") as fleet:
        assert fleet.play("site", flags=("--check",)).failed("db") == 0  # nothing is there yet
        fleet.on(
            "db", f"cat > /root/receiver.py <<'E'\n{RECEIVER}\nE\nsystemd-run --unit receiver python3 /root/receiver.py"
        )
        fleet.play("site")
        yield Data(fleet)


def test_the_first_run_backs_up_and_the_second_changes_nothing(data: Data) -> None:
    units = f"pg_receivewal@{V}-main.service pg_basebackup@{V}-main.timer pg_dump@{V}-main.timer thecodeforge-backup@{V}-main.timer"
    assert set(data.fleet.on("db", f"systemctl is-active {units}").split()) == {"active"}
    assert data.fleet.on("db", f"ls -d {BACKUPS}/{V}-main/*.backup | wc -l") == "1"
    assert data.fleet.on("db", f"stat -c %a /etc/thecodeforge.fastapi/backup-{V}-main.env") == "600"
    snapshots = f"RESTIC_PASSWORD='{KEY}' restic -r {VAULT} snapshots --quiet | grep -c {V}-main"
    assert int(data.fleet.on("db", snapshots)) >= 1
    again = data.fleet.play("site")
    assert again.changed("app") == again.changed("db") == 0, again.output[-3000:]
    assert KEY not in again.output
    assert data.fleet.play("site", flags=("--check", "--diff"), forge_backup_keep=4).changed("db") == 1
    status = data.fleet.play("status")
    assert f"{V}/main" in status.output
    assert "WAL is received up to now" in status.said()


def test_the_first_drill_is_made_and_shown_and_leaves_nothing(data: Data) -> None:
    good = data.fleet.until(lambda: data.drill("good"), what="the first drill")
    assert good["backup"].startswith(f"{BACKUPS}/{V}-main/")
    assert data.fleet.on("db", "pg_lsclusters --no-header | wc -l") == "1"
    assert httpx.post(data.fleet.url("app", "/parts"), json={"serial": "drilled", "name": "x"}).status_code == 201
    run = data.fleet.play("backup", kind="drill", forge_backup_drill_command="psql -Atc 'SELECT count(*) FROM parts'")
    assert re.search(r"The last good drill was now: \d+ MiB in [\d.]+ s, \d tables with \d+ rows\.", run.said())
    assert data.drill("good")["tables"]["forge: public.parts"]["rows"] == int(data.ask("SELECT count(*) FROM parts"))
    assert data.watch() == "", "nobody is told of what is well"
    beats = data.fleet.on("db", f"tail -n1 {BEATS}")
    assert re.fullmatch(rf'/beat \{{"text": "Backups of {V}/main on \S+ are well\."\}}', beats)


def test_a_database_that_would_not_come_back_is_told(data: Data) -> None:
    """A check of theirs that fails, a base backup that is corrupted, and a drill that is silent."""
    data.fleet.on("db", f"rm -f {TOLD} {BEATS}")
    wrong = data.fleet.play(
        "backup", check=False, kind="drill", forge_backup_drill_command="psql -Atc 'SELECT 1 / count(*) FROM none'"
    )
    assert wrong.rc != 0
    sentence = "forge_backup_drill_command failed with exit code 1 on what was restored: .*relation .{1,2}none.{1,2} does not exist"
    assert re.search(f"{V}/main on db would not come back: {sentence}", wrong.said())
    told = data.fleet.until(lambda: data.fleet.on("db", f"cat {TOLD}", check=False), what="the notice")
    assert re.search(rf"Backups of {V}/main on \S+: The drill of 20\S+ \S+ UTC has failed: {sentence}", told)
    assert data.watch().count("\n") == 0, "once"
    assert "has failed: forge_backup_drill_command" in data.fleet.play("status", check=False).said()
    assert data.fleet.play("backup", kind="drill").rc == 0
    assert data.watch().splitlines()[-1].endswith(": Nothing is wrong any more.")

    newest = data.fleet.on("db", f"ls -d {BACKUPS}/{V}-main/*.backup | tail -n1")
    data.fleet.on(
        "db",
        f"cp -a {newest} /root/kept; cd {newest}; for f in base.tar.*; do dd if=/dev/zero of=$f bs=1k seek=40 count=4 conv=notrunc; done",
    )
    torn = data.fleet.play("backup", check=False, kind="drill")
    data.fleet.on("db", f"rm -r {newest}; mv /root/kept {newest}")
    assert torn.rc != 0
    assert re.search(
        rf"would not come back: {newest} cannot be restored: .*(crc error|format violated|corrupt|invalid)", torn.said()
    ), torn.said()[-3000:]
    assert data.fleet.on("db", "pg_lsclusters --no-header | wc -l") == "1"
    assert "cannot be restored" in data.watch().splitlines()[-1]

    data.fleet.play("backup", kind="drill")
    data.fleet.on(
        "db",
        f'sed -i \'s/"ended": [0-9.]*/"ended": 1000000/\' {DRILL.format(data.instance())}; systemctl stop receiver',
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


@pytest.mark.thorough
def test_a_drill_that_is_killed_is_noticed_and_cleared(data: Data) -> None:
    data.fleet.on("db", f"systemctl start --no-block thecodeforge-backup-drill@{V}-main")
    data.fleet.until(
        lambda: f"{V}-drill" in data.fleet.on("db", f"ls /etc/postgresql/{V} | sed s/^/{V}-/"), what="the cluster"
    )
    data.fleet.on("db", f"systemctl kill -s KILL thecodeforge-backup-drill@{V}-main")
    data.fleet.until(
        lambda: data.fleet.on("db", f"systemctl is-failed thecodeforge-backup-drill@{V}-main"), what="its end"
    )
    assert "has failed: it was stopped before it had ended" in data.fleet.play("status", check=False).said()
    assert data.fleet.play("backup", kind="drill").rc == 0
    data.fleet.on("db", f"systemctl start --no-block thecodeforge-backup-drill@{V}-main")
    data.fleet.until(lambda: "drill" in data.fleet.on("db", f"ls /etc/postgresql/{V}"), what="the cluster")
    data.fleet.on("db", f"systemctl stop thecodeforge-backup-drill@{V}-main")
    assert data.fleet.on("db", f"pg_lsclusters --no-header | wc -l; ls /var/lib/postgresql/{V}") == "1\nmain", (
        "stopped, it clears up"
    )
    assert data.fleet.play("backup", kind="drill").rc == 0
    data.fleet.on("db", f"pg_createcluster {V} drill")
    theirs = data.fleet.play("backup", check=False, kind="drill")
    assert f"There is a cluster {V}/drill that is somebody's: rename it" in theirs.said()
    data.fleet.on("db", f"pg_lsclusters --no-header | grep drill; pg_dropcluster {V} drill")
    assert data.fleet.play("backup", kind="drill").rc == 0


@pytest.mark.thorough
def test_what_is_not_wanted_any_more_goes(data: Data) -> None:
    timers = "ls /etc/systemd/system | grep thecodeforge-backup | grep -v wants; true"
    before = data.fleet.on("db", timers)
    none = {"forge_backup_drill_schedule": "", "forge_backup_on_failure": "", "forge_backup_heartbeat": ""}
    data.fleet.play("site", **none)
    assert data.fleet.on("db", timers).split() == [
        f"thecodeforge-backup@{V}-main.service",
        f"thecodeforge-backup@{V}-main.timer",
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
    assert f"{V}/main serves as before" in run.said()
    assert "forge: public.parts" in run.output
    port = int(re.search(r"on port (\d+)", run.said())[1])  # type: ignore[index]
    restored = set(data.ask("SELECT serial FROM parts", port).split())
    assert before <= restored, "nothing that was acknowledged before is missing"
    assert len(restored) < int(count), "and what came after is not there"
    assert data.ask("SELECT count(*) FROM parts") == count
    assert data.fleet.on("db", f"ss -Hltn sport = :{port}") == "", "nobody reaches it but over the socket"


def test_what_was_restored_takes_over_in_one_step_and_the_old_one_is_kept(data: Data) -> None:
    assert data.fleet.play("restore", switch=True).rc == 0
    assert data.cluster() == f"{V}/restored"
    data.fleet.until(lambda: httpx.get(data.fleet.url("app", "/readyz")).status_code == 200, what="the app")
    assert httpx.post(data.fleet.url("app", "/parts"), json={"serial": "after", "name": "x"}).status_code == 201
    assert f"{V} main" in data.fleet.on("db", "pg_lsclusters --no-header | awk '$4 == \"down\" {print $1, $2}'")
    assert data.fleet.on("db", f"systemctl is-active pg_receivewal@{V}-restored.service") == "active"
    ports = f"grep -rl ^port /etc/postgresql/{V}/restored/conf.d; true"
    assert data.fleet.on("db", ports) == "", "what is restored from its backups would have the port, too, for a moment"
    assert data.fleet.play("status").rc == 0
    assert data.fleet.play("site").changed("db") == 0

    data.fleet.on("db", "systemctl restart postgresql")  # as a boot does: the one that is kept stays down
    assert data.cluster() == f"{V}/restored"
    refused = data.fleet.play("restore", check=False, remove="restored")
    assert f"The cluster {V}/restored serves, or was not restored here: it is not removed." in refused.said()
    data.fleet.play("restore", remove="main")
    assert data.fleet.on("db", "pg_lsclusters --no-header | wc -l") == "1"


def test_a_server_that_was_destroyed_comes_back_while_the_app_waits(data: Data) -> None:
    """The data of the server is gone, under load. All that was received comes back."""
    data.written.clear()
    with data.writing():
        time.sleep(3)
        data.fleet.on(
            "db", f"systemctl kill -s KILL postgresql@{V}-restored; rm -rf /var/lib/postgresql/{V}/restored/*"
        )
        time.sleep(2)
    lost_from = max(data.written.values())
    run = data.fleet.play("restore", check=False, at=data.now())
    assert run.rc == 0, run.output[-4000:]
    assert data.fleet.play("restore", check=False, switch=True).rc == 0
    data.fleet.until(lambda: httpx.get(data.fleet.url("app", "/readyz")).status_code == 200, what="the app")
    restored = set(data.ask("SELECT serial FROM parts").split())
    missing = {serial for serial in data.written if serial not in restored and data.written[serial] < lost_from - 1}
    assert missing == set()


def test_rows_of_a_database_host_whose_power_was_cut_are_there_at_each_moment(data: Data) -> None:
    """Under load, with a kill -9 of the whole host; then a restore to a moment before, and nothing acknowledged by then is missing."""
    data.written.clear()
    with data.writing():
        time.sleep(3)
        clock, moment = time.time(), data.now()
        time.sleep(1)
        data.fleet.lab("kill", "db")
        time.sleep(2)
        data.fleet.lab("start", "db")
        data.fleet.on("db", "systemd-run --unit receiver python3 /root/receiver.py")
        data.fleet.until(lambda: httpx.get(data.fleet.url("app", "/readyz")).status_code == 200, what="the app")
    before = {serial for serial, at in data.written.items() if at < clock}
    assert len(before) > 10
    assert set(data.written) <= set(data.ask("SELECT serial FROM parts").split()), "the server itself has all of it"
    run = data.fleet.play("restore", at=moment, forge_restore_cluster="aside")
    port = int(re.search(r"on port (\d+)", run.said())[1])  # type: ignore[index]
    assert before <= set(data.ask("SELECT serial FROM parts", port).split())
    data.fleet.play("restore", remove="aside")
    assert data.fleet.play("backup", kind="drill").rc == 0, "the power may have been cut in one"


@pytest.mark.thorough
def test_a_place_in_the_wal_that_is_lost_is_said_and_heals(data: Data) -> None:
    cluster = data.instance()
    assert data.fleet.play("site", forge_backup_wal_keep_mb=32).rc == 0
    data.fleet.on("db", f"systemctl stop pg_receivewal@{cluster}")
    for _ in range(6):
        data.ask("CREATE TABLE filler AS SELECT generate_series(1, 300000); DROP TABLE filler; SELECT pg_switch_wal()")
    data.ask("CHECKPOINT")
    said = data.fleet.play("status", check=False, forge_backup_wal_keep_mb=32).said()
    assert "The server has removed WAL that was not received yet (max_slot_wal_keep_size)" in said
    bases = f"ls -d {BACKUPS}/{cluster}/*.backup | wc -l"
    before = int(data.fleet.on("db", bases))
    assert data.fleet.play("backup", forge_backup_wal_keep_mb=32).rc == 0
    assert int(data.fleet.on("db", bases)) > min(before, 2), "a new base backup, from which on all is there again"
    assert data.fleet.play("backup", kind="drill", forge_backup_wal_keep_mb=32).rc == 0
    assert data.fleet.play("status", forge_backup_wal_keep_mb=32).rc == 0


@pytest.mark.thorough
def test_a_server_that_may_have_more_connections_since_comes_back_all_the_same(data: Data) -> None:
    """A recovery fails where the configuration of the base backup allows fewer."""
    file = f"/etc/postgresql/{data.cluster()}/conf.d/admin.conf"
    data.fleet.on("db", f"echo 'max_connections = 333' > {file}; systemctl restart postgresql@{data.instance()}")
    data.fleet.until(lambda: data.ask("SELECT 1") == "1", what="the server")
    run = data.fleet.play("backup", kind="drill")
    data.fleet.on("db", f"rm {file}; systemctl restart postgresql@{data.instance()}")
    assert run.rc == 0


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
    assert re.search(rf"The backup of {V}/\w+ on db was not made: .*No space left on device", full.said())
    assert re.search(
        r"pg_basebackup@\S+\.service has failed: see journalctl", data.fleet.play("status", check=False).said()
    )
    assert "pg_basebackup@" in data.watch().splitlines()[-1]
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
            f"The cluster {V}/none is none that was restored and waits: restore one first",
        ),
    ],
)
def test_bad_input_is_a_sentence(data: Data, variables: dict[str, object], sentence: str) -> None:
    run = data.fleet.play("restore", check=False, **variables)
    assert run.rc != 0
    assert sentence in run.said()
    assert "Traceback" not in run.output


@pytest.mark.thorough
def test_copies_go_to_another_host_over_sftp_and_come_back(data: Data) -> None:
    """As root of the database's host logs in there, by a key."""
    data.fleet.on("db", "test -f /root/.ssh/id_ed25519 || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
    key = data.fleet.on("db", "cat /root/.ssh/id_ed25519.pub")
    data.fleet.on(
        "app",
        f"useradd --create-home vault 2>/dev/null; install -d -o vault ~vault/.ssh; echo '{key}' > ~vault/.ssh/authorized_keys",
    )
    address = data.fleet.address("app")
    data.fleet.on("db", f"ssh-keyscan -t ed25519 {address} > /root/.ssh/known_hosts 2>/dev/null")
    there = f"sftp:vault@{address}:shop"
    assert data.fleet.play("site", forge_backup_offsite=there).rc == 0
    cluster, restic = data.instance(), f"RESTIC_PASSWORD='{KEY}' restic -q -r {there}"
    data.fleet.on("db", f"{restic} restore latest --tag {cluster} --target /root/back")
    assert (
        data.fleet.on(
            "db",
            f"diff -r {BACKUPS}/{cluster} /root/back{BACKUPS}/{cluster} --exclude '*.partial' | grep -v '^Only in {BACKUPS}'; true",
        )
        == ""
    )
    data.fleet.on("app", "mv ~vault/.ssh ~vault/away")
    away = data.fleet.play("site", check=False, forge_backup_offsite=there, forge_backup_offsite_days=13)
    unit = f"thecodeforge-backup@{cluster}.service"
    assert data.fleet.on("db", f"systemctl start {unit} 2>/dev/null || echo failed") == "failed", "as its timer does"
    assert f"{unit} has failed: see journalctl -u {unit}." in data.fleet.play("status", check=False).said()
    assert unit in data.watch().splitlines()[-1]
    data.fleet.on("app", "mv ~vault/away ~vault/.ssh")
    assert away.rc != 0
    assert "were not copied to forge_backup_offsite: " in away.said()
    assert KEY not in away.output
    assert data.fleet.play("site").rc == 0


@pytest.fixture
def bucket(data: Data) -> Iterator[str]:
    """A repository in a server of S3 (moto) on this machine; its bucket is not there yet."""
    gateway = data.fleet.on("db", "ip route | awk '/^default/ {print $3}'")
    with socket.create_server((gateway, 0)) as free:
        port = free.getsockname()[1]
    command = [
        "uv",
        "run",
        "--quiet",
        "--no-project",
        "--isolated",
        "--with",
        "moto[server]",
        "moto_server",
        "-H",
        gateway,
        "-p",
    ]
    server = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        data.fleet.until(lambda: httpx.get(f"http://{gateway}:{port}/").status_code == 200, 180, "the server of S3")
        yield f"s3:http://{gateway}:{port}/shop"
    finally:
        server.terminate()
        server.wait()


@pytest.mark.thorough
def test_copies_go_to_a_bucket_and_come_back(data: Data, bucket: str) -> None:
    access = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "a secret of the bucket"}
    there = {"forge_backup_offsite": bucket, "forge_backup_offsite_environment": access}
    run = data.fleet.play("site", **there)
    assert access["AWS_SECRET_ACCESS_KEY"] not in run.output
    cluster = data.instance()
    exported = " ".join(f"{name}='{value}'" for name, value in access.items())
    restic = f"{exported} RESTIC_PASSWORD='{KEY}' restic -q -r {bucket}"
    data.fleet.on("db", f"rm -rf /root/back; {restic} restore latest --tag {cluster} --target /root/back")
    newest = f"ls -d {BACKUPS}/{cluster}/*.backup | tail -n1"
    assert data.fleet.on("db", f"diff -r $({newest}) /root/back$({newest}) && echo same") == "same"
    assert data.fleet.play("site", **there).changed("db") == 0
    assert data.fleet.play("status", **there).rc == 0
    assert data.fleet.play("site").rc == 0


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
