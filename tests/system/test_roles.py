"""Each role works on its own, in a playbook of the user's; and two apps share a host without noticing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import yaml
from conftest import REPOSITORY, SET, Fleet

SOLO = {"forge_app": "solo", "forge_user": "solo", "forge_group": "solo", "forge_listen": ["8033"]}
CHAIN = ("python", "service_user", "build", "environment", "service", "release", "migrations", "rollout")


def play(tmp_path: Path, *roles: dict[str, object]) -> str:
    """Run roles on app13 from a playbook that knows nothing of ours. Returns what Ansible printed."""
    prefixed = [{**role, "role": f"thecodeforge.fastapi.{role['role']}"} for role in roles]
    book = tmp_path / "own.yml"
    book.write_text(yaml.safe_dump([{"hosts": "app13", "gather_facts": False, "roles": prefixed}]))
    done = subprocess.run(
        ["ansible-playbook", "-i", str(REPOSITORY / "inventories" / "lab"), str(book)],
        cwd=REPOSITORY, env={**os.environ, "FORGE_LAB_SET": SET, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


def test_environment_alone_writes_a_file_that_only_its_group_reads(fleet: Fleet, tmp_path: Path) -> None:
    settings = {"forge_environment": {"TOKEN": 'a "b" $c'}, "forge_environment_file": "/etc/forge-alone.env"}
    play(tmp_path, {"role": "environment", "vars": settings})
    assert fleet.on("app13", "stat -c '%a %U %G' /etc/forge-alone.env") == "640 root forge"
    ran = fleet.on(
        "app13", "systemd-run --wait --pipe -q -p EnvironmentFile=/etc/forge-alone.env sh -c 'echo \"$FORGE_TOKEN\"'"
    )
    assert ran == 'a "b" $c'


def test_a_playbook_of_the_users_own_makes_a_second_app(fleet: Fleet, source: Path, tmp_path: Path) -> None:
    first = fleet.live("app13")
    pids = fleet.workers("app13")
    url = fleet.on(
        "app13", f"sed -n 's/^FORGE_DATABASE_URL=\"\\(.*\\)\"$/\\1/p' /srv/forge/generations/{first}/environment"
    )
    variables = {
        **SOLO,
        "forge_source": str(source),
        "forge_target": "thecodeforge.main:app",
        "forge_environment": {"DATABASE_URL": url, "SECRET_KEY": "s" * 40},
        "forge_watch_seconds": 1,
        "forge_workers": 2,
    }
    roles = [{"role": role, "vars": variables} for role in CHAIN]
    play(tmp_path, *roles)
    answer = httpx.get(f"http://{fleet.address('app13')}:8033/version", timeout=10).json()
    assert answer["generation"] == fleet.on("app13", "basename $(readlink /srv/solo/current)")
    assert fleet.on("app13", f"stat -c %U /proc/{answer['pid']}") == "solo"
    again = play(tmp_path, *roles)
    assert "changed=0" in again.rsplit("PLAY RECAP", 1)[1]

    assert fleet.live("app13") == first
    assert fleet.workers("app13") == pids, "the other app has not noticed"
    assert fleet.get("app13", "/healthz").status_code == 200
    fleet.on(
        "app13", "systemctl disable -q --now solo.service solo.socket && rm -rf /srv/solo /etc/systemd/system/solo*"
    )
    assert fleet.workers("app13") == pids
