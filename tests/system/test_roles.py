# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role works by itself with the inputs that its README lists; and two apps share a host without noticing."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from conftest import REPOSITORY, Fleet
from tiny import write_project

SOLO = {"forge_app": "solo", "forge_user": "solo", "forge_group": "solo", "forge_listen": ["8033"]}
CHAIN = ("build", "environment", "service", "release", "migrations", "rollout")
COLLECTION = "thecodeforge.fastapi"


def run_playbook(fleet: Fleet, inventory: Path, directory: Path, plays: list[dict[str, Any]]) -> str:
    """Run a playbook that knows nothing of ours. Returns what Ansible printed."""
    book = directory / "own.yml"
    book.write_text(yaml.safe_dump(plays))
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(book)],
        cwd=REPOSITORY, env={**os.environ, "FORGE_LAB_SET": fleet.lab_set, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


def include(role: str, **variables: Any) -> dict[str, Any]:
    return {
        "name": f"Use role {role}",
        "ansible.builtin.include_role": {"name": f"{COLLECTION}.{role}"},
        "vars": variables,
    }


# -- each role alone -----------------------------------------------------------------------------------


@dataclass
class Lonely:
    """A node in an inventory without groups and variables, for one role at a time."""

    fleet: Fleet
    inventory: Path
    variables: dict[str, Any]
    output: str = ""

    def use(self, role: str, result: str = "", entry_point: str = "", **variables: Any) -> Any:
        """Include a role, which is given the inputs that its README lists. Returns the fact that it gives."""
        task = include(role, **{"forge_app": "lone", "forge_listen": ["8034"], **variables})
        if entry_point:
            task["ansible.builtin.include_role"]["tasks_from"] = entry_point
        found = self.inventory.parent / "result.json"
        save = {"content": f"{{{{ {result or '{}'} | to_json }}}}", "dest": str(found), "mode": "0600"}
        tasks = [task, {"ansible.builtin.copy": save, "delegate_to": "localhost", "changed_when": False}]
        plays = [{"hosts": "box", "gather_facts": False, "tasks": tasks}]
        self.output = run_playbook(self.fleet, self.inventory, self.inventory.parent, plays)
        return json.loads(found.read_text())

    def changed(self) -> bool:
        return "changed=0" not in self.output.rsplit("PLAY RECAP", 1)[1]

    def live(self) -> str:
        return self.fleet.on("box", "basename $(readlink /srv/lone/current)")


@pytest.fixture(scope="module")
def lonely(box: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Lonely:
    directory = tmp_path_factory.mktemp("lonely")
    shown = subprocess.run(
        [REPOSITORY / "inventories" / "lab" / "nodes.py", "--list"],
        env={**os.environ, "FORGE_LAB_SET": box.lab_set}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    inventory = directory / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": json.loads(shown.stdout)["_meta"]["hostvars"]}}))
    source = write_project(directory / "shop", "gunicorn", "uvicorn-worker")
    app = {"forge_app": "lone", "forge_source": str(source), "forge_target": "shop.main:app", "forge_listen": ["8034"]}
    return Lonely(box, inventory, {**app, "forge_build_cache": str(REPOSITORY / "build" / "cache")})


def test_common_alone_gathers_facts(lonely: Lonely) -> None:
    facts = lonely.use("common", "forge_host_facts")
    assert (facts["host"]["os"]["id"], facts["host"]["os"]["version"]) == ("debian", "12")
    assert facts["host"]["python"]["path"] == "/usr/bin/python3"


def test_common_alone_refuses_a_host_that_is_not_supported(lonely: Lonely) -> None:
    with pytest.raises(AssertionError, match="box runs Debian 12: this collection supports debian 13 with systemd"):
        lonely.use("common", entry_point="gather", forge_supported_systems=["debian 13"])


def test_build_alone_builds_for_the_host(lonely: Lonely) -> None:
    built = lonely.use("build", "forge_build_result", **lonely.variables)
    assert Path(built["code"]["path"]).is_file()
    assert Path(built["hosts"]["box"]["blob"]["path"]).is_file()


def test_environment_alone_renders_settings(lonely: Lonely) -> None:
    files = [{"name": "shop.toml", "content": "debug = false\n"}]
    settings = {"forge_environment": {"DEBUG": False}, "forge_environment_prefix": "SHOP_", "forge_files": files}
    given = lonely.use("environment", "forge_environment_result", **settings)
    assert given == {"text": 'SHOP_DEBUG="false"\n', "files": {"files/shop.toml": "debug = false\n"}}
    assert not lonely.changed()


def test_service_alone_renders_units_and_sizes_workers(lonely: Lonely) -> None:
    given = lonely.use("service", "forge_service_result", **lonely.variables, forge_workers=3)
    assert given["workers"] == {"count": 3, "reason": "set by hand"}
    assert given["listen"] == ["8034"]
    assert "workers = 3\n" in given["files"]["gunicorn.conf.py"]
    assert "ListenStream=[::]:8034\n" in given["units"]["lone.socket"]
    assert {"lone@.service", "lone@.target", "lone@.socket", "lone.service"} <= set(given["units"])


def test_service_user_alone_makes_an_account(lonely: Lonely) -> None:
    lonely.use("service_user", forge_user="seller", forge_group="sellers")
    assert lonely.fleet.on("box", "id -un seller; id -gn seller").split() == ["seller", "sellers"]
    lonely.use("service_user", forge_user="seller", forge_group="sellers")
    assert not lonely.changed()


def test_python_alone_leaves_a_host_that_has_everything(lonely: Lonely) -> None:
    lonely.use("python", forge_packages=["curl"])
    assert not lonely.changed()


def test_a_package_that_is_not_to_be_had_is_named_with_its_variable(lonely: Lonely) -> None:
    with pytest.raises(AssertionError, match=r"forge_packages: apt could not install libldap2 on box: .*libldap2"):
        lonely.use("python", forge_packages=["libldap2"])


def test_release_alone_stages_and_touches_nothing_that_serves(lonely: Lonely) -> None:
    given = lonely.use("release", "forge_release_result", **lonely.variables)
    assert "validation" in given["missing"]
    assert (given["live"], given["converged"]) == ("", False)
    record = json.loads(lonely.fleet.on("box", f"cat /srv/lone/generations/{given['generation']}/release.json"))
    assert record["state"] == "validated"
    assert not lonely.fleet.on("box", "systemctl list-units --plain --no-legend 'lone@*.service'")


def test_migrations_alone_run_in_the_staged_generation(lonely: Lonely) -> None:
    commands = {
        "forge_migrations": ["python -c \"import shop; print('migrated with', shop.__name__)\""],
        "forge_schema_version": "python -c \"print('v7')\"",
    }
    given = lonely.use("migrations", "forge_migrations_result", **lonely.variables, **commands)
    assert given["version"] == "v7"
    assert "migrated with shop" in lonely.output


def test_rollout_alone_brings_the_release_into_service(lonely: Lonely) -> None:
    variables = {**lonely.variables, "forge_watch_seconds": 1, "forge_health_path": "/healthz"}
    given = lonely.use("rollout", "forge_rollout_result", **variables)
    assert given["candidate"]["healthy"]
    assert given["switch"]["to"] == lonely.live()
    answer = httpx.get(f"http://{lonely.fleet.address('box')}:8034/version", timeout=10)
    assert answer.json()["generation"] == lonely.live()
    lonely.use("rollout", "forge_rollout_result", **variables)
    assert not lonely.changed()


def test_rollout_alone_takes_a_generation_that_it_is_told(lonely: Lonely) -> None:
    """Without a build: the generation is there already."""
    before = lonely.live()
    staged = lonely.use("release", "forge_release_result", **lonely.variables, forge_keepalive=76)["generation"]
    assert lonely.live() == before != staged
    target = {"forge_app": "lone", "forge_watch_seconds": 1, "forge_rollout_target": {"generation": staged}}
    lonely.use("rollout", "forge_rollout_result", **target)
    assert lonely.live() == staged
    assert "Build the app" not in lonely.output


def test_postgresql_alone_gives_the_url_of_its_database(fleet: Fleet, tmp_path: Path) -> None:
    """On the server of the fleet. It knows no workers, so it allows as many connections as the server may need; once."""
    clients = [fleet.address(host) for host in ("app12", "app13")]
    found = tmp_path / "result.json"
    facts = "{{ {'url': forge_database_url, 'result': forge_postgresql_result} | to_json }}"
    save = {"content": facts, "dest": str(found), "mode": "0600"}
    tasks = [
        include("postgresql", forge_postgresql_clients=clients),
        {"ansible.builtin.copy": save, "delegate_to": "localhost", "changed_when": False},
    ]
    plays = [{"hosts": "db", "gather_facts": False, "tasks": tasks}]
    run_playbook(fleet, REPOSITORY / "inventories" / "lab", tmp_path, plays)
    output = run_playbook(fleet, REPOSITORY / "inventories" / "lab", tmp_path, plays)
    given = json.loads(found.read_text())
    assert given["url"].startswith("postgresql://forge:")
    assert given["url"].endswith("@127.0.0.1:5432/forge")
    assert given["result"] == {"connections": 90}
    assert "changed=0" in output.rsplit("PLAY RECAP", 1)[1]


def test_environment_alone_writes_a_file_that_only_its_group_reads(fleet: Fleet, tmp_path: Path) -> None:
    settings = {"forge_environment": {"TOKEN": 'a "b" $c'}, "forge_environment_file": "/etc/forge-alone.env"}
    plays = [{"hosts": "app13", "gather_facts": False, "tasks": [include("environment", **settings)]}]
    run_playbook(fleet, REPOSITORY / "inventories" / "lab", tmp_path, plays)
    assert fleet.on("app13", "stat -c '%a %U %G' /etc/forge-alone.env") == "640 root forge"
    ran = fleet.on(
        "app13", "systemd-run --wait --pipe -q -p EnvironmentFile=/etc/forge-alone.env sh -c 'echo \"$FORGE_TOKEN\"'"
    )
    assert ran == 'a "b" $c'


# -- several roles, and what the inventory says --------------------------------------------------------


@pytest.mark.thorough
def test_a_playbook_of_the_users_own_makes_a_second_app(fleet: Fleet, source: Path, tmp_path: Path) -> None:
    """All of it without quick calls, Ansible's own way."""
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
        "forge_quick_calls": False,
    }
    inventory = REPOSITORY / "inventories" / "lab"
    roles = [{"role": f"{COLLECTION}.{role}", "vars": variables} for role in CHAIN]
    plays = [{"hosts": "app13", "gather_facts": False, "roles": roles}]
    run_playbook(fleet, inventory, tmp_path, plays)
    answer = httpx.get(f"http://{fleet.address('app13')}:8033/version", timeout=10).json()
    assert answer["generation"] == fleet.on("app13", "basename $(readlink /srv/solo/current)")
    assert fleet.on("app13", f"stat -c %U /proc/{answer['pid']}") == "solo"
    again = run_playbook(fleet, inventory, tmp_path, plays)
    assert "changed=0" in again.rsplit("PLAY RECAP", 1)[1]

    assert fleet.live("app13") == first
    assert fleet.workers("app13") == pids, "the other app has not noticed"
    assert fleet.get("app13", "/healthz").status_code == 200
    fleet.on(
        "app13", "systemctl disable -q --now solo.service solo.socket && rm -rf /srv/solo /etc/systemd/system/solo*"
    )
    assert fleet.workers("app13") == pids
