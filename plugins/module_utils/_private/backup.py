# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of a PostgreSQL cluster as Debian's pg_backupcluster keeps them: base backups, dumps, and the WAL since the oldest.

Source: pg_backupcluster(1) and pg_restorecluster(1) of postgresql-common.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .command import run
from .ownership import marked_app

ROOT = "/var/backups/postgresql"
STATE = "/var/lib/thecodeforge.fastapi"  # what copies, drills and the watch say of themselves
PROGRAMS = "/usr/local/lib/thecodeforge.fastapi/forge_backup"
OURS = {"copies": "thecodeforge-backup", "drill": "thecodeforge-backup-drill", "watch": "thecodeforge-backup-watch"}
DROP_IN = "thecodeforge.conf"  # of units of postgresql-common, with our mark
WAL = re.compile(r"[0-9A-F]{24}(\.gz|\.lz4)?(\.partial)?")
# The slot is called as pg_backupcluster calls it.
SLOT_QUERY = """
SELECT json_build_object('active', active, 'status', coalesce(wal_status, ''), 'behind_bytes',
  coalesce(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn), 0)::bigint)
FROM pg_replication_slots WHERE slot_name = 'pg_receivewal_service'
"""


class BackupError(Exception):
    """There is no such backup. The text is a whole sentence."""


@dataclass(frozen=True)
class Limits:
    """How old things may be."""

    base_hours: float = 192  # the newest base backup
    wal_minutes: float = 15  # since WAL was received
    offsite_minutes: float = 60  # the newest copy in another place
    drill_hours: float = 36  # the newest drill that went well


@dataclass(frozen=True)
class Backup:
    """One that is complete; what pg_backupcluster has not finished has no status file, and is none."""

    path: str
    kind: str  # basebackup or dump
    end: float  # seconds since 1970
    seconds: float  # that it took
    bytes: int


def unit_instance(cluster: str) -> str:
    """Name of a cluster (15/main) in units."""
    return cluster.replace("/", "-")


def directory_of(cluster: str) -> str:
    return os.path.join(ROOT, unit_instance(cluster))


def backups_in(directory: str) -> list[Backup]:
    """Complete ones, the oldest first."""
    found = []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        path = os.path.join(directory, name)
        try:
            with open(os.path.join(path, "status"), encoding="utf-8") as handle:
                status = json.load(handle)
            end = ended(status["end"])
            size = sum(os.stat(os.path.join(path, each)).st_size for each in os.listdir(path))
        except (OSError, ValueError, KeyError):
            continue
        found.append(Backup(path, str(status.get("type", "")), end, float(status.get("duration", 0)), size))
    return sorted(found, key=lambda each: each.end)


def ended(text: str) -> float:
    """When a backup was complete, as a status file says it: of Debian 12, or of later versions. Both are UTC.

    :raises ValueError: when it is neither.
    """
    form = "%Y-%m-%dT%H%M%SZ" if text.endswith("Z") else "%a %b %d %H:%M:%S %Y"
    return float(calendar.timegm(time.strptime(text, form)))


def base_for(backups: list[Backup], moment: float) -> Backup:
    """The newest base backup that was complete at a moment.

    :raises BackupError: when there is none.
    """
    bases = [each for each in backups if each.kind == "basebackup"]
    fitting = [each for each in bases if each.end <= moment]
    if fitting:
        return fitting[-1]
    since = f"the oldest one is of {shown(bases[0].end)}" if bases else "there is none at all"
    raise BackupError(f"No base backup is as old as {shown(moment)}: {since}.")


def moment_of(text: str, now: float) -> float:
    """A moment that a person has given, such as ``2026-11-26 14:03``; in the zone of this host, unless it says another.

    :returns: seconds since 1970.
    :raises BackupError: when it is not understood, or has not come.
    """
    try:
        # Before 3.11, Python knows no Z, and no zone without minutes.
        moment = datetime.fromisoformat(re.sub(r"Z$", "+00:00", str(text).strip())).timestamp()
    except ValueError:
        raise BackupError(
            f"{text!r} is no moment: give it as 2026-11-26 14:03, or with a zone, as 2026-11-26T14:03:00+01:00."
        ) from None
    if moment > now:
        raise BackupError(f"{shown(moment)} has not come yet.")
    return moment


def shown(moment: float) -> str:
    """A moment for people, in UTC."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat()


def newest_wal(directory: str) -> float:
    """When WAL was last written to an archive, in seconds since 1970; 0 when there is none."""
    wal = os.path.join(directory, "wal")
    names = [name for name in os.listdir(wal) if WAL.fullmatch(name)] if os.path.isdir(wal) else []
    return max((os.stat(os.path.join(wal, name)).st_mtime for name in names), default=0.0)


def first_error(text: str) -> str:
    """The first error in what a program has printed, else its last line; without a full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [
        line for line in lines if re.search(r"\b(error|fatal|failed|invalid|corrupt|no space)", line, re.IGNORECASE)
    ]
    return (errors[:1] or lines[-1:] or ["it does not say why"])[0].rstrip(".")


def query(port: int, text: str, database: str = "postgres", timeout: float = 600) -> str:
    """What a server answers to its owner.

    :raises BackupError: when it does not.
    """
    done = run(
        ["runuser", "-u", "postgres", "--", "psql", "-XAtqw", "-v", "ON_ERROR_STOP=1", "-h", "/var/run/postgresql", "-p", str(port),
         "-d", database],
        input=text, cwd="/", timeout=timeout,
    )  # fmt: skip
    if done.returncode != 0:
        cause = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
        raise BackupError(f"The server on port {port} does not answer: {cause}.")
    return str(done.stdout).strip()


def owner(cluster: str) -> str:
    """Whose the backups of a cluster are: the app whose mark our drop-in carries, ``somebody else`` who has switched them on, or empty."""
    instance = unit_instance(cluster)
    path = f"/etc/systemd/system/pg_receivewal@{instance}.service.d/{DROP_IN}"
    if os.path.exists(path):
        with open(path, encoding="utf-8") as handle:
            return marked_app(handle.read()) or "somebody else"
    units = (f"pg_basebackup@{instance}.timer", f"pg_dump@{instance}.timer", f"pg_receivewal@{instance}.service")
    enabled = [unit for unit in units if run(["systemctl", "is-enabled", "--quiet", unit]).returncode == 0]
    return "somebody else" if enabled else ""


def drill_report(cluster: str) -> str:
    """Path of what drills say: ``last``, and ``good``, the last that went well."""
    return os.path.join(STATE, f"drill-{unit_instance(cluster)}.json")


def read_document(path: str) -> dict[str, Any]:
    """A JSON object; empty when it is absent or unreadable."""
    try:
        with open(path, encoding="utf-8") as handle:
            found = json.load(handle)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_document(path: str, document: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="utf-8") as handle:
        json.dump(document, handle, indent=2, sort_keys=True)
        handle.flush()
        os.fsync(handle.fileno())
    os.rename(temporary, path)


def failed_units(instance: str) -> list[str]:
    """Of what makes and copies backups: services whose last run has failed. A drill says by itself why it has."""
    names = [f"{name}@{instance}.service" for name in ("pg_basebackup", "pg_dump", "pg_compresswal", OURS["copies"])]
    return [name for name in names if run(["systemctl", "is-failed", "--quiet", name]).returncode == 0]


def timers_of_ours(instance: str) -> dict[str, float]:
    """What of ours is switched on, with when it was, in seconds since 1970."""
    paths = {name: f"/etc/systemd/system/{unit}@{instance}.timer" for name, unit in OURS.items()}
    return {name: os.stat(path).st_mtime for name, path in paths.items() if os.path.exists(path)}


def programs_hash() -> str:
    """SHA-256 of what timers of ours run, one file after the other by name; of nothing where there is none."""
    names = sorted(os.listdir(PROGRAMS)) if os.path.isdir(PROGRAMS) else []
    digest = hashlib.sha256()
    for name in names:
        if name.endswith(".py"):
            with open(os.path.join(PROGRAMS, name), "rb") as handle:
                digest.update(handle.read())
    return digest.hexdigest()


def drills_of(cluster: str, now: float) -> dict[str, Any]:
    """What drills have said, ``age`` of the last that went well, and whether one is ``running``."""
    instance = unit_instance(cluster)
    said = read_document(drill_report(cluster))
    last, good = said.get("last") or {}, said.get("good") or {}
    shown = run(["systemctl", "show", "--property=ActiveState", "--value", f"{OURS['drill']}@{instance}.service"])
    running = shown.stdout.strip() == "activating"
    return {"last": last, "good": good, "running": running, "age": now - good["ended"] if good else None}


def state_of(cluster: str, port: int, now: float) -> dict[str, Any]:
    """What there is of backups, for reports: moments as ISO 8601, sizes in bytes, ages in seconds."""
    directory = directory_of(cluster)
    found = backups_in(directory)
    newest = {each.kind: each for each in found}
    try:
        slot = json.loads(query(port, SLOT_QUERY, timeout=30) or "{}")
    except BackupError:
        slot = {}
    try:
        kept = query(port, "SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'", timeout=30)
    except BackupError:
        kept = ""
    written = newest_wal(directory)
    instance = unit_instance(cluster)
    copied, timers = f"{STATE}/backup-{instance}.copied", timers_of_ours(instance)
    parent = next(path for path in (directory, ROOT, os.path.dirname(ROOT), "/") if os.path.isdir(path))
    data = f"/var/lib/postgresql/{cluster}"
    return {
        "owner": owner(cluster),
        "directory": directory,
        "backups": [
            {"path": each.path, "kind": each.kind, "end": iso(each.end), "seconds": each.seconds, "bytes": each.bytes}
            for each in found
        ],
        "base_age": now - newest["basebackup"].end if "basebackup" in newest else None,
        "dump_age": now - newest["dump"].end if "dump" in newest else None,
        # A database that nobody writes to has no new WAL: a receiver that has all of it is up to date.
        "wal_age": 0.0 if slot.get("active") else now - written if written else None,
        "slot": slot,
        "wal_keep_mb": int(kept) if kept else None,
        "timers": sorted(timers),
        "programs": programs_hash(),
        "offsite": "copies" in timers,
        "offsite_age": now - os.stat(copied).st_mtime if os.path.exists(copied) else None,
        "drill": {**drills_of(cluster, now), "scheduled": now - timers["drill"] if "drill" in timers else None},
        "failed": failed_units(instance),
        "told": read_document(f"{STATE}/watch-{instance}.json").get("problem", ""),
        "free_bytes": shutil.disk_usage(parent).free,
        "same_disk": os.path.isdir(data) and os.stat(data).st_dev == os.stat(parent).st_dev,
    }  # fmt: skip


def problems(state: dict[str, Any], limits: Limits) -> list[str]:
    """What is wrong with backups, a sentence each."""
    found = []
    age = state["base_age"]
    if age is None:
        found.append("There is no base backup.")
    elif age > limits.base_hours * 3600:
        found.append(
            f"The newest base backup is {age / 3600:.0f} hours old, and may be {limits.base_hours:g}: see pg_basebackup@."
        )
    if state["slot"].get("status") == "lost":
        found.append(
            "The server has removed WAL that was not received yet (max_slot_wal_keep_size): what happened since cannot be restored until "
            "the next base backup. Run the playbook backup."
        )
    elif state["wal_age"] is None:
        found.append("No WAL was ever received.")
    elif state["wal_age"] > limits.wal_minutes * 60:
        found.append(
            f"WAL was not received for {state['wal_age'] / 60:.0f} minutes, and may be {limits.wal_minutes:g}: see pg_receivewal@."
        )
    if state["offsite"] and state["offsite_age"] is None:
        found.append("Nothing was ever copied to another place: see thecodeforge-backup@.")
    elif state["offsite"] and state["offsite_age"] > limits.offsite_minutes * 60:
        found.append(
            f"The newest copy in another place is {state['offsite_age'] / 60:.0f} minutes old, and may be {limits.offsite_minutes:g}: see "
            "thecodeforge-backup@."
        )
    found += [f"{unit} has failed: see journalctl -u {unit}." for unit in state["failed"]]
    found += problems_of_drills(state["drill"], limits)
    if state["told"]:
        found.append(f"Nobody could be told: {state['told']}")
    return found


def problems_of_drills(drill: dict[str, Any], limits: Limits) -> list[str]:
    """What is wrong with drills, where there are any."""
    last, longest = drill["last"], limits.drill_hours * 3600
    if drill["scheduled"] is None:
        return []
    if last.get("problem") and not drill["running"]:
        return [f"The drill of {shown(last['began'])} has failed: {last['problem']}"]
    if drill["age"] is None and drill["scheduled"] > longest:
        return ["No drill has ever ended well: see thecodeforge-backup-drill@."]
    if drill["age"] is not None and drill["age"] > longest:
        return [
            f"The last good drill was {drill['age'] / 3600:.0f} hours ago, and may be {limits.drill_hours:g}: see "
            "thecodeforge-backup-drill@."
        ]
    return []
