# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock that the app's database holds: the script runs as it is, with a driver that locks a file instead."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import database_session
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.database_lock import (
    DatabaseLocked,
    database_lock,
    variable_of_the_database,
)
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.transient import Transient

ID = "0123456789ab-01234567"
DRIVER = """
import fcntl, os
class Cursor:
    description = ["one"]
    def __init__(self, lock):
        self.lock = lock
    def execute(self, statement):
        if "try_advisory" in statement:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.row = (True,)
            except OSError:
                self.row = (False,)
        else:
            self.row = ("192.0.2.7 has been at it",)
    def fetchone(self):
        return self.row
class Connection:
    def __init__(self, url):
        self.lock = open(url.rpartition("@")[2], "w")
    def cursor(self):
        return Cursor(self.lock)
def connect(url, connect_timeout):
    assert url.startswith("postgresql://")
    if "down" in url:
        raise OSError("connection refused for hunter22-hunter22\\nmore")
    if "pool" in url and os.environ.get("PGOPTIONS"):
        raise OSError("unsupported startup parameter: options")
    return Connection(url)
"""
RUN = """\
#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One generation of an app with psycopg; ``transient(setting)`` gives it a setting."""
    programs, drivers = tmp_path / "bin", tmp_path / "drivers"
    programs.mkdir()
    drivers.mkdir()
    (programs / "systemd-run").write_text(RUN)
    (programs / "systemd-run").chmod(0o755)
    # As if this machine had no driver of its own.
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (programs / "python").chmod(0o755)
    (drivers / "psycopg.py").write_text(DRIVER)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(drivers))
    layout = Layout(str(tmp_path / "srv"), "forge")
    home = Path(layout.generation(ID))
    (home / "units").mkdir(parents=True)
    (home / "units" / layout.service(ID)).write_text("[Service]\nUser=forge\n")

    def transient(**settings: str) -> Transient:
        (home / "environment").write_text("".join(f'{name}="{value}"\n' for name, value in settings.items()))
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        return Transient(layout, ID)

    return SimpleNamespace(transient=transient, url=f"postgresql+asyncpg://u:p@{tmp_path}/lock", drivers=drivers)


def test_two_exclude_each_other_for_as_long_as_the_first_has_not_ended(host: Any) -> None:
    transient = host.transient(NAME="shop", SHOP_DATABASE_URL=host.url)
    with database_lock(transient, wait=0, seconds=60) as held:
        assert held.problem == ""
        with (
            pytest.raises(DatabaseLocked, match=r"^192\.0\.2\.7 has been at it$"),
            database_lock(transient, wait=1, seconds=60),
        ):
            raise AssertionError
    with database_lock(transient, wait=0, seconds=60) as held:
        assert held.problem == ""


def test_the_lock_is_given_back_when_the_migration_fails(host: Any) -> None:
    transient = host.transient(URL=host.url)
    with pytest.raises(KeyError), database_lock(transient, wait=0, seconds=60):
        raise KeyError
    with database_lock(transient, wait=0, seconds=60) as held:
        assert held.problem == ""


def test_what_keeps_the_database_from_holding_one_is_said_and_no_more(host: Any) -> None:
    down = host.transient(FORGE_SECRET_KEY="hunter22-hunter22", URL=f"{host.url}-down")
    with database_lock(down, wait=0, seconds=60) as held:
        assert held.problem.startswith("No lock in the database of URL: connection refused for ")
        assert "hunter22" not in held.problem
    os.unlink(host.drivers / "psycopg.py")
    with database_lock(host.transient(URL=host.url), wait=0, seconds=60) as held:
        assert held.problem.endswith("the app has none of the drivers psycopg, psycopg2, asyncpg")


def test_an_app_without_such_a_database_needs_none(host: Any) -> None:
    transient = host.transient(URL="sqlite:////tmp/x.db", POSTGRES_HOST="db")
    assert variable_of_the_database(transient) == ""
    with database_lock(transient, wait=0, seconds=60) as held:
        assert held.problem == ""


def test_it_is_tried_until_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_session, "PAUSE", 0)
    answers = iter([None, False, False, True])
    assert database_session.take(lambda _statement: next(answers), 60) == {"held": True}


@pytest.mark.parametrize(
    ("database", "before", "options"),
    [
        ("a", "", "-c lock_timeout=10s"),
        ("a", "-c work_mem=1MB", "-c work_mem=1MB -c lock_timeout=10s"),
        ("pool", "", ""),  # a PgBouncer refuses a session with options
    ],
)
def test_sessions_give_up_waiting_for_a_lock_where_they_can_have_options(
    host: Any, monkeypatch: pytest.MonkeyPatch, database: str, before: str, options: str
) -> None:
    monkeypatch.setenv("PGOPTIONS", before)
    transient = host.transient(URL=host.url.replace("@", f"@{database}@"))
    with database_lock(transient, wait=0, seconds=60, lock_timeout=10) as held:
        assert held == ("", options)


def test_with_asyncpg_nothing_waits_for_a_snapshot_of_the_lock() -> None:
    """What is asked in its way leaves a portal with a snapshot, until a simple query: CREATE INDEX CONCURRENTLY would wait for ever."""
    said: list[str] = []

    class Connection:
        async def fetchval(self, statement: str) -> int:
            said.append(statement)
            return 7

        async def execute(self, _statement: str) -> None:
            said.append("a simple query")

    async def connect(_url: str, timeout: int, statement_cache_size: int) -> Connection:
        assert (timeout > 0, statement_cache_size) == (True, 0)
        return Connection()

    ask = database_session.with_asyncpg(SimpleNamespace(connect=connect), "postgresql://u:p@192.0.2.7/shop")
    assert ask("SELECT 7") == 7
    assert said == ["SELECT 7", "a simple query"]
