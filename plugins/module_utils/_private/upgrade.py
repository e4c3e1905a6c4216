# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a cluster to another version of PostgreSQL with Debian's pg_upgradecluster: a copy of it first, and then itself."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from .backup import BackupError, first_error, query
from .command import run
from .drill import claimed, clear, fresh_copy
from .ownership import marked_app
from .restore import (
    DATABASES,
    RETIRED,
    SCRATCH,
    Cluster,
    bytes_of,
    configure_as,
    contents,
    listen,
    query_port,
    quoted,
    read,
    remove,
    write,
)

NAME = "rehearsal"
UPGRADE_SECONDS = 24 * 3600
# What somebody has made in a cluster. One that Debian made when the package was installed has nothing of it.
MADE = """
SELECT (SELECT count(*) FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres')
  + (SELECT count(*) FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%' AND rolname <> 'postgres')
  + (SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
     WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema')
"""
# Databases, and what they say of whose they are.
OWNERS = """
SELECT coalesce(json_object_agg(datname, coalesce(shobj_description(oid, 'pg_database'), '')), '{}')
FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'
"""


def newest_version() -> str:
    """The newest version of the server that is installed."""
    parent = "/usr/lib/postgresql"
    names = os.listdir(parent) if os.path.isdir(parent) else []
    versions = [name for name in names if name.isdigit() and os.path.exists(f"{parent}/{name}/bin/postgres")]
    return max(versions, key=int, default="")


def check(live: Cluster, port: int, version: str, app: str, shared: bool) -> None:
    """:raises BackupError: when the cluster cannot, or must not, be upgraded to that version."""
    if int(version) <= int(live.version):
        raise BackupError(f"{live} has version {live.version} already, and {version} is not newer.")
    if not os.path.exists(f"/usr/lib/postgresql/{version}/bin/postgres"):
        raise BackupError(
            f"PostgreSQL {version} is not installed: it has no package on this host, or say another version."
        )
    others = [name for name, comment in json.loads(query(port, OWNERS)).items() if marked_app(comment) != app]
    if others and not shared:
        raise BackupError(
            f"{live} has other databases, too ({', '.join(sorted(others))}), which would be away meanwhile: ask whose they are, and run "
            "again with -e forge_upgrade_shared=true."
        )
    target = Cluster(version, live.name)
    if target.exists() and not is_empty(target):
        raise BackupError(f"There is a cluster {target} already, which is somebody's: rename or remove it.")


def is_empty(cluster: Cluster) -> bool:
    """Whether nobody has made anything in a cluster that runs, as in one that Debian makes when a version is installed."""
    if run(["systemctl", "is-active", "--quiet", cluster.unit]).returncode != 0:
        return False
    return query(int(query_port(cluster)), MADE) == "0"


def rehearse(live: Cluster, port: int, version: str, method: str) -> dict[str, Any]:
    """Upgrade a copy, compare the two, and let the upgraded one listen as the server does, for the app to try it.

    :returns: ``seconds`` that the upgrade took, ``port`` of what was upgraded, its ``bytes``, and the number of ``tables``.
    :raises BackupError: when it fails, or something is absent afterwards; then there is no copy.
    """
    copy, upgraded = Cluster(live.version, NAME), Cluster(version, NAME)
    clear(upgraded)
    clear(copy)
    with claimed(copy), claimed(upgraded):
        try:
            copy_port = fresh_copy(live, port, copy)["port"]
            before = contents(copy_port)
            seconds = upgrade_cluster(copy, copy_port, version, method, SCRATCH + "listen_addresses = ''\n")
            after = contents(copy_port)
            different = sorted(table for table in {*before, *after} if before.get(table) != after.get(table))
            if different:
                raise BackupError(
                    f"The copy lacks something after the upgrade, in {len(different)} tables, such as {different[0]}: is an extension's "
                    f"package for PostgreSQL {version} absent?"
                )
            listen(upgraded, copy_port, SCRATCH)
        except BaseException:
            remove(upgraded)
            remove(copy)
            raise
    return {"seconds": seconds, "port": copy_port, "bytes": bytes_of(upgraded.data), "tables": len(after)}


def remove_rehearsal(live: Cluster, version: str) -> None:
    """Remove what :func:`rehearse` has made; also in a run that was killed."""
    clear(Cluster(version, NAME))
    clear(Cluster(live.version, NAME))


def upgrade(live: Cluster, port: int, version: str, method: str) -> dict[str, Any]:
    """Upgrade the cluster that serves. The old one is kept, and does not start by itself. What fails leaves that serving.

    :returns: ``seconds`` that it took, in which nobody could connect.
    :raises BackupError: when it fails.
    """
    target = Cluster(version, live.name)
    start_conf = os.path.join(live.configuration, "start.conf")
    was = read(start_conf)
    if target.exists():  # and is empty
        remove(target)
    try:
        seconds = upgrade_cluster(live, port, version, method, "")
    except BaseException:
        serve_again(live, target, port, was)
        if target.exists():
            remove(target)
        raise
    live.write_own(RETIRED)
    return {"seconds": seconds}


def serve_again(live: Cluster, target: Cluster, port: int, start_conf: str) -> None:
    """Let the cluster serve whose upgrade has failed, wherever that was."""
    run(["systemctl", "stop", target.unit])
    live.set_port(port)
    write(os.path.join(live.configuration, "start.conf"), start_conf)
    run(["systemctl", "daemon-reload"])
    # pg_upgradecluster may have started it with rules of its own.
    live.control("restart")


def upgrade_cluster(cluster: Cluster, port: int, version: str, method: str, settings: str) -> float:
    """Run pg_upgradecluster, and wait until the new one answers on the port of the old one.

    It moves the port in postgresql.conf, so ours may not name one; and it leaves out conf.d, which is to be as it was from the first start.

    :param settings: of ours, which the new one has, too.
    :returns: seconds.
    :raises BackupError: with its cause, when it fails.
    """
    target = Cluster(version, cluster.name)
    cluster.set_port(port)
    cluster.write_own(settings)
    began = time.monotonic()
    done = run(
        ["pg_upgradecluster", "--no-start", "-v", version, "--method", method, cluster.version, cluster.name],
        timeout=UPGRADE_SECONDS,
        cwd="/",
    )
    if done.returncode != 0:
        raise BackupError(
            f"{cluster} cannot be upgraded to PostgreSQL {version}: {first_error(done.stderr + done.stdout)}."
        )
    configure_as(cluster, target)
    if method != "dump":  # nobody writes to it before it is known to be whole
        target.write_own(settings + "listen_addresses = ''\n")
        target.control("start")
        refresh_indexes(port)
        target.control("stop")
    target.write_own(settings)
    target.control("start")
    query(port, "SELECT 1", timeout=60)
    return round(time.monotonic() - began, 1)


def refresh_indexes(port: int) -> None:
    """Build indexes anew that pg_upgrade has taken over: another release of Debian may sort texts in another order.

    Source: PostgreSQL, "Locale Support", "Collation Versions"
    """
    for database in json.loads(query(port, DATABASES) or "null") or []:
        query(port, f"REINDEX DATABASE {quoted(database)}", database, timeout=UPGRADE_SECONDS)
        query(port, f"ALTER DATABASE {quoted(database)} REFRESH COLLATION VERSION", database)
    query(port, "ANALYZE", timeout=UPGRADE_SECONDS)
