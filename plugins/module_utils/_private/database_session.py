# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the app's PostgreSQL database, and holds a lock of it. For the app's own Python, which has a driver for it; as a script:
``python -c SCRIPT VARIABLE SECONDS LOCK_TIMEOUT``, where VARIABLE is the environment variable with the URL.

Prints one JSON object: ``held``, and with which ``options`` (the variable PGOPTIONS of libpq) a session waits no longer than LOCK_TIMEOUT
seconds for a lock, empty where sessions cannot have options, as behind a pool; or who ``holds`` it, when that one keeps it for so many
seconds; or the ``problem``, why nobody could be asked. Keeps the lock until its standard input ends.

``python -c SCRIPT VARIABLE watch`` prints one JSON object when it looks on, and when its standard input ends another, ``locks``: for each
table and mode the most seconds in a row for which another session held it.

The lock is one of a transaction, which a connection pool between the app and the database leaves to this client. It keeps no
snapshot, so neither VACUUM nor CREATE INDEX CONCURRENTLY waits for it. Source: PostgreSQL, "Advisory Locks"; PgBouncer, "Features".
"""

from __future__ import annotations

import importlib
import json
import os
import re
import select
import sys
import time
from collections.abc import Callable
from typing import Any

KEY = 171229081  # crc32 of "thecodeforge.fastapi: migrations", 31 bits
PAUSE = 0.5  # seconds
CONNECT_SECONDS = 10
WHO = f"""
    SELECT CASE WHEN xact_start IS NULL THEN format('a session of the role %s', usename) -- which shows no more to others
        ELSE format('%s has been at it since %s', coalesce(host(client_addr), 'the host of the database'),
                    to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC')) END
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = {KEY} AND pg_locks.database = (
        SELECT oid FROM pg_database WHERE datname = current_database()
    )
"""  # noqa: S608 (no input)

LOOK = 0.05  # seconds between two looks at the locks
# Modes behind which what the app asks waits: all of it behind the last one, what writes behind the others. A table that the same
# transaction has made is not there for anybody else, so it is not among them. Source: PostgreSQL, "Explicit Locking"
HELD = """
    SELECT coalesce(json_agg(DISTINCT jsonb_build_array(format('%I.%I', nspname, relname), mode)), '[]')::text
    FROM pg_locks JOIN pg_class ON pg_class.oid = relation JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE granted AND pid <> pg_backend_pid() AND relkind IN ('r', 'p', 'm') AND nspname NOT IN ('pg_catalog', 'pg_toast')
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""

Ask = Callable[[str], Any]  # runs a statement, and returns the first value of a row


def with_libpq(driver: Any, url: str) -> Ask:
    """For psycopg and psycopg2."""
    connection = driver.connect(url, connect_timeout=CONNECT_SECONDS)
    connection.autocommit = True
    if hasattr(connection, "prepare_threshold"):
        connection.prepare_threshold = None  # for a pool, as below

    def ask(statement: str) -> Any:
        cursor = connection.cursor()
        cursor.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    return ask


def with_asyncpg(driver: Any, url: str) -> Ask:
    import asyncio

    loop = asyncio.new_event_loop()
    # Statements that are prepared do not get through a pool of transactions.
    connection = loop.run_until_complete(driver.connect(url, timeout=CONNECT_SECONDS, statement_cache_size=0))

    def ask(statement: str) -> Any:
        value = loop.run_until_complete(connection.fetchval(statement))
        # What it has asked keeps a snapshot, in a transaction until the next simple query; CREATE INDEX CONCURRENTLY waits for that.
        loop.run_until_complete(connection.execute("SELECT 1"))
        return value

    return ask


DRIVERS = {"psycopg": with_libpq, "psycopg2": with_libpq, "asyncpg": with_asyncpg}


def connect(url: str, options: str = "") -> tuple[Ask, str]:
    """Connect with the first driver that the app has.

    :param options: for the session, where it can have any.
    :returns: what asks it, and its options.
    :raises LookupError: when it has none.
    """
    url = re.sub(r"^postgres(ql)?(\+\w+)?:", "postgresql:", url)
    for name, use in DRIVERS.items():
        try:
            driver = importlib.import_module(name)
        except ImportError:
            continue
        if options and use is with_libpq:
            before = os.environ.get("PGOPTIONS", "")
            os.environ["PGOPTIONS"] = f"{before} {options}".strip()
            try:
                return use(driver, url), os.environ["PGOPTIONS"]
            except Exception:  # so does whatever else is wrong when it is tried again
                os.environ["PGOPTIONS"] = before
        return use(driver, url), ""
    raise LookupError(f"the app has none of the drivers {', '.join(DRIVERS)}")


def take(ask: Ask, seconds: float) -> dict[str, Any]:
    """Wait for the lock, and return what is to be printed."""
    ask("SET LOCAL idle_in_transaction_session_timeout = 0")
    deadline = time.monotonic() + seconds
    while not ask(f"SELECT pg_try_advisory_xact_lock({KEY})"):
        if time.monotonic() >= deadline:
            return {"holds": ask(WHO) or "another client"}
        time.sleep(PAUSE)
    return {"held": True}


def watch_locks(ask: Ask) -> dict[str, Any]:
    """Look at the locks of others until the standard input ends, and return what is to be printed."""
    began: dict[tuple[str, str], float] = {}
    longest: dict[tuple[str, str], float] = {}
    ends = False
    while not ends:
        ends = bool(select.select([sys.stdin], [], [], LOOK)[0])
        now, held = time.monotonic(), {tuple(each) for each in json.loads(ask(HELD))}
        began = {each: began.get(each, now) for each in held}
        for each, since in began.items():
            longest[each] = max(longest.get(each, 0.0), now - since + LOOK)
    return {
        "locks": [
            {"table": table, "mode": mode, "seconds": round(each, 2)} for (table, mode), each in sorted(longest.items())
        ]
    }


def main(variable: str, seconds: str, lock_timeout: str = "0") -> None:
    if seconds == "watch":
        try:
            ask, _options = connect(os.environ[variable])
            answer: dict[str, Any] = {"watches": True}
        except Exception as error:
            answer = {"problem": (str(error).strip().splitlines() or [type(error).__name__])[0]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        if "watches" in answer:
            sys.stdout.write(json.dumps(watch_locks(ask)) + "\n")
        return
    options = f"-c lock_timeout={int(lock_timeout)}s" if int(lock_timeout) else ""
    try:
        ask, options = connect(os.environ[variable], options)  # kept: the connection goes with it
        ask("BEGIN")
        answer = take(ask, float(seconds))
        if "held" in answer:
            answer["options"] = options
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        answer = {"problem": lines[0]}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    if "held" in answer:
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
