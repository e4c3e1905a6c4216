# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's Debian is upgraded, and its PostgreSQL after it: a copy first, with what serves, then the cluster, under load."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from conftest import SET, Fleet
from test_backup import Data

pytestmark = pytest.mark.thorough
DEBIAN = (
    "sed -i s/bookworm/trixie/g /etc/apt/sources.list.d/*.sources; export DEBIAN_FRONTEND=noninteractive; apt-get update -q;"
    "apt-get -y -q -o Dpkg::Options::=--force-confold full-upgrade"
)
CLUSTERS = "pg_lsclusters --no-header | awk '{print $1 \"/\" $2 \":\" $3 \":\" $4}' | tr '\\n' ' '"


@pytest.fixture(scope="module")
def data() -> Iterator[Data]:
    variables = {
        "forge_backup": True,
        "forge_backup_drill_schedule": "",
        "forge_smoke": [{"path": "/parts"}],
        "forge_watch_seconds": 1,
    }
    fleet = Fleet(lab_set=f"{SET}upgrade", variables=variables)
    with fleet.with_nodes("app=debian12:forge_app", "db=debian12:forge_database") as fleet:
        fleet.play("site")
        fleet.on("db", DEBIAN)
        yield Data(fleet)


def test_nothing_is_upgraded_that_is_somebody_elses(data: Data) -> None:
    assert data.cluster() == "15/main"
    data.ask("CREATE DATABASE theirs")
    other = data.fleet.play("upgrade_database", check=False)
    assert other.rc != 0
    assert (
        "15/main has other databases, too (theirs), which would be away meanwhile: ask whose they are" in other.said()
    )
    data.ask("DROP DATABASE theirs")
    data.fleet.on("db", "pg_createcluster 17 main --start; su postgres -c 'createdb -p 5433 theirs'")
    taken = data.fleet.play("upgrade_database", check=False)
    assert "There is a cluster 17/main already, which is somebody's: rename or remove it." in taken.said()
    assert data.fleet.on("db", CLUSTERS).split() == ["15/main:5432:online", "17/main:5433:online"]
    data.fleet.on("db", "su postgres -c 'dropdb -p 5433 theirs'")  # as Debian makes one: it is in nobody's way
    older = data.fleet.play("upgrade_database", check=False, forge_upgrade_version="15")
    assert "15/main has version 15 already, and 15 is not newer." in older.said()
    none = data.fleet.play("upgrade_database", check=False, forge_upgrade_version="99")
    assert none.rc != 0
    assert "forge_backup is false: nothing is upgraded that is not backed up." in (
        data.fleet.play("upgrade_database", check=False, forge_backup=False).said()
    )
    assert data.cluster() == "15/main"


def test_a_copy_that_does_not_start_is_refused(data: Data) -> None:
    data.fleet.on(
        "db",
        "echo \"promote_trigger_file = '/none'\" > /etc/postgresql/15/main/conf.d/old.conf; systemctl reload postgresql@15-main",
    )
    refused = data.fleet.play("upgrade_database", check=False)
    data.fleet.on("db", "rm /etc/postgresql/15/main/conf.d/old.conf; systemctl reload postgresql@15-main")
    assert refused.rc != 0
    assert "What serves was not changed." in refused.said()
    assert re.search(r"The cluster 17/rehearsal does not start: .*/conf\.d/old\.conf. contains errors", refused.said())
    assert data.cluster() == "15/main"
    assert "rehearsal" not in data.fleet.on("db", CLUSTERS)


def test_nothing_is_upgraded_that_what_serves_was_not_tried_with(data: Data) -> None:
    smoke = [{"path": "/none"}]
    fails = data.fleet.play("upgrade_database", check=False, forge_smoke=smoke)
    assert "What serves does not work with the upgraded copy: Candidate" in fails.said()
    hold = "import fcntl, time; fcntl.flock(open('/srv/forge/locks/rehearse', 'a'), fcntl.LOCK_EX); time.sleep(300)"
    data.fleet.on("app", f'systemd-run --unit holder python3 -c "{hold}"')
    untried = data.fleet.play("upgrade_database", check=False)
    data.fleet.on("app", "systemctl stop holder")
    assert "A rehearsal of forge is at work on this host already" in untried.said()
    assert "What serves could not be tried with the upgraded copy" in untried.said()
    for run in (fails, untried):
        assert run.rc != 0
    assert data.cluster() == "15/main"
    assert "rehearsal" not in data.fleet.on("db", CLUSTERS)


@pytest.mark.parametrize("method", ["dump", "upgrade"])
def test_a_rehearsal_alone_changes_nothing(data: Data, method: str) -> None:
    run = data.fleet.play("upgrade_database", rehearse=True, forge_upgrade_method=method)
    assert re.search(
        r"db: a copy of \d+ MiB was upgraded from 15/main to PostgreSQL 17 in [\d.]+ s; its \d+ tables are the same\.",
        run.said(),
    )
    assert data.cluster() == "15/main"
    assert "rehearsal" not in data.fleet.on("db", CLUSTERS)


def test_the_cluster_is_upgraded_under_load_and_nothing_is_lost(data: Data) -> None:
    with data.writing():
        run = data.fleet.play("upgrade_database")
        data.fleet.until(lambda: httpx.get(data.fleet.url("app", "/readyz")).status_code == 200, what="the app")
    assert re.search(r"db: PostgreSQL 17 serves, after [\d.]+ s\.", run.said())
    assert data.fleet.on("db", CLUSTERS).split() == ["15/main:5433:down", "17/main:5432:online"]
    there = set(data.ask("SELECT serial FROM parts").split())
    assert set(data.written) <= there
    assert len(data.written) > 50
    assert data.fleet.on("db", "systemctl is-active pg_receivewal@17-main pg_receivewal@15-main; true").split() == [
        "active",
        "inactive",
    ]
    assert data.fleet.on("db", "ls -d /var/backups/postgresql/17-main/*.backup | wc -l") == "1"
    assert data.fleet.play("status").rc == 0
    again = data.fleet.play("site")
    assert again.changed("db") == again.changed("app") == 0, again.output[-3000:]


def test_the_old_one_is_kept_until_told_and_the_new_one_comes_back(data: Data) -> None:
    data.fleet.on("db", "systemctl restart postgresql")  # as a boot does
    assert data.cluster() == "17/main"
    refused = data.fleet.play("upgrade_database", check=False, remove="17/main")
    assert "The cluster 17/main serves, or was not upgraded here: it is not removed." in refused.said()
    data.fleet.play("upgrade_database", remove="15/main")
    assert data.fleet.on("db", CLUSTERS).split() == ["17/main:5432:online"]
    count = data.ask("SELECT count(*) FROM parts")
    assert data.fleet.play("restore", at=data.now()).rc == 0
    assert data.fleet.play("restore", switch=True).rc == 0
    assert data.cluster() == "17/restored"
    assert data.ask("SELECT count(*) FROM parts") == count
