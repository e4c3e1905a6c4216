# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that nobody asked for: of the newest backup, into a scratch cluster that is removed again. Timers on hosts make it, too."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .backup import (
    STATE,
    BackupError,
    backups_in,
    base_for,
    directory_of,
    drill_report,
    first_error,
    query,
    read_document,
    unit_instance,
    write_document,
)
from .command import run
from .restore import (
    DATABASES,
    SCRATCH,
    SMALL,
    TABLES,
    Cluster,
    bytes_of,
    check_room,
    contents,
    is_scratch,
    receive_all,
    remove,
    restore,
)

NAME = "drill"
COMMAND_SECONDS = 3600
STOPPED = "it was stopped before it had ended."


def drill(cluster: str, port: int, database: str = "", command: str = "") -> dict[str, Any]:
    """Restore the newest backup, look into all of it, and remove it again.

    :param port: of the server that is backed up.
    :param database: the app's, which the command gets in PGDATABASE.
    :param command: a check of the user's, run as ``postgres``; none when empty.
    :returns: ``backup``, its path; ``backup_end``, in seconds since 1970; ``reached``, the last commit that was restored; ``seconds``;
        ``bytes`` of the restored cluster; ``tables``, name to ``rows`` and ``newest``.
    :raises BackupError: saying what keeps the database from coming back.
    """
    began, live = time.monotonic(), Cluster.parse(cluster)
    target = Cluster(live.version, NAME)
    clear(target)
    before = tables_of(port) if runs(live) else set()
    with claimed(target):
        restored = fresh_copy(live, port, target, SMALL)
    try:
        tables = contents(restored["port"])
        absent = sorted(before - tables.keys())
        if absent:
            raise BackupError(f"What was restored lacks {len(absent)} tables, such as {absent[0]}.")
        check(restored["port"], database, command)
        size = bytes_of(target.data)
    finally:
        remove(target)
    return {
        "backup": restored["backup"].path, "backup_end": restored["backup"].end, "reached": restored["reached"], "bytes": size,
        "seconds": round(time.monotonic() - began, 1), "tables": tables,
    }  # fmt: skip


def runs(cluster: Cluster) -> bool:
    return bool(run(["systemctl", "is-active", "--quiet", cluster.unit]).returncode == 0)


def fresh_copy(live: Cluster, port: int, target: Cluster, settings: str = "") -> dict[str, Any]:
    """Restore the newest backup, with all WAL since, into a scratch cluster.

    :param port: of the server that is backed up.
    :param settings: of the copy's configuration.
    :returns: ``backup``, and what :func:`restore.restore` returns.
    :raises BackupError: when it cannot be; then there is no copy.
    """
    moment = time.time()
    backup = base_for(backups_in(directory_of(str(live))), moment)
    check_room(live)
    if runs(live):
        receive_all(port)
    return {"backup": backup, **restore(backup, live, target, moment, SCRATCH + settings)}


@contextmanager
def claimed(target: Cluster) -> Iterator[None]:
    """Note that a cluster is about to be made, so that one which a killed run has left in part can be told from somebody else's."""
    write_document(claim_of(target), {"pid": os.getpid()})
    try:
        yield
    finally:
        os.unlink(claim_of(target))


def claim_of(target: Cluster) -> str:
    return os.path.join(STATE, f"scratch-{unit_instance(str(target))}.json")


def clear(target: Cluster) -> None:
    """Remove a scratch cluster that a run has left, which was killed.

    :raises BackupError: when the cluster of that name is somebody's.
    """
    if not target.exists():
        return
    if not is_scratch(target) and not os.path.exists(claim_of(target)):
        raise BackupError(f"There is a cluster {target} that is somebody's: rename it, as drills need the name.")
    remove(target)


def tables_of(port: int) -> set[str]:
    """Names of all tables of a server, as :func:`restore.contents` has them, without reading any."""
    return {
        f"{database}: {schema}.{table}"
        for database in json.loads(query(port, DATABASES) or "null") or []
        for schema, table, _moments in json.loads(query(port, TABLES, database))
    }


def check(port: int, database: str, command: str) -> None:
    """Run the user's check against what was restored.

    :raises BackupError: with the first error that it printed, or its last line, when it fails.
    """
    if not command:
        return
    variables = ["PGHOST=/var/run/postgresql", f"PGPORT={port}", f"PGDATABASE={database}"]
    argv = ["runuser", "-u", "postgres", "--", "/usr/bin/env", "--", *variables, *shlex.split(command)]
    done = run(argv, cwd="/", timeout=COMMAND_SECONDS)
    if done.returncode != 0:
        said = first_error(done.stdout + done.stderr)
        raise BackupError(
            f"forge_backup_drill_command failed with exit code {done.returncode} on what was restored: {said}."
        )


def record(cluster: str, port: int, database: str = "", command: str = "") -> str:
    """Make a drill, and write down how it went: before it begins, too, as one that is killed says nothing.

    :returns: why it failed, a sentence; empty when it went well.
    """
    path, began = drill_report(cluster), time.time()
    said = read_document(path)
    write_document(path, {**said, "last": {"began": began, "problem": STOPPED}})
    result: dict[str, Any] = {}
    try:
        result, problem = drill(cluster, port, database, command), ""
    except BackupError as error:
        problem = str(error)
    except (OSError, ValueError, LookupError, RuntimeError, subprocess.SubprocessError) as error:
        problem = f"{type(error).__name__}: {error}."
    last = {"began": began, "ended": time.time(), "problem": problem, **result}
    write_document(path, {**said, "last": last, **({} if problem else {"good": last})})
    return problem
