# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database server with a life of its own: several apps, and an admin. Each keeps its data, password, rules and settings.

The role is used alone where no app is needed: a second one on the server of the fleet, whose app serves meanwhile.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import REPOSITORY, Fleet, Run
from tiny import MAIN, load, write_project

CONFIGURATION = "/etc/postgresql/15/main"
RULES = f"{CONFIGURATION}/pg_hba.conf"
ADMIN = f"{CONFIGURATION}/conf.d/zz-admin.conf"
EARLIER = "# Written by thecodeforge.fastapi.postgresql: changes by hand are replaced."
PLAY = """
- hosts: forge_database
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: thecodeforge.fastapi.postgresql
"""
MARKED = "Managed by thecodeforge.fastapi for app {}"
SERVERS = ("gunicorn", "uvicorn", "uvicorn-worker")


WHAT_RUNS = "SELECT wait_event FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


class Server:
    """The database server of the fleet."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet, self.directory = fleet, directory
        (directory / "play.yml").write_text(PLAY)

    def provide(self, app: str, *flags: str, check: bool = True, **variables: Any) -> Run:
        """Use the role for an app."""
        given = {"forge_postgresql_clients": ["192.0.2.7"], "forge_database_password_file": str(self.directory / app)}
        values = json.dumps({"forge_app": app, **given, **variables})
        done = subprocess.run(
            ["ansible-playbook", "-i", "inventories/lab", *flags, "-e", values, str(self.directory / "play.yml")],
            cwd=REPOSITORY, env={**os.environ, "FORGE_LAB_SET": self.fleet.lab_set, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        run = Run(done.returncode, done.stdout + done.stderr, 0)
        assert not check or run.rc == 0, run.output[-5000:]
        return run

    def ask(self, query: str, database: str = "postgres") -> str:
        return self.fleet.on("db", f'cd / && runuser -u postgres -- psql -XAtqd {database} -c "{query}"')

    def started(self) -> str:
        return self.ask("SELECT pg_postmaster_start_time()")

    def restart(self) -> str:
        self.fleet.on("db", "systemctl restart postgresql@15-main")
        return self.started()

    def text(self, path: str) -> str:
        return self.fleet.on("db", f"cat {path}")

    def state(self) -> str:
        """All that a run could change on the server."""
        return self.fleet.on("db", f"cat {RULES} {CONFIGURATION}/conf.d/* {CONFIGURATION}/postgresql.conf") + self.ask(
            "SELECT rolname, rolpassword, rolsuper, rolcreatedb, shobj_description(oid, 'pg_authid') FROM pg_authid"
        )

    def lets_in(self, app: str) -> bool:
        password = (self.directory / app).read_text().split()[0]
        name = app.replace("-", "_")
        url = f"postgresql://{name}:{password}@127.0.0.1/{name}"
        return self.fleet.on("db", f"psql -XAtqc 'SELECT 7' {url}", check=False) == "7"


@pytest.fixture(scope="module")
def server(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Server:
    fleet.play("site")  # nodes that other tests have started anew have other addresses
    return Server(fleet, tmp_path_factory.mktemp("database"))


@contextmanager
def reading(fleet: Fleet) -> Iterator[dict[str, int]]:
    """The app of the fleet is asked for rows while the block runs; afterwards the mapping says what became of it."""
    result, stop = {"asked": 0, "lost": 0}, threading.Event()
    address = fleet.url("app12", "/parts")

    def ask() -> None:
        with httpx.Client(timeout=10) as client:
            while not stop.wait(0.02):
                result["asked"] += 1
                try:
                    result["lost"] += client.get(address).status_code != 200
                except httpx.HTTPError:
                    result["lost"] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield result
    finally:
        stop.set()
        thread.join()


def small_app(name: str, port: str, directory: Path, main: str = MAIN) -> dict[str, Any]:
    """Variables of an app that asks for a database of its own."""
    return {
        "forge_app": name,
        "forge_source": str(write_project(directory / name, *SERVERS, main=main)),
        "forge_target": "shop.main:app",
        "forge_listen": [port],
        "forge_workers": 1,
        "forge_migrations": [],
        "forge_schema_version": "",
        "forge_preload": [],
        "forge_environment": {"DATABASE_URL": "{{ forge_database_url }}"},
        "forge_database_password_file": str(directory / "password"),
        "forge_postgresql_clients": ["192.0.2.7"],
    }


@contextmanager
def connected(fleet: Fleet, database: str, first: str = "") -> Iterator[None]:
    """A person is connected to a database while the block runs.

    :param first: what the transaction begins with.
    """
    query = f"{first} SELECT pg_sleep(600)"
    fleet.on("db", f"cd / && systemd-run --quiet --unit=person --uid=postgres psql -d {database} -c '{query}'")
    try:
        yield
    finally:
        fleet.on("db", "systemctl stop person")
        # The server would only notice after the sleep that psql has gone.
        ends = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query ~ '^.*pg_sleep.600.$'"
        fleet.on("db", f'cd / && runuser -u postgres -- psql -XAtqc "{ends}"')


def test_apps_and_an_admin_share_a_server_in_any_order(fleet: Fleet, server: Server) -> None:
    """The admin's rules stay byte for byte, a setting that suffices is left alone, and nothing is restarted."""
    fleet.on(
        "db",
        f"printf 'host  replication   repl 192.0.2.7/32\\tscram-sha-256 # caf\\351\\nlocal letters all md5\\n' > /tmp/rules; "
        f"cat {RULES} >> /tmp/rules; printf 'host all all 203.0.113.0/24 reject\\n' >> /tmp/rules; cat /tmp/rules > {RULES}; "
        f"echo 'max_connections = 300' > {ADMIN}",
    )
    started = server.restart()
    with reading(fleet) as result:
        server.provide("shop", "--diff", forge_postgresql_max_connections=200)
        server.provide("my-api", forge_postgresql_max_connections=120)
        fleet.on("db", f"sed '/^# BEGIN .* app \\(shop\\|my-api\\)$/,/^# END /d' {RULES} > /tmp/foreign")
        assert fleet.on("db", "cmp /tmp/rules /tmp/foreign && echo same") == "same", "byte for byte, in their order"
        fleet.on("db", f"sed -i 's/ # caf.*//' {RULES}; systemctl reload postgresql@15-main")
        shown = server.provide("shop", "--check", "--diff", forge_postgresql_clients=["192.0.2.8"])
        assert '+host "shop" "shop" 192.0.2.8/32 scram-sha-256' in shown.output
        for app, connections in (("my-api", 120), ("shop", 200)):
            assert server.provide(app, forge_postgresql_max_connections=connections).changed("db") == 0
        assert fleet.play("site").changed("db") == 0
    assert server.started() == started
    assert result["lost"] == 0
    assert result["asked"] > 100
    assert server.lets_in("shop")
    assert server.lets_in("my-api")
    for name in ("shop", "my_api"):
        comment = MARKED.format(name.replace("_", "-"))
        assert server.ask(f"SELECT shobj_description('{name}'::regrole, 'pg_authid')") == comment
        assert (
            server.ask(f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname='{name}'")
            == comment
        )


def test_a_server_is_restarted_once_and_only_when_that_helps(server: Server) -> None:
    started = server.started()
    asked = server.provide("shop", forge_postgresql_max_connections=400)
    assert f"max_connections is 300 by {ADMIN}:1, which overrides ours, and the apps there need 400" in asked.said()
    assert server.started() == started
    assert server.provide("shop", forge_postgresql_max_connections=400).changed("db") == 0

    server.fleet.on("db", f"rm {ADMIN}")
    raised = server.provide("shop", forge_postgresql_max_connections=320)
    assert raised.changed("db") == 2, "its file, and a restart: 300 of the admin's still ran"
    assert server.ask("SHOW max_connections") == "320"
    started = server.started()
    server.provide("my-api", forge_postgresql_max_connections=150)
    assert (server.ask("SHOW max_connections"), server.started()) == ("320", started)


def test_what_is_somebody_elses_is_refused_or_taken_over_on_purpose(fleet: Fleet, server: Server) -> None:
    server.ask("CREATE ROLE crm LOGIN CREATEDB PASSWORD 'theirs'")
    server.ask("CREATE DATABASE crm OWNER crm")
    before = server.state()
    sentence = "The database crm on db was not made by this collection: set forge_database_name to a name that is the app's own"
    for run in (
        fleet.play("check", check=False, forge_app="crm", forge_listen=["8078"]),
        server.provide("crm", check=False),
    ):
        assert run.rc == 2
        assert sentence in run.said()
        assert "Nothing was changed." in run.said()
    elsewhere = str(server.directory / "elsewhere")
    lost = server.provide("shop", check=False, forge_database_password_file=elsewhere)
    assert "The role shop on db has a password that this controller does not know" in lost.said()
    assert not Path(elsewhere).exists(), "none is made"
    assert server.state() == before
    server.provide("crm", forge_take_over=["database"], forge_database_password="theirs")
    assert "Managed by thecodeforge.fastapi for app crm" in server.state()
    assert server.ask("SELECT rolcreatedb FROM pg_roles WHERE rolname='crm'") == "t"


@pytest.mark.thorough
def test_two_controllers_that_install_an_app_at_once_do_not_mix_their_passwords(
    fleet: Fleet, server: Server, tmp_path: Path
) -> None:
    """One of them makes the role; the other one is refused, then and later, and the app serves."""
    settings = small_app("twins", "8075", tmp_path)
    with ThreadPoolExecutor() as pool:
        runs = list(
            pool.map(
                lambda number: fleet.play(
                    "site",
                    check=False,
                    limit="app12,db",
                    **{**settings, "forge_database_password_file": str(tmp_path / number)},
                ),
                "12",
            )
        )
    first = next(index for index, run in enumerate(runs) if run.rc == 0)
    # Which one depends on how far the other one had come when it was checked.
    sentence = "The role twins on db has (another password than this controller|a password that this controller does not know):"
    assert re.search(sentence, runs[1 - first].said())
    files = {"forge_database_password_file": str(tmp_path / "21"[first])}
    assert re.search(sentence, fleet.play("site", check=False, limit="app12,db", **{**settings, **files}).said())
    (server.directory / "twins").write_text((tmp_path / "12"[first]).read_text())
    assert server.lets_in("twins")
    assert httpx.get(f"http://{fleet.address('app12')}:8075/healthz").status_code == 200


def test_a_rule_that_keeps_the_app_out_is_named_before_anything_is_changed(server: Server) -> None:
    server.fleet.on("db", f"cp {RULES} /tmp/kept; (echo 'host all all 192.0.2.0/24 reject'; cat /tmp/kept) > {RULES}")
    before = server.state()
    shut = server.provide("late", check=False)
    assert f"On db {RULES}:1 (host … reject) keeps 192.0.2.7/32 from the database late" in shut.said()
    assert server.state() == before
    server.fleet.on("db", f"cat /tmp/kept > {RULES}")


@pytest.mark.thorough
def test_what_an_earlier_version_made_is_carried_over(fleet: Fleet, server: Server) -> None:
    """The whole file was written then, without marks; database and role have no comment."""
    server.ask("CREATE ROLE elder LOGIN PASSWORD 'old'")
    server.ask("CREATE DATABASE elder OWNER elder")
    server.fleet.on(
        "db",
        f"printf 'host\\telder\\telder\\t192.0.2.7/32\\tscram-sha-256\\nhost\\telder\\telder\\t192.0.2.8/32\\tscram-sha-256\\n'"
        f" >> {RULES}; printf '%s\\nport = 5432\\nmax_connections = 100\\n' '{EARLIER}' > {CONFIGURATION}/conf.d/elder.conf",
    )
    others = server.text(RULES).split("host\telder")[0]
    started = server.started()
    names = {"forge_database_name": "elder", "forge_database_user": "elder", "forge_database_password": "old"}
    server.provide("elder", **names)
    assert server.text(RULES).startswith(others.rstrip())
    assert "host\telder" not in server.text(RULES)
    assert 'host "elder" "elder" 192.0.2.7/32 scram-sha-256' in server.text(RULES)
    assert server.ask("SELECT shobj_description('elder'::regrole, 'pg_authid')").endswith("for app elder")
    assert server.provide("elder", forge_database_password="old").changed("db") == 0

    # A second app of that version, which shares the database: neither order nor removal takes it away from the other.
    fleet.on("db", f"printf '%s\\n' '{EARLIER}' > {CONFIGURATION}/conf.d/younger.conf")
    wrong = server.provide("younger", check=False, **{**names, "forge_database_password": "new"})
    assert "The role elder on db has another password than this controller" in wrong.said()
    shared = server.provide("younger", **names)
    assert "The apps elder and younger share the database elder on db" in shared.said()
    assert server.provide("elder", **names).changed("db") == 0
    gone = fleet.play("remove", forge_app="elder", forge_remove="elder", forge_remove_data="elder")
    assert "the app younger uses it too" in gone.said()
    assert server.ask("SELECT shobj_description('elder'::regrole, 'pg_authid')").endswith("for app younger")
    assert server.provide("younger", **names).changed("db") == 0
    assert fleet.on("db", "psql -XAtqc 'SELECT 7' postgresql://elder:old@127.0.0.1/elder") == "7"
    assert server.started() == started


@pytest.mark.thorough
def test_an_app_that_fails_half_way_costs_the_others_nothing_and_gets_no_database_that_it_did_not_ask_for(
    fleet: Fleet, server: Server, tmp_path: Path
) -> None:
    """It imports on the controller, and not on the host: after the database was provided."""
    broken = MAIN + '\nif os.path.isdir("/srv/forge"):\n    raise ImportError("no such luck")\n'
    settings = small_app("broken", "8077", tmp_path, broken)
    asked_for = settings.pop("forge_environment")
    others, started = server.text(RULES), server.started()
    with reading(fleet) as result:
        alone = fleet.play("site", check=False, limit="app12,db", forge_environment={"A": "b"}, **settings)
        assert "no such luck" in alone.said()
        assert server.ask("SELECT count(*) FROM pg_database WHERE datname='broken'") == "0"
        assert server.text(RULES) == others
        run = fleet.play("site", check=False, limit="app12,db", forge_environment=asked_for, **settings)
        assert "no such luck" in run.said()
    assert server.ask("SELECT count(*) FROM pg_database WHERE datname='broken'") == "1"
    assert server.text(RULES).startswith(others.rstrip())
    assert (result["lost"], server.started()) == (0, started)
    assert result["asked"] > 200


def test_a_migration_that_waits_for_a_lock_says_for_which_and_whose(fleet: Fleet, server: Server) -> None:
    server.ask("CREATE TABLE busy (number int); ALTER TABLE busy OWNER TO forge", "forge")
    locks = "psycopg.connect(os.environ['FORGE_DATABASE_URL']).execute('LOCK TABLE busy')"
    command = f'python -c "import os, psycopg; print(1); {locks}"'
    with connected(fleet, "forge", "LOCK TABLE busy;"), reading(fleet) as result:
        run = fleet.play("deploy", check=False, limit="app12,db", forge_migrations=[command], forge_migrations_timeout=4,
                         forge_keepalive=71)  # fmt: skip
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'forge' AND query ~ '^LOCK TABLE'"
        fleet.until(lambda: server.ask(waiting) == "0", 15, "the end of the killed migration in the database")
    assert "it did not end within 4 s and was stopped; the last line that it printed is: 1." in run.said()
    assert re.search(
        r"On db forge waits for a lock on busy, which process \d+ of postgres holds \(active since .*, psql\)",
        run.said(),
    )
    assert result["lost"] == 0
    server.ask("DROP TABLE busy", "forge")


def test_an_app_comes_changes_and_goes_beside_another_that_serves(fleet: Fleet, server: Server, tmp_path: Path) -> None:
    """Installed, given other settings and rules, listed, and removed: access first, its data when told twice."""
    settings = small_app("books", "8076", tmp_path)
    told = {"forge_remove": "books", "forge_remove_data": "books"}
    fleet.play("site")  # the tests before may have changed what the apps on the server need together
    others, started = server.text(RULES).rstrip(), server.started()

    def remove(*flags: str, check: bool = True, **more: Any) -> Run:
        return fleet.play("remove", check=check, limit="app12,db", flags=flags, **{**settings, **more})

    with load(fleet.url("app12", "")) as result:
        fleet.play("site", limit="app12,db", **settings)
        settings["forge_postgresql_clients"] = ["192.0.2.7", "192.0.2.8"]
        fleet.play("site", limit="app12,db", **settings, forge_postgresql_max_connections=110)
        assert 'host "books" "books" 192.0.2.8/32 scram-sha-256' in server.text(RULES)
        server.ask("CREATE TABLE page (text text); INSERT INTO page VALUES ('kept')", "books")
        server.ask("CREATE DATABASE ledger OWNER books")

        before = server.state()
        for listed in (remove(check=False), remove("--check", **told)):
            for what in ("rules", "database", "role", f"{CONFIGURATION}/conf.d/books.conf"):
                assert what in listed.output
        assert "would be removed" in listed.output
        assert server.state() == before

        access = remove(forge_remove="books")
        assert "data: it goes when forge_remove_data names the app too" in access.said()
        assert server.text(RULES).rstrip() == others
        assert "books.conf" not in fleet.on("db", f"ls {CONFIGURATION}/conf.d")
        assert server.ask("SELECT text FROM page", "books") == "kept"

        with connected(fleet, "books"):
            busy = remove(**told)
        assert "it has open connections: 1 of postgres from the server itself with psql" in busy.said()
        assert "it owns the database books" in busy.said()
        assert server.ask("SELECT text FROM page", "books") == "kept"
        whose = remove(**told)
        assert "it owns the database ledger" in whose.said()
        assert (
            server.ask("SELECT string_agg(datname, ' ') FROM pg_database WHERE datname IN ('books', 'ledger')")
            == "ledger"
        )
        server.ask("DROP DATABASE ledger")
        remove(**told)
        assert server.ask("SELECT count(*) FROM pg_roles WHERE rolname='books'") == "0"
        assert remove(**told).changed("db") == 0

        server.ask("CREATE DATABASE books")
        assert "it does not carry the mark of this app" in remove(**told).said()
        server.ask(f"COMMENT ON DATABASE books IS '{MARKED.format('my-api')}'")
        assert "it belongs to the app my-api" in remove(**told).said()
        assert server.ask("SELECT count(*) FROM pg_database WHERE datname='books'") == "1"
        server.ask("DROP DATABASE books")
    assert (result["lost"], server.started()) == ({}, started)
    assert result["total"] > 1000
    assert fleet.play("site", flags=("--diff",)).changed("db") == 0, (
        "the other's data, password and rules are as they were"
    )
