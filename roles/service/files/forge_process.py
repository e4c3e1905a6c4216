# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one of forge_processes on one host of the fleet at a time, and tells somebody when it fails. For the app's own Python.

- ``python -m forge_process scheduled APP PROCESS SCHEDULE -- COMMAND``: run the command, when it is due and no host has run it.
- ``python -m forge_process kept APP PROCESS -- COMMAND``: wait until no other host runs it, and run it.
- either with ``--check`` in place of the command: make what the hosts agree by, or say why that cannot be; with ``--last``: say how its
  last run went, when it did not go well.
- ``python -m forge_process tell APP PROCESS WHOM``, as ``ExecStopPost=``: when the unit has failed, call an address with it or run
  a command, to which FORGE_FAILURE says it.

The hosts agree by a row of the app's PostgreSQL database, in a schema of its own. Who runs a process says there every few seconds
that it is still at it. When that ends, as with a host that is gone, another one takes over; and one that cannot say it any longer
ends its process before that. A host with an older release, as it was away when the others got the newer one, leaves the process to
them, as long as one of them looks for it. Times are those of the database, but for when a process is due, which is systemd's on each
host, and since when a release is live there.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from typing import Any

import forge_notice as notice
from forge_database import Ask, connect
from forge_database_url import postgresql_url

try:
    from forge_credentials import BEFORE
except ImportError:  # the settings are in a file
    BEFORE = {}

BEAT = 10.0  # seconds between two signs of life
END, KILL, LEASE = 40.0, 50.0, 60.0  # seconds since the last one: end the process; kill it; another host may take over
WAIT = 5.0  # seconds between two tries to take over a process that is kept running
LOOK = 300  # seconds between two looks for a run that was missed, as in generation_units
GONE = 2 * LOOK  # seconds after which no host with the newer release is taken to be left
TRIES = 3  # of one run, whose hosts go away before it has ended
PATIENCE = 30.0  # seconds for which the database is tried again
NOT_RUN = 75  # exit status, EX_TEMPFAIL of sysexits(3): somebody else is at it
OLDER = "a host with a newer release runs it"
ASKED = 10.0  # seconds for which a request to run now holds
SHORTEST = 4  # characters of a part of a password: fewer would garble what is said, and tell nobody much
SPANS = (60, 3600, 86400, 32 * 86400, 366 * 86400, 5 * 366 * 86400)  # seconds back in which a schedule may have been due
ELAPSES = 60
ELAPSE = re.compile(r"^ *(?:Next elapse|Iter\. #\d+|Iteration #\d+|\(in UTC\)): \w+ ([\d-]{10} [\d:.]+) UTC$", re.MULTILINE)
STARTED = "to_char(started AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC')"


class CannotAgree(Exception):
    """Raised when there is no database by which the hosts agree; a sentence without its full stop."""


def last_due(schedule: str, now: float) -> str:
    """When a schedule was last due, in UTC; empty when that is longer ago than anybody remembers.

    :param schedule: as ``OnCalendar=``; systemd reads it, in the time zone of this host.
    """
    for span in SPANS:
        base, found = now - span, ""
        while True:
            argv = ["systemd-analyze", "calendar", f"--base-time=@{base:.6f}", f"--iterations={ELAPSES}", "--", schedule]
            shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
            elapses = [datetime.datetime.fromisoformat(f"{text}+00:00") for text in ELAPSE.findall(shown)]
            past = [each for each in elapses if each.timestamp() <= now]
            found = past[-1].isoformat() if past else found
            if not past or len(past) < len(elapses):
                break
            base = past[-1].timestamp()
        if found:
            return found
    return ""


def live_since() -> float:
    """When what is live on this host began to be that (seconds since the epoch)."""
    try:
        return os.lstat(os.environ.get("FORGE_WORKER_CURRENT", "")).st_mtime
    except OSError:
        return 0.0


def literal(value: str) -> str:
    return "'{}'".format(value.replace("'", "''"))


def without_password(sentence: str) -> str:
    """What a driver says of a URL that it cannot read may have a part of the password."""
    _name, url = postgresql_url(dict(os.environ))
    password = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    parts = [password, urllib.parse.unquote(password), *re.split("[/?#@:]", password)]
    for part in sorted((each for each in parts if len(each) >= SHORTEST), key=len, reverse=True):
        sentence = sentence.replace(part, "********")
    return sentence


class Row:
    """What the hosts agree by, of one process. ``run`` is this try of ours to run it."""

    def __init__(self, app: str, process: str) -> None:
        self.table = f'"thecodeforge_{app}".processes'
        self.process = literal(process)
        self.run = literal(str(uuid.uuid4()))
        self.host = literal(socket.gethostname())
        self.release = literal(os.environ.get("FORGE_WORKER_GENERATION", "").partition("-")[0])  # generations differ by host
        self.since = f"to_timestamp({live_since():.3f})"
        self._ask: Ask | None = None

    def ask(self, statement: str) -> Any:
        """Have a statement carried out; connects anew after one that failed."""
        if self._ask is None:
            variable, url = postgresql_url(dict(sorted(os.environ.items())))
            if not variable:
                raise CannotAgree("no setting of the app is the URL of a PostgreSQL database")
            self._ask, _options = connect(url)
        try:
            return self._ask(statement)
        except Exception:
            self._ask = None
            raise

    def let_go(self) -> None:
        """Connect anew for the next statement."""
        self._ask = None

    def ask_again(self, statement: str, seconds: float = PATIENCE) -> Any:
        """Likewise, and try again for some seconds.

        :raises CannotAgree: with what the database, or its driver, says.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.ask(statement)
            except (CannotAgree, LookupError) as error:  # no driver
                raise CannotAgree(str(error)) from None
            except Exception as error:
                if time.monotonic() >= deadline:
                    lines = str(error).strip().splitlines() or [type(error).__name__]
                    raise CannotAgree(without_password(lines[0])) from None
                time.sleep(1)

    def make(self, schedule: str, seconds: float = PATIENCE, changes: bool = False) -> None:
        """Have the row, from now on: what was due before is not missed.

        :param changes: whether another schedule begins anew.
        """
        exists = f"SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass({literal(self.table)}) AND attname = 'looked'"
        if not self.ask_again(exists, seconds):
            schema = self.table.rpartition(".")[0]
            with contextlib.suppress(CannotAgree):  # another host makes it at the same time; else the next statement says why
                self.ask_again(f"CREATE SCHEMA IF NOT EXISTS {schema}", 0)
            self.ask_again(
                f"CREATE TABLE IF NOT EXISTS {self.table} (process text PRIMARY KEY, schedule text NOT NULL, due timestamptz NOT NULL, "
                "tries int NOT NULL, host text, run text, started timestamptz, seen timestamptz, ended timestamptz, result text)",
                3,
            )
            newer = ("release text", "since timestamptz", "looked timestamptz")  # than a table that is there already may be
            self.ask_again(f"ALTER TABLE {self.table} {', '.join(f'ADD COLUMN IF NOT EXISTS {each}' for each in newer)}", 3)
        meets = "UPDATE SET schedule = excluded.schedule, due = now() WHERE processes.schedule <> excluded.schedule"
        self.ask_again(
            f"INSERT INTO {self.table} (process, schedule, due, tries, ended) "
            f"VALUES ({self.process}, {literal(schedule)}, now(), 0, now()) "
            f"ON CONFLICT (process) DO {meets if changes else 'NOTHING'}"
        )

    def look(self) -> bool:
        """Say which release is live here, and return whether no other host has a newer one, and looks for the process."""
        is_news = f"(release IS DISTINCT FROM {self.release} OR looked < now() - interval '{LEASE:.0f} seconds')"
        self.ask_again(
            f"UPDATE {self.table} SET since = CASE WHEN release = {self.release} THEN greatest(since, {self.since}) "
            f"ELSE {self.since} END, release = {self.release}, looked = now() "
            f"WHERE process = {self.process} AND {self.newest()} AND {is_news}"
        )
        return bool(self.ask_again(f"SELECT 1 FROM {self.table} WHERE process = {self.process} AND {self.newest()}"))

    def newest(self) -> str:
        return (
            f"(release IS NULL OR release = {self.release} OR since <= {self.since} "
            f"OR looked < now() - interval '{GONE} seconds')"
        )

    def is_newest(self) -> bool:
        return bool(self.ask(f"SELECT 1 FROM {self.table} WHERE process = {self.process} AND {self.newest()}"))

    def take(self, due: str = "", now: bool = False) -> bool:
        """Begin a run, unless another host is at it, or has run what is due.

        :param due: when it was due, in UTC; empty for a process that is kept running.
        :param now: whether it is to run due or not.
        """
        moment = f"{literal(due)}::timestamptz" if due else "now()"
        is_due = f"(due < {moment} OR (due = {moment} AND ended IS NULL AND tries < {TRIES}))"
        return bool(
            self.ask_again(
                f"UPDATE {self.table} SET due = greatest(due, {moment}), tries = CASE WHEN due = {moment} THEN tries + 1 ELSE 1 END, "
                f"host = {self.host}, run = {self.run}, started = now(), seen = now(), ended = NULL, result = NULL "
                f"WHERE process = {self.process} AND {self.free()} AND {is_due if due and not now else 'true'} RETURNING 1"
            )
        )

    def free(self) -> str:
        return f"(ended IS NOT NULL OR seen IS NULL OR seen < now() - interval '{LEASE:.0f} seconds')"

    def give_up(self, due: str) -> str:
        """End what was begun often and never ended; return where it was begun last, empty when there is nothing of the kind."""
        return (
            self.ask_again(
                f"UPDATE {self.table} SET ended = now(), result = 'given up' WHERE process = {self.process} AND {self.free()} "
                f"AND due = {literal(due)}::timestamptz AND ended IS NULL AND tries >= {TRIES} RETURNING host"
            )
            or ""
        )

    def runner(self) -> str:
        """Who runs it now, and since when; empty when nobody does."""
        found = f"SELECT format('%s since %s', host, {STARTED}) FROM {self.table} WHERE process = {self.process} AND NOT {self.free()}"
        return self.ask_again(found) or ""

    def is_ours(self) -> bool:
        """Say that we are still at it; false when another host has taken over."""
        looks = f"looked = CASE WHEN release = {self.release} THEN now() ELSE looked END"
        return bool(
            self.ask(f"UPDATE {self.table} SET seen = now(), {looks} WHERE process = {self.process} AND run = {self.run} RETURNING 1")
        )

    def end(self, result: str) -> None:
        """Say that the run is over. What was due meanwhile is not made up for, as systemd does not."""
        self.ask_again(
            f"UPDATE {self.table} SET ended = now(), due = greatest(due, now()), result = {literal(result)} "
            f"WHERE process = {self.process} AND run = {self.run}",
            LEASE,
        )

    def give_back(self) -> None:
        """Let another host, or another release, take over at once what was stopped here."""
        self.ask_again(
            f"UPDATE {self.table} SET seen = NULL, tries = greatest(tries - 1, 0) WHERE process = {self.process} AND run = {self.run}", 5
        )


class Lease(threading.Thread):
    """Says every few seconds that we are still at it, on a connection of its own: one that hangs holds up nothing else."""

    def __init__(self, row: Row, yields: bool) -> None:
        super().__init__(daemon=True)
        self.row, self.yields = copy.copy(row), yields
        self.row.let_go()
        self.seen = time.monotonic()
        self.taken_over = self.is_older = False

    def run(self) -> None:
        while not self.taken_over:
            time.sleep(BEAT)
            began = time.monotonic()
            with contextlib.suppress(Exception):  # it is tried again
                self.taken_over = not self.row.is_ours()
                self.is_older = self.yields and not self.row.is_newest()
                self.seen = began

    def problem(self) -> str:
        """Why the process must end; empty while it need not."""
        if self.taken_over:
            return "another host has taken it over"
        if self.is_older:
            return OLDER
        return f"the database was not to be reached for {END:.0f} s" if self.age() > END else ""

    def age(self) -> float:
        return time.monotonic() - self.seen


def start(words: list[str]) -> subprocess.Popen[bytes]:
    """Start a command, with variables before it; where settings are sealed it sets them itself."""
    starter = [sys.executable, "-m", "forge_credentials"] if BEFORE else ["/usr/bin/env", "--"]
    return subprocess.Popen([*starter, *words], env=BEFORE or None)


def run_leased(row: Row, words: list[str], due: str = "", yields: bool = False) -> int:
    """Run a command while the lease lasts; return the exit status for systemd.

    :param due: when it was due; the command is told so.
    :param yields: whether it is left to a newer release while it runs, as what is kept running; what has a schedule is finished.
    """
    row.let_go()  # it may be hours
    lease = Lease(row, yields)
    child = start([f"FORGE_DUE={due}", *words])
    stopped = []

    def stop(_signum: int, _frame: Any) -> None:
        stopped.append(True)
        child.terminate()

    signal.signal(signal.SIGTERM, stop)
    lease.start()
    problem = ""
    while True:
        try:
            status = child.wait(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            if not problem and lease.problem():
                problem = lease.problem()
                child.terminate()
            if lease.age() > KILL:
                child.kill()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what is to be said yet is not worth waiting for
    if problem:
        say(f"{shlex.join(words)} was ended: {problem}.")
        if problem == OLDER:
            with contextlib.suppress(CannotAgree):
                row.give_back()
        return int(problem != OLDER)
    status = status if status >= 0 else 128 - status
    try:
        if stopped and status:
            row.give_back()
            return 0
        row.end("succeeded" if not status else f"failed with exit status {status}")
    except CannotAgree as error:
        say(f"It has ended, which could not be written down, so it may be run again: {error}.")
    return status


def is_asked_for(process: str) -> bool:
    """Has an operator asked to run it now? By a file, as systemd passes nothing on to a unit."""
    path = os.path.join(os.environ.get("FORGE_WORKER_STATE", ""), f"now.{process}")
    with contextlib.suppress(OSError):
        return time.time() - os.stat(path).st_mtime < ASKED
    return False


def scheduled(app: str, process: str, schedule: str, words: list[str]) -> int:
    now, due = is_asked_for(process), last_due(schedule, time.time())
    row = Row(app, process)
    try:
        row.make(schedule)
        is_newest = row.look()
        if (now or (due and is_newest)) and row.take(due, now):
            return run_leased(row, words, due)
        if now:
            say(f"It runs on {row.runner() or 'another host'}.")
            return NOT_RUN
        where = due and row.give_up(due)
    except CannotAgree as error:
        say(f"Not run, as the hosts cannot agree on who runs it: {error}.")
        late = time.time() - datetime.datetime.fromisoformat(due).timestamp() if due else LOOK
        return 1 if now or late < LOOK else 0  # a look for what was missed is no failure
    if where:
        say(f"It was begun {TRIES} times and has never ended, the last time on {where}: given up.")
    return 1 if where else 0


def kept(app: str, process: str, words: list[str]) -> int:
    row, told = Row(app, process), ""
    while True:
        try:
            row.make("", 0)
            is_newest = row.look()
            if is_newest and row.take():
                break
            seen = f"It runs on {row.runner() or 'another host'}: this one stands by." if is_newest else f"It waits: {OLDER}."
        except CannotAgree as error:
            seen = f"It waits, as the hosts cannot agree on who runs it: {error}."
        if seen != told:
            say(seen)
            told = seen
        time.sleep(WAIT)
    return run_leased(row, words, yields=True)


def check(app: str, process: str, schedule: str) -> int:
    try:
        Row(app, process).make(schedule, seconds=10, changes=True)
    except CannotAgree as error:
        say(f"the hosts cannot agree on who runs it: {error}")
        return 1
    return 0


def last(app: str, process: str) -> int:
    row = Row(app, process)
    bad = f"process = {row.process} AND ended IS NOT NULL AND result <> 'succeeded'"
    try:
        found = row.ask_again(f"SELECT format('its run of %s on %s %s', {STARTED}, host, result) FROM {row.table} WHERE {bad}", 10)
    except CannotAgree as error:
        found = f"the hosts cannot agree on who runs it: {error}"
    if found:
        say(found)
    return 1 if found else 0


def tell(app: str, process: str, whom: str) -> int:
    """Call an address, or run a command, with what has happened."""
    result, code, status = (os.environ.get(name, "") for name in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"))
    if result in ("", "success"):
        return 0
    host = socket.gethostname()
    text = f"{process} of {app} failed on {host}: {result} ({code} {status})."
    problem = notice.tell(whom, text, {"app": app, "process": process, "host": host, "result": result, "status": status})
    if problem:
        say(problem)
    return 1 if problem else 0


def say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def main(command: str, app: str, process: str, *rest: str) -> int:
    if command == "tell":
        return tell(app, process, rest[0])
    schedule = rest[0] if command == "scheduled" else ""
    mode, *words = rest[1:] if command == "scheduled" else rest
    if mode == "--check":
        return check(app, process, schedule)
    if mode == "--last":
        return last(app, process)
    return scheduled(app, process, schedule, words) if command == "scheduled" else kept(app, process, words)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
