# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that run once for the fleet: three hosts and a database; hosts and the database go away meanwhile."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SET, Fleet
from tiny import PLAIN, load, write_project

pytestmark = pytest.mark.fleet
HOSTS = ("o1", "o2", "o3")
NODES = (
    *(f"{host}=debian{12 + number % 2}:forge_app" for number, host in enumerate(HOSTS)),
    "od=debian12:forge_database",
)
PERIOD = 10  # seconds; on a busy machine it takes some of them to begin
# Says when it begins and ends; how long it takes, and how it ends, is said to it by files.
JOB = """
import os
import sys
import time

name = sys.argv[1]


def told(what, otherwise):
    try:
        return float(open(f"/run/{name}.{what}").read())
    except OSError:
        return otherwise


def say(word):
    with open(f"/var/lib/shop/{name}", "a") as log:
        log.write(f"{time.time():.3f} {word} {os.environ.get('FORGE_DUE') or '-'}\\n")


say("begins")
print(f"{name} has begun", flush=True)
time.sleep(told("seconds", 600 if name == "beat" else 0.1))
say("ends")
sys.exit(int(told("status", 0)))
"""
HOOK = """
import http.server


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        with open("/run/hook", "ab") as log:
            log.write(self.path.encode() + b" " + body + b"\\n")
        self.send_response(204)
        self.end_headers()


http.server.HTTPServer(("", 9000), Hook).serve_forever()
"""
SETTINGS: dict[str, Any] = {
    **PLAIN,
    "forge_app": "shop",
    "forge_project": "once",
    "forge_listen": ["8000"],
    "forge_workers": 1,
    "forge_watch_seconds": 1,
    "forge_state_directories": ["shop"],
    "forge_processes": {
        "often": {
            "command": "python -m shop.job often",
            "schedule": f"*:*:0/{PERIOD}",
            "once": True,
            "on_failure": """sh -c 'echo "$FORGE_FAILURE" >> /var/lib/shop/told'""",
        },
        "yearly": {
            "command": "python -m shop.job yearly",
            "schedule": "*-01-01",
            "once": True,
            "on_failure": "${FORGE_HOOK}",
        },
        "everywhere": {"command": "python -m shop.job everywhere", "schedule": "*-01-01"},
        "beat": {"command": "python -m shop.job beat", "once": True},
    },
}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    source = write_project(
        tmp_path_factory.mktemp("once") / "shop", "gunicorn", "uvicorn-worker", "psycopg[binary]", job=JOB
    )
    fleet = Fleet({**SETTINGS, "forge_source": str(source)}, lab_set=f"{SET}once")
    with fleet.with_nodes(*NODES):
        hook = f"http://{fleet.address('od')}:9000/token-of-the-hook"
        fleet.variables["forge_environment"] = {"DATABASE_URL": "{{ forge_database_url }}", "HOOK": hook}
        fleet.play("site")
        fleet.on("od", f"systemd-run --quiet --unit=hook python3 -c '{HOOK}'")
        yield fleet


def live(fleet: Fleet, host: str) -> str:
    return fleet.on(host, "basename $(readlink /srv/shop/current)")


def said(
    fleet: Fleet, name: str, word: str, since: float = 0, hosts: tuple[str, ...] = HOSTS
) -> list[tuple[float, str]]:
    """When and where a process has said something."""
    found = []
    for host in hosts:
        for line in fleet.on(host, f"cat /var/lib/shop/{name} 2>/dev/null || true").splitlines():
            moment, what, _due = line.split()
            if what == word and float(moment) >= since:
                found.append((float(moment), host))
    return sorted(found)


def sql(fleet: Fleet, statement: str) -> str:
    return fleet.on("od", f"cd / && runuser -u postgres -- psql -XAtq -d shop <<'E'\n{statement}\nE")


def row(fleet: Fleet, process: str) -> dict[str, Any]:
    found = sql(fleet, f"""SELECT row_to_json(p) FROM thecodeforge_shop.processes p WHERE process = '{process}'""")
    return json.loads(found)


def look(fleet: Fleet, process: str, hosts: tuple[str, ...] = HOSTS) -> None:
    """Have the timers look for what was missed, as they do every five minutes."""
    for host in hosts:
        fleet.on(host, f"systemctl restart shop.{process}@{live(fleet, host)}.timer")


def runs(fleet: Fleet, since: float, hosts: tuple[str, ...] = HOSTS) -> Counter[str]:
    """Runs of the frequent one that began since then, by when they were due."""
    lines = [line.split() for host in hosts for line in fleet.on(host, "cat /var/lib/shop/often || true").splitlines()]
    return Counter(due for moment, what, due in lines if what == "begins" and float(moment) >= since)


def each_is_made_once(fleet: Fleet, periods: int) -> float:
    """Watch the frequent one for some periods; return when that began."""
    began = (time.time() // PERIOD + 1) * PERIOD
    time.sleep(began - time.time() + periods * PERIOD + 6)
    found = runs(fleet, began)
    assert set(found.values()) == {1}, found
    assert len(found) >= periods - 1, found
    assert row(fleet, "often")["result"] == "succeeded"
    return began


def test_each_run_is_made_on_one_host(once: Fleet) -> None:
    each_is_made_once(once, 3)
    assert said(once, "yearly", "begins") == [], "what was due before it was there is not missed"


def test_a_release_makes_no_run_twice(once: Fleet) -> None:
    Path(once.variables["forge_source"], "shop", "version.py").write_text(f"VERSION = {time.time()}\n")
    began = (time.time() // PERIOD + 1) * PERIOD
    with load(once.url("o1", "")) as result:
        once.play("deploy")
        time.sleep(PERIOD)
    found = runs(once, began)
    assert result["lost"] == {}
    assert set(found.values()) == {1}, found
    assert len(found) >= (time.time() - began) / PERIOD / 2, found
    assert said(once, "beat", "begins", began)


def test_a_run_that_was_missed_is_made_up_for_by_one_host(once: Fleet) -> None:
    began = time.time()
    sql(once, "UPDATE thecodeforge_shop.processes SET due = now() - interval '2 years' WHERE process = 'yearly'")
    look(once, "yearly")
    once.until(lambda: said(once, "yearly", "ends", began), what="the run")
    look(once, "yearly")
    time.sleep(3)
    assert len(said(once, "yearly", "begins", began)) == 1


@pytest.fixture
def fails(once: Fleet) -> Iterator[None]:
    """The yearly command fails."""
    for host in HOSTS:
        once.on(host, "echo 3 > /run/yearly.status")
    yield
    for host in HOSTS:
        once.on(host, "rm /run/yearly.status")


def test_a_failure_is_told_and_not_tried_again(once: Fleet, fails: None) -> None:
    began = time.time()
    sql(once, "UPDATE thecodeforge_shop.processes SET due = now() - interval '2 years' WHERE process = 'yearly'")
    look(once, "yearly")
    told = once.until(lambda: once.on("od", "cat /run/hook", check=False), what="the call").splitlines()
    path, body = told[0].split(" ", 1)
    (_moment, host) = said(once, "yearly", "begins", began)[0]
    assert path == "/token-of-the-hook"
    assert json.loads(body) == {
        "text": f"yearly of shop failed on {host}: exit-code (exited 3).", "app": "shop", "process": "yearly", "host": host,
        "result": "exit-code", "status": "3",
    }  # fmt: skip
    look(once, "yearly")
    time.sleep(3)
    assert len(said(once, "yearly", "begins", began)) == 1
    assert len(once.on("od", "cat /run/hook").splitlines()) == 1
    assert row(once, "yearly")["result"] == "failed with exit status 3"
    unit = once.on(host, f"cat /etc/systemd/system/shop.yearly@{live(once, host)}.service")
    assert "token-of-the-hook" not in unit
    status = once.play("status", check=False)
    assert status.rc
    assert f"on {host} failed with exit status 3" in status.said()


def test_another_host_takes_over_when_one_goes_away_in_a_run(once: Fleet) -> None:
    began = time.time()
    for host in HOSTS:
        once.on(host, "echo 300 > /run/yearly.seconds")
    sql(once, "UPDATE thecodeforge_shop.processes SET due = now() - interval '2 years' WHERE process = 'yearly'")
    look(once, "yearly")
    (_moment, gone) = once.until(lambda: said(once, "yearly", "begins", began), what="the run")[0]
    others = tuple(host for host in HOSTS if host != gone)
    once.lab("kill", gone)
    killed = time.time()
    for host in others:
        once.on(host, "rm /run/yearly.seconds")
    look(once, "yearly", others)
    time.sleep(40)
    assert said(once, "yearly", "begins", killed, others) == [], "it may still be at it, for all they know"
    time.sleep(22)
    look(once, "yearly", others)
    once.until(lambda: said(once, "yearly", "ends", killed, others), what="the run of another host")
    found = runs(once, killed + PERIOD, others)
    assert set(found.values()) == {1}, found
    assert len(found) >= 3, "the frequent one went on"
    once.lab("start", gone)
    once.until(lambda: once.get(gone, "/healthz").status_code == 200, 60)
    time.sleep(5)
    assert len(said(once, "yearly", "begins", killed)) == 1, "not again where the host has come back"


def test_a_database_that_is_away_is_told_and_delays_no_more_than_it_must(once: Fleet) -> None:
    once.on("od", "systemctl stop postgresql@15-main")
    stopped = time.time()
    time.sleep(45)  # the driver is tried again for some seconds
    told = [once.on(host, "cat /var/lib/shop/told 2>/dev/null || true") for host in HOSTS]
    assert said(once, "often", "begins", stopped + 3) == []
    assert any("often of shop failed on" in each for each in told)
    once.on("od", "systemctl start postgresql@15-main")
    started = time.time()
    once.until(lambda: len(said(once, "often", "begins", started)) >= 3, 90, what="the runs")
    found = runs(once, started + PERIOD)
    assert set(found.values()) == {1}, found


def test_one_is_kept_running_and_another_host_takes_over(once: Fleet) -> None:
    def running() -> list[str]:
        return [host for host in HOSTS if once.on(host, "pgrep -f '^python -m shop.job beat' || true")]

    first = once.until(lambda: running() if len(running()) == 1 else None, 90, what="one and no more")[0]
    unit = f"shop.beat@{live(once, first)}.service"
    once.on(first, f"systemctl stop {unit}")
    began = time.time()
    second = once.until(running, 20, what="another host")[0]
    assert second != first
    print(f"after a stop: {time.time() - began:.1f} s")
    once.on(first, f"systemctl start {unit}")
    once.lab("kill", second)
    began = time.time()
    others = [host for host in HOSTS if host != second]
    alive = once.until(
        lambda: [host for host in others if once.on(host, "pgrep -f '^python -m shop.job beat' || true")],
        90,
        what="another host",
    )
    assert len(alive) == 1
    print(f"after a power cut: {time.time() - began:.1f} s")
    assert time.time() - began > 45, "not while it may still be at it"
    once.lab("start", second)
    once.until(lambda: once.get(second, "/healthz").status_code == 200, 60)
    time.sleep(8)
    assert running() == alive


def test_a_host_with_an_older_release_leaves_it_to_the_others(once: Fleet) -> None:
    """One that was away when they got the newer one; not when none of them is left."""
    old, newer = "o3", ("o1", "o2")
    Path(once.variables["forge_source"], "shop", "version.py").write_text(f"VERSION = {time.time()}\n")
    once.play("deploy", limit=",".join(newer))
    assert live(once, old) != live(once, newer[0])
    began = each_is_made_once(once, 4)
    assert said(once, "often", "begins", began, (old,)) == []
    once.until(
        lambda: once.on(old, "pgrep -f '^python -m shop.job beat' || true") == "", what="the one that is kept running"
    )
    # None of them has looked for ten minutes.
    for host in newer:
        once.on(host, "systemctl stop shop")
    stopped = time.time()
    sql(once, "UPDATE thecodeforge_shop.processes SET looked = now() - interval '11 minutes'")
    once.until(lambda: said(once, "often", "ends", stopped + PERIOD, (old,)), 60, what="a run on the host that is left")
    began = time.time()
    for host in newer:
        once.on(host, "systemctl start shop")
    once.until(lambda: said(once, "often", "ends", began + PERIOD, newer), 60, what="a run with the newer release")
    Path(once.variables["forge_source"], "shop", "version.py").write_text(f"VERSION = {time.time()}\n")
    once.play("deploy")


def test_run_now(once: Fleet) -> None:
    began = time.time()
    run = once.play("run", process="yearly")
    (_moment, host) = said(once, "yearly", "begins", began)[0]
    assert len(said(once, "yearly", "ends", began)) == 1
    assert "yearly has begun" in run.output
    entry = json.loads(once.on(host, "tail -n 1 /srv/shop/ledger.jsonl"))
    assert (entry["action"], entry["result"], entry["to"]) == ("run yearly", "ended", live(once, host))

    began = time.time()
    once.play("run", process="everywhere")
    assert sorted(host for _moment, host in said(once, "everywhere", "ends", began)) == sorted(HOSTS)

    refused = once.play("run", check=False, process="nightly")
    assert refused.rc != 0
    assert (
        "Say which with -e process=NAME, and not nightly: those with a schedule are everywhere, often, yearly."
        in refused.said()
    )
    once.on("o1", "echo 4 > /run/yearly.status")
    failed = once.play("run", check=False, limit="o1", process="yearly")
    assert failed.rc != 0
    assert "o1: yearly failed: it ended with exit status 4." in failed.said()
    once.on("o1", f"rm /run/yearly.status; systemctl reset-failed shop.yearly@{live(once, 'o1')}.service")


def test_run_now_while_another_host_is_at_it(once: Fleet) -> None:
    once.on("o2", "echo 40 > /run/yearly.seconds")
    once.on("o2", f"touch /run/shop/{live(once, 'o2')}/now.yearly")
    began = time.time()
    once.on("o2", f"systemctl start --no-block shop.yearly@{live(once, 'o2')}.service")
    once.until(lambda: said(once, "yearly", "begins", began, ("o2",)), what="the run")
    run = once.play("run", check=False, limit="o1", process="yearly")
    assert run.rc != 0
    assert "o1: yearly was not run: another host is at it. It runs on o2 since " in run.said()
    again = once.play("run", check=False, limit="o2", process="yearly")
    assert "o2: yearly runs on this host already: wait for its end." in again.said()
    assert len(said(once, "yearly", "begins", began)) == 1
    once.on("o2", "rm /run/yearly.seconds")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"forge_environment": {}}, "no setting of the app is the URL of a PostgreSQL database"),
        (
            {"forge_environment": {"URL": "postgresql://nobody:hunter22-hunter22@127.0.0.1:1/x"}},
            "once: the hosts cannot agree on who runs it: ",
        ),
    ],
)
def test_hosts_that_cannot_agree_are_said_before_anything_is_changed(
    once: Fleet, change: dict[str, Any], sentence: str
) -> None:
    before = [live(once, host) for host in HOSTS]
    run = once.play("deploy", check=False, **change)
    assert run.rc != 0
    assert sentence in run.said()
    assert re.search(r"forge_processes: (often|yearly|beat): once: the hosts cannot agree", run.said())
    assert "hunter22" not in run.output
    assert [live(once, host) for host in HOSTS] == before


POOL = """
set -e
apt-get install -y -qq --no-install-recommends pgbouncer >/dev/null
cat > /etc/pgbouncer/pgbouncer.ini <<'INI'
[databases]
shop = host=127.0.0.1 port=5432 dbname=shop user=shop password={password}
[pgbouncer]
listen_addr = *
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = 2
ignore_startup_parameters = extra_float_digits
INI
systemctl restart pgbouncer
"""


def test_through_a_pool_of_transactions_and_with_another_driver(once: Fleet) -> None:
    """asyncpg prepares statements, which such a pool forgets, unless it is told not to."""
    environment = once.on("o1", f"cat /srv/shop/generations/{live(once, 'o1')}/environment")
    password = re.search(r"postgresql://shop:([^@]+)@", environment)
    assert password
    once.on("od", POOL.format(password=password[1]))
    write_project(Path(once.variables["forge_source"]), "gunicorn", "uvicorn-worker", "asyncpg", job=JOB)
    pooled = "{{ forge_database_url | replace(':5432/', ':6432/') }}"
    before = once.variables["forge_environment"]
    once.variables["forge_environment"] = {**before, "DATABASE_URL": pooled}
    try:
        once.play("deploy")
        each_is_made_once(once, 4)
        once.until(lambda: [host for host in HOSTS if once.on(host, "pgrep -f '^python -m shop.job beat' || true")], 90)
        clients = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND host(client_addr) <> '127.0.0.1'"
        assert sql(once, clients) == "0", "all through the pool"
    finally:
        once.variables["forge_environment"] = before
