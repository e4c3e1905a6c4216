# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""New code, new settings, migrations."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import HOSTS, REPOSITORY, SET, Fleet


def change(source: Path, text: str) -> None:
    (source / "src" / "thecodeforge" / "changed.py").write_text(f"CHANGED = {text!r}\n")


def test_code_only_change_reuses_the_layer_and_ships_kilobytes(fleet: Fleet, source: Path) -> None:
    before = {host: fleet.live(host) for host in HOSTS}
    layers = {host: fleet.on(host, "ls /srv/forge/layers") for host in HOSTS}
    change(source, "code only")
    run = fleet.play("deploy", flags=("-v",))
    sent = [int(number) for number in re.findall(r"sent_bytes: ([1-9]\d*)", run.output)]
    assert len(sent) == len(HOSTS)
    assert max(sent) < 300_000, sent
    for host in HOSTS:
        assert fleet.on(host, "ls /srv/forge/layers") == layers[host]
        assert fleet.live(host) != before[host]
        assert fleet.get(host, "/version").json()["generation"] == fleet.live(host)


def test_changed_setting_is_a_new_generation_of_the_same_release(fleet: Fleet) -> None:
    before = fleet.live("app12")
    try:
        fleet.play("deploy", limit="app12", forge_keepalive=76)
        after = fleet.live("app12")
        assert after != before
        assert after.split("-")[0] == before.split("-")[0]
    finally:
        fleet.play("deploy", limit="app12")
    assert fleet.live("app12") == before


def test_check_mode_says_what_would_happen_and_does_nothing(fleet: Fleet, source: Path) -> None:
    before = {host: fleet.fingerprint(host) for host in HOSTS}
    change(source, "only looked at")
    run = fleet.play("deploy", flags=("--check",))
    assert "would run: alembic upgrade head" in run.output
    for host in HOSTS:
        assert run.changed(host) >= 3, "stage, candidate, switch"
        assert re.search(rf"^{host} .* {fleet.live(host)}  [0-9a-f]{{12}}-[0-9a-f]{{8}} ", run.output, re.MULTILINE)
        assert fleet.fingerprint(host) == before[host]


@pytest.fixture
def counter(fleet: Fleet) -> str:
    """A migration that leaves a row each time it runs."""
    return (
        "python -c \"import os, psycopg; c = psycopg.connect(os.environ['FORGE_DATABASE_URL']); "
        "c.execute('create table if not exists migration_runs (at timestamptz default now())'); "
        "c.execute('insert into migration_runs default values'); c.commit()\""
    )


def runs(fleet: Fleet) -> int:
    """How often that migration has run."""
    rows = "runuser -u postgres -- psql -At forge -c 'select count(*) from migration_runs' || echo 0"
    return int(fleet.on("db", f"cd / && {rows}"))


def test_migrations_run_once_for_the_fleet(fleet: Fleet, source: Path, counter: str) -> None:
    settings = {"forge_migrations": ["alembic upgrade head", counter], "forge_migrations_paths": []}
    first = runs(fleet)
    change(source, "migrates once")
    fleet.play("deploy", **settings)
    assert runs(fleet) == first + 1
    fleet.play("deploy", **settings)
    assert runs(fleet) == first + 1, "nothing was released, so nothing is migrated"


@pytest.mark.thorough
def test_migrations_are_not_run_again_while_their_files_are_the_same(fleet: Fleet, source: Path, counter: str) -> None:
    settings: dict[str, Any] = {"forge_migrations": ["alembic upgrade head", counter], "limit": "app12"}
    script = source / "migrations" / "script.py.mako"
    change(source, "with marks")
    fleet.play("deploy", **settings)
    first = runs(fleet)
    change(source, "code alone")
    assert "Nothing to migrate" in fleet.play("deploy", **settings).output
    assert runs(fleet) == first
    try:
        script.write_text(script.read_text() + "\n")
        fleet.play("deploy", **settings)
    finally:
        script.write_text(script.read_text()[:-1])
    assert runs(fleet) == first + 1


def test_failed_migration_stops_everything(fleet: Fleet, source: Path) -> None:
    before = {host: fleet.live(host) for host in HOSTS}
    change(source, "never serves")
    run = fleet.play("deploy", check=False, forge_migrations=["python -c \"raise SystemExit('half way')\""])
    assert run.rc != 0
    assert "half way" in run.output
    assert "What served before still serves" in run.said()
    assert {host: fleet.live(host) for host in HOSTS} == before
    for host in HOSTS:
        assert fleet.get(host, "/version").json()["generation"] == before[host]
        assert fleet.on(host, "systemctl list-units --plain --no-legend 'forge@*.service' | wc -l") == "1"


def test_candidate_that_cannot_start_never_serves(fleet: Fleet, source: Path) -> None:
    before = fleet.live("app12")
    change(source, "dies")
    path = source / "src" / "thecodeforge" / "changed.py"
    main = source / "src" / "thecodeforge" / "main.py"
    kept = main.read_text()
    main.write_text(kept + "\n\nfrom thecodeforge import nothing_like_that\n")
    try:
        run = fleet.play("deploy", check=False)
    finally:
        main.write_text(kept)
        path.unlink()
    assert run.rc != 0
    assert "does not load: ImportError" in run.said()
    assert fleet.live("app12") == before
    assert fleet.get("app12", "/version").json()["generation"] == before


@pytest.mark.thorough
def test_interrupted_stage_heals(fleet: Fleet, source: Path) -> None:
    """A layer without its record, and rubbish of an upload that was cut, as after a power cut."""
    fleet.on(
        "app12",
        "rm /srv/forge/layers/*/.complete && mkdir /srv/forge/layers/.incoming-x && rm -r /srv/forge/layers/*/lib*",
    )
    change(source, "after the power cut")
    fleet.play("deploy")
    assert fleet.on("app12", "ls -A /srv/forge/layers | grep -c incoming", check=False) == "0"
    assert fleet.get("app12", "/version").json()["generation"] == fleet.live("app12")


@pytest.mark.thorough
def test_from_galaxys_artifact(fleet: Fleet, tmp_path: Path) -> None:
    """As a user does it: built, installed into an empty path, the example copied and edited, run by name."""
    import os
    import shutil
    import subprocess

    def run(*command: str, cwd: Path = tmp_path, **environment: str) -> str:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    run("ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), cwd=REPOSITORY)
    artifact = next(tmp_path.glob("thecodeforge-fastapi-*.tar.gz"))
    installed = tmp_path / "collections"
    run("ansible-galaxy", "collection", "install", str(artifact), "--no-deps", "-p", str(installed))
    shipped = {path.name for path in (installed / "ansible_collections/thecodeforge/fastapi").iterdir()}
    assert {"roles", "plugins", "playbooks", "meta", "README.md", "LICENSE"} <= shipped
    assert not {"app", "tests", "molecule", "build", ".venv"} & shipped

    project = tmp_path / "shop-servers"
    shutil.copytree(installed / "ansible_collections/thecodeforge/fastapi/inventories/example", project)
    name_the_nodes(project / "hosts.yml")
    edit(
        project / "group_vars/all/main.yml",
        ("{{ inventory_dir }}/../shop", fleet.variables["forge_source"]),
        ("shop.main:app", "thecodeforge.main:app"),
        ("forge_app: shop", "forge_app: forge"),  # as on the nodes
    )
    edit(project / "group_vars/all/vault.yml", ("replace-me-with-at-least-32-random-characters", "x1" * 20))
    (project / "vault-password").write_text("correct horse\n")
    # The database of this fleet has its password already.
    shutil.copytree(REPOSITORY / "inventories" / "lab" / "secrets", project / "secrets")
    vault = ("--vault-password-file", "vault-password")
    run("ansible-vault", "encrypt", *vault, "group_vars/all/vault.yml", cwd=project)
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed), "ANSIBLE_CONFIG": str(project / "ansible.cfg")}
    try:
        output = run("ansible-playbook", "thecodeforge.fastapi.site", *vault, cwd=project, **environment)
        assert re.search(r"^app12 .* http://", output, re.MULTILINE)
        assert str(REPOSITORY / "build") not in output
        assert fleet.get("app12", "/readyz").status_code == 200
        again = run("ansible-playbook", "thecodeforge.fastapi.site", *vault, cwd=project, **environment)
        assert re.search(r"^app12 .* no change ", again, re.MULTILINE)
    finally:
        fleet.play("deploy")


def name_the_nodes(hosts: Path) -> None:
    """The nodes of this set in place of the example's hosts, with how to reach them."""
    import json
    import os
    import subprocess

    import yaml

    shown = subprocess.run(
        [REPOSITORY / "inventories" / "lab" / "nodes.py", "--list"], env={**os.environ, "FORGE_LAB_SET": SET},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(shown.stdout)
    content = yaml.safe_load(hosts.read_text())
    del content["all"]["vars"]["ansible_user"]
    for group in ("forge_app", "forge_database"):
        assert content[group]["hosts"]
        content[group]["hosts"] = {name: found["_meta"]["hostvars"][name] for name in found[group]["hosts"]}
    hosts.write_text(yaml.safe_dump(content))


def edit(path: Path, *replacements: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_hosts_and_a_controller_with_a_life_of_their_own(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once: damaged state, a user who holds what he can, sudo that wants a tty, and somebody's own ansible.cfg."""
    locks = "/srv/forge/locks/*"
    hold = f"for lock in {locks} /srv/forge/.lock; do flock --shared $lock sleep 120 & done"
    fleet.on("app12", "rm -f /srv/forge/lock.json; mkdir /srv/forge/lock.json; touch /srv/forge/.lock")
    fleet.on("app12", 'printf \'{"to": [1]}\\n{"time": "2026-01\' >> /srv/forge/ledger.jsonl')
    fleet.on("app12", f"runuser -u nobody -- sh -c '{hold}' >/dev/null 2>&1 </dev/null")
    fleet.on("app13", "echo 'Defaults requiretty' > /etc/sudoers.d/tty")
    monkeypatch.setenv("ANSIBLE_STRATEGY", "free")
    monkeypatch.setenv("ANSIBLE_PIPELINING", "false")
    monkeypatch.setenv("ANSIBLE_SSH_PIPELINING", "false")
    monkeypatch.setenv("ANSIBLE_FORKS", "1")
    try:
        run = fleet.play("site", forge_keepalive=77, forge_packages=["libmagic1"])
        assert "/srv/forge/lock.json cannot be read as a lock: it holds nobody up." in run.said()
        again = fleet.play("deploy", forge_keepalive=77, forge_packages=["libmagic1"])
        assert [again.changed(host) for host in HOSTS] == [0, 0]
        last = fleet.on("app12", "tail -n 1 /srv/forge/ledger.jsonl")
        assert (json.loads(last)["result"], json.loads(last)["to"]) == ("switched", fleet.live("app12"))
        assert fleet.on("app12", f"stat -c %a /srv/forge/locks {locks} | sort -u") == "600\n700"
        monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "ansible.posix.json")
        status = fleet.play("status", forge_keepalive=77, forge_packages=["libmagic1"]).output
        assert "plays" in json.JSONDecoder().raw_decode(status)[0]
        assert fleet.live("app12") in status
    finally:
        fleet.on("app12", "pkill -u nobody sleep || true")
        fleet.on("app13", "rm /etc/sudoers.d/tty")
    monkeypatch.undo()
    diff = fleet.play("deploy", flags=("--check", "--diff"), forge_keepalive=78, forge_packages=["libmagic1"]).output
    changed = [line for line in diff.splitlines() if re.match(r"[+-](?!\+\+|--)", line)]
    assert changed == ["-keepalive = 77", "+keepalive = 78"] * len(HOSTS)
    fleet.play("deploy")  # as the tests after this one know the fleet
