# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""No request is lost by a release or a rollback, on one host, with nothing in front of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, SET, Fleet

sys.path.insert(0, str(REPOSITORY / "tests" / "bench"))
import swap


def test_swaps_under_load_lose_nothing(fleet: Fleet, source: Path) -> None:
    """Two swaps between two generations, with clients of every kind: a deploy and a rollback; ``make bench-swap`` makes more."""
    swap.add_routes(source)
    swap.RESULTS.mkdir(parents=True, exist_ok=True)
    changed = source / "src" / "thecodeforge" / "swapped.py"
    changed.write_text("SWAPPED = 1\n")
    fleet.play("deploy", limit="app12", **swap.SETTINGS)
    first = fleet.live("app12")
    changed.write_text("SWAPPED = 2\n")
    variant = swap.Variant("this collection")
    with swap.load(fleet, variant, swap.PORT, bulk=False, resumes=True):
        fleet.play("deploy", limit="app12", **swap.SETTINGS)
        second = fleet.live("app12")
        fleet.play("rollback", limit="app12", **swap.SETTINGS)
        assert fleet.live("app12") == first != second
    summary = variant.summary()
    print("\n" + swap.table([summary]))
    assert swap.broken_promises(summary) == []
    assert summary["total"] > 2000
    assert summary["writes"]["acknowledged"] > 100


@pytest.mark.thorough
def test_bad_release_is_refused_and_rollback_skips_it(fleet: Fleet, source: Path) -> None:
    """Loads, starts, and is never healthy: stopped, marked bad, its journal shown; what served still serves."""
    before = fleet.live("app12")
    settings = {"forge_health_path": "/not-there", "forge_health_deadline": 5, "forge_keepalive": 73}
    run = fleet.play("deploy", check=False, limit="app12", **settings)
    assert run.rc != 0
    assert "GET /not-there answered 404, not 200" in run.said()
    assert "Journal of" in run.output
    assert fleet.live("app12") == before
    assert fleet.get("app12", "/version").json()["generation"] == before
    assert fleet.on("app12", "systemctl list-units --plain --no-legend 'forge@*.service' | wc -l") == "1"
    states = fleet.on("app12", "grep -h '\"state\"' /srv/forge/generations/*/release.json")
    assert '"bad"' in states
    fleet.play("rollback", limit="app12")
    assert fleet.live("app12") != before
    assert fleet.get("app12", "/healthz").status_code == 200
    fleet.play("deploy")


@pytest.mark.thorough
def test_lock_of_another_is_respected_and_can_be_broken(fleet: Fleet, source: Path) -> None:
    lock = {"token": "x", "user": "eve", "host": "elsewhere", "machine": "other", "pid": 1, "reason": "deploy",
            "since": "2026-01-01 00:00:00 UTC", "expires": time.time() + 110}  # fmt: skip
    fleet.on("app12", f"cat > /srv/forge/lock.json <<'E'\n{json.dumps(lock)}\nE")
    (source / "src" / "thecodeforge" / "locked.py").write_text("LOCKED = True\n")
    before = fleet.live("app12")
    run = fleet.play("deploy", check=False, forge_lock_wait=1)
    assert run.rc != 0
    assert "eve on elsewhere holds the lock since 2026-01-01 00:00:00 UTC (deploy)" in run.said()
    assert fleet.live("app12") == before
    assert json.loads(fleet.on("app12", "cat /srv/forge/lock.json"))["user"] == "eve", "nobody removes another's"
    fleet.play("unlock")
    fleet.play("deploy")
    assert fleet.live("app12") != before
    assert fleet.on("app12", "test -e /srv/forge/lock.json && echo held || echo free") == "free"


@pytest.mark.thorough
def test_killed_controller_leaves_a_state_that_the_next_run_mends(fleet: Fleet, source: Path) -> None:
    import os
    import signal

    (source / "src" / "thecodeforge" / "killed.py").write_text("KILLED = True\n")
    command = ["ansible-playbook", "-i", str(REPOSITORY / "inventories" / "lab"), "playbooks/deploy.yml",
               "--extra-vars", json.dumps(fleet.variables)]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, "FORGE_LAB_SET": SET}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if "TASK" in line and "Start the candidate" in line:
            break
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert fleet.get("app12", "/healthz").status_code == 200
    fleet.play("deploy")
    for host in ("app12", "app13"):
        assert fleet.on(host, "systemctl list-units --plain --no-legend 'forge@*.service' | wc -l") == "1"
        assert fleet.get(host, "/version").json()["generation"] == fleet.live(host)
    assert fleet.play("deploy").changed("app12") == 0


def test_status_says_what_serves(fleet: Fleet, tmp_path: Path) -> None:
    run = fleet.play("status", forge_status_file=str(tmp_path / "status.json"))
    assert "app12" in run.output
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["app12"]["healthy"] is True
    assert status["app12"]["live"] == fleet.live("app12")
    fleet.on("app12", "systemctl stop forge 'forge@*.service'")
    try:
        run = fleet.play("status", check=False)
        assert run.rc != 0
        assert "app12" in run.output
        assert "does not run" in run.said()
    finally:
        fleet.on("app12", "systemctl start forge")
    fleet.until(lambda: fleet.get("app12", "/healthz").status_code == 200)
