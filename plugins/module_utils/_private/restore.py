# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores a backup beside the cluster that serves, compares the two, and lets the restored one take its place."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .backup import Backup, BackupError, first_error, query, unit_instance
from .command import run

# Wins over the other files of conf.d, which are those of the backup.
OWN = "zz-thecodeforge-restored.conf"
ALONE = "# A copy that was restored beside the cluster that serves: nobody connects but over the server's socket.\n"
SCRATCH = "# A copy for a drill or a rehearsal, which removes it: it does not serve.\n"
RETIRED = "# Another cluster has taken its place: this one is kept, and does not start by itself.\n"
# Of a copy beside the one that serves, which is to have the host's memory.
SMALL = "shared_buffers = 32MB\nmax_wal_size = 256MB\nautovacuum = off\nfsync = off\n"
# As pg_controldata calls them, and as the configuration does.
AS_LARGE = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_xacts": "max_prepared_transactions",
    "max_locks_per_xact": "max_locks_per_transaction",
}
START_SECONDS, RECOVERY_SECONDS = 300, 4 * 3600
TABLES = """
SELECT coalesce(json_agg(json_build_array(n.nspname, c.relname, ARRAY(
    SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND a.atttypid IN ('timestamp'::regtype, 'timestamptz'::regtype, 'date'::regtype) ORDER BY a.attnum)) ORDER BY 1, 2), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
"""
DATABASES = """
SELECT json_agg(datname ORDER BY datname) FROM pg_database WHERE datallowconn AND NOT datistemplate AND datname <> 'postgres'
"""
COUNT = "SELECT json_build_object('rows', count(*), 'newest', {newest}) FROM {table}"
# Whether a receiver has written what the server has. That it is flushed does not matter: a crash of the host is one of the server, too.
RECEIVED = "SELECT coalesce(bool_or(write_lsn >= '{lsn}'), false) FROM pg_stat_replication WHERE application_name LIKE 'pg_receivewal%'"


@dataclass(frozen=True)
class Cluster:
    """A cluster of Debian's: 15/main."""

    version: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Cluster:
        version, name = text.split("/", 1)
        return cls(version, name)

    def __str__(self) -> str:
        return f"{self.version}/{self.name}"

    @property
    def configuration(self) -> str:
        return f"/etc/postgresql/{self.version}/{self.name}"

    @property
    def log(self) -> str:
        return f"/var/log/postgresql/postgresql-{self.version}-{self.name}.log"

    @property
    def unit(self) -> str:
        return f"postgresql@{unit_instance(str(self))}.service"

    @property
    def data(self) -> str:
        done = run(["pg_conftool", "--short", self.version, self.name, "show", "data_directory"])
        return str(done.stdout).strip() or f"/var/lib/postgresql/{self}"

    def exists(self) -> bool:
        """Whether something has its name, also data without a configuration: what is there is somebody's."""
        return os.path.isdir(self.configuration) or os.path.isdir(f"/var/lib/postgresql/{self}")

    def write_own(self, text: str) -> None:
        """Write our file of its conf.d; an empty text removes it."""
        path = os.path.join(self.configuration, "conf.d", OWN)
        if not text:
            if os.path.exists(path):
                os.unlink(path)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(text)
        os.chmod(path, 0o644)

    def set_port(self, port: int) -> None:
        run(["pg_conftool", self.version, self.name, "set", "port", str(port)])

    def control(self, action: str, seconds: int = START_SECONDS) -> None:
        """:raises BackupError: with the server's own cause, when it does not start or stop."""
        done = run(["systemctl", action, self.unit], timeout=seconds)
        if done.returncode != 0:
            raise BackupError(f"The cluster {self} does not {action}: {self.last_words() or done.stderr.strip()}.")

    def last_words(self) -> str:
        """Why a server ended, of its log."""
        if not os.path.exists(self.log):
            return ""
        with open(self.log, encoding="utf-8", errors="replace") as handle:
            lines = handle.read().splitlines()[-200:]
        fatal = [line for line in lines if re.search(r"\b(FATAL|PANIC):", line)]
        return re.sub(r"^.*?\b(FATAL|PANIC):\s*", "", fatal[-1]).rstrip(".") if fatal else ""


def free_port() -> int:
    """The next one that no cluster has, as pg_createcluster takes it."""
    done = run(["pg_lsclusters", "--no-header"])
    taken = {int(line.split()[2]) for line in done.stdout.splitlines() if len(line.split()) > 3}
    return next(port for port in range(5432, 6432) if port not in taken)


def bytes_of(directory: str) -> int:
    done = run(["du", "--summarize", "--bytes", directory])
    return int(done.stdout.split()[0]) if done.stdout.split() else 0


def check_room(live: Cluster) -> None:
    """:raises BackupError: when there is no room for a copy of it."""
    needed, free = bytes_of(live.data), shutil.disk_usage("/var/lib/postgresql").free
    if needed > free:
        raise BackupError(f"The copy needs about {needed >> 20} MiB in /var/lib/postgresql, and {free >> 20} are free.")


def receive_all(port: int, seconds: float = 60) -> None:
    """Let the archive have all that a running server has committed, and a commit after it, which a recovery stops at.

    A recovery to a moment that no commit follows fails. Source: PostgreSQL, recovery_target_time

    :raises BackupError: when the receiver does not get there.
    """
    query(port, "SELECT txid_current()")  # has a commit of its own
    wanted = query(port, "SELECT pg_current_wal_flush_lsn()")
    deadline = time.monotonic() + seconds
    reached = RECEIVED.format(lsn=wanted)
    while query(port, reached) != "t":
        if time.monotonic() > deadline:
            raise BackupError(
                "WAL is not received up to now: see pg_receivewal@, or give a moment that was before that."
            )
        time.sleep(0.5)


def settings_of_recovery(live: Cluster) -> str:
    """Lines of configuration that a recovery needs: it fails where one is lower than the server's was whose WAL it replays, also when
    that was raised after the base backup. Source: PostgreSQL, "Hot Standby", Administrator's Overview
    """
    done = run([f"/usr/lib/postgresql/{live.version}/bin/pg_controldata", live.data], env={**os.environ, "LC_ALL": "C"})
    found = re.findall(rf"^({'|'.join(AS_LARGE)}) setting: +(\d+)$", done.stdout, re.MULTILINE)
    return "".join(f"{AS_LARGE[name]} = {value}\n" for name, value in found)


def configure_as(live: Cluster, target: Cluster) -> None:
    """Who may connect, and what conf.d has, is no data: it is what it is now, and not what it was at the backup."""
    parts = sorted(os.listdir(os.path.join(live.configuration, "conf.d")))
    os.makedirs(os.path.join(target.configuration, "conf.d"), exist_ok=True)
    for name in ("pg_hba.conf", "pg_ident.conf", *(os.path.join("conf.d", part) for part in parts if part != OWN)):
        source, path = os.path.join(live.configuration, name), os.path.join(target.configuration, name)
        if os.path.isfile(source):
            state = os.stat(source)
            shutil.copyfile(source, path)
            os.chown(path, state.st_uid, state.st_gid)
            os.chmod(path, state.st_mode & 0o7777)


def restore(backup: Backup, live: Cluster, target: Cluster, moment: float, settings: str = ALONE) -> dict[str, Any]:
    """Restore a base backup into a new cluster, up to a moment. What fails leaves no cluster.

    :param live: the one that was backed up.
    :param settings: of its configuration, with the comment that says what it is.
    :returns: ``port``; and ``reached``, the last commit that was restored, as the server says it.
    :raises BackupError: when it cannot be restored.
    """
    port = free_port()
    until = datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f+00")
    try:  # what is stopped here, too, leaves nothing
        done = run(
            ["pg_restorecluster", "--port", str(port), "--pitr", until, target.version, target.name, backup.path],
            timeout=RECOVERY_SECONDS,
        )
        if done.returncode != 0:
            raise BackupError(f"{backup.path} cannot be restored: {first_error(done.stderr + done.stdout)}.")
        if os.path.isdir(os.path.join(live.configuration, "conf.d")):
            configure_as(live, target)
        if settings.startswith(SCRATCH):  # what a killed drill leaves does not start at boot
            write(os.path.join(target.configuration, "start.conf"), "manual\n")
        needed = settings_of_recovery(live)
        target.write_own(f"{settings}{needed}port = {port}\nlisten_addresses = ''\narchive_mode = off\n")
        reached = recover(target, port)
    except BaseException:
        remove(target)
        raise
    return {"port": port, "reached": reached}


def recover(target: Cluster, port: int) -> str:
    """Start it, and wait until it has replayed what it should."""
    try:
        target.control("start", RECOVERY_SECONDS)
        wait_for_recovery(target, port)
    except BackupError:
        # All of the WAL was before the moment, as with a server that has died: then all of it is what is wanted.
        if "before configured recovery target was reached" not in target.last_words():
            raise
        target.control("stop")
        path = os.path.join(target.data, "postgresql.auto.conf")
        with open(path, encoding="utf-8") as handle:
            lines = [line for line in handle if not line.startswith("recovery_target")]
        with open(path, "w", encoding="utf-8") as handle:
            handle.writelines(lines)
        target.control("start", RECOVERY_SECONDS)
        wait_for_recovery(target, port)
    reached = query(port, "SELECT coalesce(pg_last_xact_replay_timestamp()::text, '')")
    for name in ("restore_command", "recovery_target_time", "recovery_target_action"):
        query(port, f"ALTER SYSTEM RESET {name}")
    return reached


def wait_for_recovery(target: Cluster, port: int) -> None:
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        try:
            if query(port, "SELECT pg_is_in_recovery()", timeout=60) == "f":
                return
        except BackupError:
            if run(["systemctl", "is-active", "--quiet", target.unit]).returncode != 0:
                raise BackupError(f"The cluster {target} has ended in its recovery: {target.last_words()}.") from None
        if time.monotonic() > deadline:
            raise BackupError(f"The cluster {target} is not there after {RECOVERY_SECONDS} s.")
        time.sleep(0.5)


def remove(target: Cluster) -> None:
    """Remove a cluster that was restored."""
    if target.exists():
        run(["pg_dropcluster", "--stop", target.version, target.name], timeout=START_SECONDS)
    shutil.rmtree(target.configuration, ignore_errors=True)
    shutil.rmtree(f"/var/lib/postgresql/{target}", ignore_errors=True)


def is_restored(target: Cluster) -> bool:
    """Whether a cluster is one that was restored here, or was retired for one."""
    return os.path.exists(os.path.join(target.configuration, "conf.d", OWN))


def is_copy(target: Cluster) -> bool:
    """Whether it was restored, and has not taken over."""
    path = os.path.join(target.configuration, "conf.d", OWN)
    return os.path.exists(path) and read(path).startswith(ALONE)


def is_scratch(target: Cluster) -> bool:
    """Whether a drill or a rehearsal has made it."""
    path = os.path.join(target.configuration, "conf.d", OWN)
    return os.path.exists(path) and read(path).startswith(SCRATCH)


def clusters_of(version: str) -> list[Cluster]:
    done = run(["pg_lsclusters", "--no-header"])
    found = [line.split()[:2] for line in done.stdout.splitlines() if len(line.split()) > 3]
    return [Cluster(*each) for each in found if each[0] == version]


def contents(port: int) -> dict[str, dict[str, Any]]:
    """Rows and the newest moment of each table, by database and table."""
    found = {}
    for database in json.loads(query(port, DATABASES) or "null") or []:
        for schema, table, moments in json.loads(query(port, TABLES, database)):
            newest = ", ".join(f"max({quoted(name)})::timestamptz" for name in moments)
            newest = f"greatest({newest})" if newest else "NULL::timestamptz"
            text = COUNT.format(newest=newest, table=f"{quoted(schema)}.{quoted(table)}")
            answer = query(port, text, database, timeout=RECOVERY_SECONDS)
            found[f"{database}: {schema}.{table}"] = json.loads(answer)
    return found


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def compared(before: dict[str, Any] | None, after: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each table: what the cluster that serves has (nothing when it does not run), and what was restored."""
    return [
        {
            "table": table,
            "rows": (before or {}).get(table, {}).get("rows"),
            "restored_rows": after.get(table, {}).get("rows"),
            "newest": (before or {}).get(table, {}).get("newest"),
            "restored_newest": after.get(table, {}).get("newest"),
        }
        for table in sorted({*(before or {}), *after})
    ]


def switch(live: Cluster, port: int, restored: Cluster) -> None:
    """Let a restored cluster take the place of the one that serves, which is kept. Where the new one does not start, the old one does.

    :raises BackupError: when it does not; then what served serves.
    """
    other_port = int(query_port(restored))
    start_conf = os.path.join(live.configuration, "start.conf")
    was = read(start_conf)
    run(["systemctl", "stop", live.unit], timeout=START_SECONDS)
    try:
        live.write_own(f"{RETIRED}port = {other_port}\n")
        write(start_conf, "manual\n")
        restored.control("stop")
        # Not in conf.d: that is in its backups, and what is restored from them would have the port, too, before it gets its own.
        restored.set_port(port)
        restored.write_own("")
        write(os.path.join(restored.configuration, "start.conf"), "auto\n")
        run(["systemctl", "daemon-reload"])
        restored.control("start")
        query(port, "SELECT 1", timeout=60)
    except BaseException:
        run(["systemctl", "stop", restored.unit], timeout=START_SECONDS)
        restored.set_port(other_port)
        restored.write_own(f"{ALONE}port = {other_port}\nlisten_addresses = ''\narchive_mode = off\n")
        live.write_own("")
        write(start_conf, was)
        run(["systemctl", "daemon-reload"])
        live.control("start")
        raise


def listen(target: Cluster, port: int, settings: str, everywhere: bool = True) -> None:
    """Let a copy listen where the server does that it is of, or over its own socket alone, and wait until it does.

    :param settings: the comment that says what it is.
    :raises BackupError: when it does not start again.
    """
    nowhere = "" if everywhere else "listen_addresses = ''\n"
    target.write_own(f"{settings}port = {port}\n{nowhere}archive_mode = off\n")
    target.control("restart")
    query(port, "SELECT 1", timeout=60)


def waiting_copy(live: Cluster) -> Cluster:
    """The only cluster that was restored beside this one, and has not taken over.

    :raises BackupError: when there is none, or there are several.
    """
    copies = [each for each in clusters_of(live.version) if is_copy(each)]
    if len(copies) == 1:
        return copies[0]
    if not copies:
        raise BackupError("There is no restored cluster: restore one first, with -e at=MOMENT.")
    raise BackupError(
        f"There are several restored clusters ({', '.join(map(str, copies))}): name one in forge_restore_cluster."
    )


def query_port(cluster: Cluster) -> str:
    done = run(["pg_lsclusters", "--no-header", cluster.version, cluster.name])
    return str(done.stdout.split()[2])


def read(path: str) -> str:
    if not os.path.exists(path):
        return "auto\n"
    with open(path, encoding="utf-8") as handle:
        return handle.read()


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(text)
