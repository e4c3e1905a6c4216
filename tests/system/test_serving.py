# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What serves survives: reboots, dead workers, a dead master, drift by hand."""

from __future__ import annotations

import pytest
from conftest import HOSTS, Fleet
from tiny import load


def test_second_run_changes_nothing(fleet: Fleet) -> None:
    fleet.play("site")  # other files may have used the nodes
    run = fleet.play("site")
    assert [run.changed(host) for host in (*HOSTS, "db")] == [0, 0, 0]


def test_node_that_loses_power_serves_the_same_generation(fleet: Fleet) -> None:
    before = fleet.live("app12")
    fleet.lab("kill", "app12")
    fleet.lab("start", "app12")
    answer = fleet.until(lambda: fleet.get("app12", "/version").json(), what="serving after the boot")
    assert answer["generation"] == before
    # As after a boot with another address, which the database does not know: site.yml tells it.
    fleet.on(
        "db", f"sed -i '/{fleet.address('app12')}/d' /etc/postgresql/*/main/pg_hba.conf && systemctl reload postgresql"
    )
    assert fleet.play("site").changed("db") > 0
    assert fleet.get("app12", "/readyz").status_code == 200


@pytest.mark.parametrize("signal", ["KILL", "SEGV"])
def test_dead_worker_is_replaced_and_the_master_serves_on(fleet: Fleet, signal: str) -> None:
    master, workers = fleet.master("app12"), fleet.workers("app12")
    fleet.on("app12", f"kill -{signal} {workers[0]}")
    fleet.until(lambda: workers[0] not in fleet.workers("app12") and len(fleet.workers("app12")) == len(workers))
    assert fleet.master("app12") == master
    assert fleet.get("app12", "/healthz").status_code == 200


@pytest.mark.parametrize("host", HOSTS)
def test_socket_stays_open_in_a_restart_and_not_in_a_stop(fleet: Fleet, host: str) -> None:
    """Versions of systemd differ in what a restart stops."""
    opened = "systemctl show forge.socket -P ActiveEnterTimestampMonotonic"
    before = fleet.on(host, opened)
    with load(fleet.url(host, "")) as result:
        for verb in ("restart", "try-restart", "reload-or-restart"):
            fleet.on(host, f"systemctl {verb} forge")
            fleet.until(lambda: fleet.get(host, "/healthz").status_code == 200)
    assert result["lost"] == {}
    assert fleet.on(host, opened) == before
    fleet.on(host, "systemctl stop forge")
    fleet.until(lambda: fleet.on(host, "systemctl is-active forge.socket", check=False) == "inactive", 5)
    fleet.on(host, "systemctl start forge")
    fleet.until(lambda: fleet.get(host, "/healthz").status_code == 200)


def test_dead_master_comes_back(fleet: Fleet) -> None:
    master, before = fleet.master("app12"), fleet.live("app12")
    fleet.on("app12", f"kill -KILL {master}")
    fleet.until(lambda: fleet.master("app12") not in (0, master))
    assert fleet.until(lambda: fleet.get("app12", "/version").json(), what="serving again")["generation"] == before


@pytest.mark.thorough
def test_worker_in_an_endless_loop_is_replaced(fleet: Fleet) -> None:
    fleet.play("deploy", limit="app12", forge_timeout=6)
    try:
        master, workers = fleet.master("app12"), set(fleet.workers("app12"))
        with pytest.raises(Exception, match="timed out|disconnected|reset"):
            fleet.get("app12", "/misbehave/loop", timeout=3)
        fleet.until(lambda: len(set(fleet.workers("app12")) & workers) == len(workers) - 1, 40, "replacing the worker")
        assert fleet.master("app12") == master
        assert fleet.get("app12", "/healthz").status_code == 200
    finally:
        fleet.play("deploy", limit="app12")


def test_edited_unit_and_settings_are_mended(fleet: Fleet) -> None:
    live = fleet.live("app12")
    main = f"/srv/forge/releases/{live.split('-')[0]}/src/thecodeforge/main.py"
    fleet.on("app12", f"echo '# edited' >> /etc/systemd/system/forge@{live}.service")
    fleet.on("app12", f"chmod 0644 /srv/forge/generations/{live}/environment")
    fleet.on("app12", f"echo 'x = 1' >> {main}")
    assert fleet.play("deploy").changed("app12") > 0
    assert "# edited" not in fleet.on("app12", f"cat /etc/systemd/system/forge@{live}.service")
    assert fleet.on("app12", f"stat -c %a /srv/forge/generations/{live}/environment") == "640"
    assert fleet.on("app12", f"tail -1 {main}") != "x = 1"
    assert fleet.play("deploy").changed("app12") == 0
