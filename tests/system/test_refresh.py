# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The app is started anew without losing a request, and by nobody else: not by needrestart; a host without an edge is taken away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Fleet
from tiny import PLAIN, load, write_project

SETTINGS: dict[str, Any] = {
    **PLAIN,
    "forge_app": "fresh",
    "forge_listen": ["8000"],
    "forge_workers": 2,
    "forge_watch_seconds": 1,
    "forge_drain_seconds": 6,
    "forge_processes": {"sleeper": {"command": "sleep infinity", "stop_seconds": 2}},
}
CLIENTS = {"keepalive": 2, "closing": 2, "post": 2, "pausing": 4}
HEED = 0.6  # seconds within which workers heed a flag, and a little more
LEDGER = "/srv/fresh/ledger.jsonl"


@pytest.fixture(scope="module")
def fresh(box: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """An app with another process; it is stopped afterwards."""
    source = write_project(tmp_path_factory.mktemp("fresh") / "shop", "gunicorn", "uvicorn-worker")
    fleet = Fleet({**SETTINGS, "forge_source": str(source)}, lab_set=box.lab_set, without_database=True)
    fleet.on("box", "systemctl stop forge.socket forge.service 'forge@*' 2>/dev/null; true")
    run = fleet.play("refresh", check=False)
    assert "Nothing was ever released on this host: there is nothing to refresh. Run site.yml." in run.said()
    fleet.play("site")
    yield fleet
    fleet.on("box", "systemctl disable --now fresh.socket fresh.service; systemctl stop 'fresh@*' 'fresh.*'; true")


def live(fleet: Fleet) -> str:
    return fleet.on("box", "basename $(readlink /srv/fresh/current)")


def processes(fleet: Fleet) -> set[str]:
    """Ids of the web process and of the other one."""
    units = f"fresh@{live(fleet)}.service fresh.sleeper@{live(fleet)}.service"
    return set(fleet.on("box", f"systemctl show --value -p MainPID {units}").split())


def release(fleet: Fleet, version: str) -> str:
    Path(fleet.variables["forge_source"], "shop", "version.py").write_text(f"VERSION = {version!r}\n")
    fleet.play("deploy")
    return live(fleet)


def test_a_twin_takes_over_and_is_the_same_to_all_that_follows(fresh: Fleet) -> None:
    first, second = release(fresh, "1"), release(fresh, "2")
    before = processes(fresh)
    with load(fresh.url("box", ""), **CLIENTS) as result:
        run = fresh.play("refresh")
    assert result["lost"] == {}
    assert result["total"] > 100
    twin = live(fresh)
    assert twin == f"{second}-2"
    assert len(processes(fresh) - before) == 2
    assert fresh.get("box", "/version").json()["generation"] == twin
    assert f"{second} {twin}" in run.said()
    event = json.loads(fresh.on("box", f"tail -n 1 {LEDGER}"))
    assert (event["action"], event["from"], event["to"], event["result"]) == ("refresh", second, twin, "switched")
    kept = fresh.on("box", "ls /srv/fresh/generations").split()
    assert {first, twin} < set(kept)
    assert second not in kept

    assert fresh.play("status").rc == 0
    assert fresh.play("site").changed("box") == 0
    fresh.play("refresh")
    assert live(fresh) == second
    fresh.play("refresh", flags=("--check",))
    assert live(fresh) == second
    fresh.play("rollback")
    assert live(fresh) == first


@pytest.mark.thorough
def test_a_twin_that_is_not_healthy_never_serves(fresh: Fleet) -> None:
    """As when an update has broken what the app needs."""
    serving = release(fresh, "3")
    code = f"/srv/fresh/releases/{serving[:12]}/shop/main.py"
    fresh.on("box", f"cp {code} /root/main.py; echo 'raise RuntimeError(\"no such library\")' >> {code}")
    with load(fresh.url("box", ""), **CLIENTS) as result:
        run = fresh.play("refresh", check=False)
    assert run.rc
    assert "RuntimeError: no such library" in run.said()
    assert (result["lost"], live(fresh)) == ({}, serving)
    assert json.loads(fresh.on("box", f"tail -n 1 {LEDGER}"))["result"] == "failed"
    fresh.on("box", f"cat /root/main.py > {code}")
    fresh.play("refresh")
    assert live(fresh) == f"{serving}-2"


def test_a_host_without_an_edge_has_its_maintenance_and_can_be_drained(fresh: Fleet) -> None:
    fresh.play("maintenance", state="on")
    time.sleep(HEED)
    shown = fresh.get("box", "/version")
    assert (shown.status_code, shown.headers["retry-after"]) == (503, "300")
    assert fresh.get("box", "/healthz").status_code == 200
    fresh.play("maintenance", state="off")
    time.sleep(HEED)
    assert fresh.get("box", "/version").status_code == 200

    refused = fresh.play("drain", check=False, forge_drain_hosts="box")
    assert (
        "No host would be left to serve, and forge_min_serving is 1: drain fewer hosts. Nothing was changed."
        in refused.said()
    )
    away = {"forge_drain_hosts": "box", "forge_min_serving": 0, "forge_drain_notice_seconds": 0}
    with load(fresh.url("box", ""), **CLIENTS) as result:
        fresh.play(
            "drain", **away, forge_drain_wait_seconds=2, check=False
        )  # clients come, whatever a balancer would say
        assert [fresh.get("box", path).status_code for path in ("/-/ready", "/version")] == [503, 200]
        fresh.play("undrain", **away)
        time.sleep(HEED)
        assert fresh.get("box", "/-/ready").status_code == 200
    assert result["lost"] == {}


@pytest.mark.thorough
def test_needrestart_leaves_the_app_to_refresh(fresh: Fleet) -> None:
    fresh.on("box", "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq install -y needrestart")
    fresh.play("site")
    rule = "/etc/needrestart/conf.d/fresh.conf"
    before = processes(fresh)
    # As an update does: what is mapped is another file than that of its path.
    fresh.on("box", "for each in $(awk '/libc\\.so|libm\\.so|libz\\.so/ {print $6}' /proc/$(systemctl show -P MainPID "
                    f"fresh@{live(fresh)}.service)/maps | sort -u); do cp -p $each $each.new; mv $each.new $each; done")  # fmt: skip
    listing = "needrestart -b -l -r l"
    fresh.on("box", f"mv {rule} /root/rule")
    assert "NEEDRESTART-SVC: fresh@" in fresh.on("box", listing), "it would be restarted"
    fresh.on("box", f"mv /root/rule {rule}")
    fresh.on("box", "needrestart -b -l -r a")
    assert processes(fresh) == before
    fresh.play("refresh")
    assert not processes(fresh) & before
    assert "fresh" not in fresh.on("box", listing)
