# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight action, in a real run of Ansible: every finding at once, no value of a setting, nothing changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.action import preflight as preflight_plugin

pytestmark = pytest.mark.heavy
REPOSITORY = Path(__file__).parents[4]
SECRET = "hunter22-hunter22"
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - thecodeforge.fastapi.preflight:
"""


def preflight(
    tmp_path: Path, *extra: str, in_database: str = "", hosts: dict[str, Any] | None = None, **variables: Any
) -> tuple[int, str]:
    """Exit code and output of a run with these inventory variables, at a verbosity that shows much."""
    (tmp_path / "play.yml").write_text(PLAY)
    inventory = {"all": {"hosts": hosts or {"localhost": {"ansible_connection": "local", **variables}}}}
    if in_database:
        inventory["forge_database"] = {"hosts": {in_database: {}}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.json", "-vv", "--diff", *extra, "play.yml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "COLUMNS": "10000", "NO_COLOR": "1"},
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_all_findings_are_said_at_once_and_no_secret(tmp_path: Path) -> None:
    rc, output = preflight(
        tmp_path,
        forge_enviroment={"SECRET_KEY": SECRET},
        forge_xyzzy=SECRET,
        forge_workers=SECRET,
        forge_listen=f"{SECRET}:8000",
        forge_environment={
            "DATABASE_URL": "{{ forge_database_url_of_mine }}",
            "OTHER_URL": "{{ forge_database_url }}",
            "SECRET_KEY": "{{ vault_secret_key }}",
            "BROKEN": "{{ '" + SECRET + "' | no_such_filter }}",
        },
        forge_source="{{ nothing.at.all }}",
        forge_root="{{ forge_root }}",
    )
    assert rc == 2
    for sentence in (
        "forge_enviroment is not a variable of this collection (did you mean forge_environment?).",
        "forge_xyzzy is not a variable of this collection.",
        "forge_workers must be of type int.",
        "forge_listen must be of type list of str.",
        "forge_environment.DATABASE_URL cannot be worked out: 'forge_database_url_of_mine' is undefined.",
        "'forge_database_url' is undefined, because the group forge_database has no host: name there the one that runs",
        "forge_environment.SECRET_KEY cannot be worked out: 'vault_secret_key' is undefined.",
        "forge_environment.BROKEN cannot be worked out: ",
        "forge_source cannot be worked out: 'nothing' is undefined.",
        "forge_root cannot be worked out: it refers to itself, or to a variable that refers to it.",
        "Nothing was changed.",
    ):
        assert sentence in output
    assert SECRET not in output
    assert "Traceback" not in output


def test_values_that_cannot_work_are_said_at_once_and_no_secret(tmp_path: Path) -> None:
    rc, output = preflight(
        tmp_path,
        forge_app="My Shop",
        forge_user="root",
        forge_target="main.py",
        forge_listen=["web1:8000"],
        forge_timeout=0,
        forge_environment={
            "DATABASE_URL": f"postgresql://shop:{SECRET}#@db/shop",
            "SECRET_KEY": SECRET + "\a",
            "EMPTY": None,
        },
    )
    assert rc == 2
    for sentence in (
        "forge_app must be lower-case letters",
        "forge_user must be the name of a system account, and not root.",
        "forge_target must have the form package.module:app.",
        "forge_listen: 'web1:8000' must be address:port",
        "forge_timeout must be more than 0.",
        "forge_environment: FORGE_DATABASE_URL is not a URL",
        "forge_environment: FORGE_SECRET_KEY contains the character U+0007",
        "forge_environment: FORGE_EMPTY has no value",
    ):
        assert sentence in output
    assert SECRET not in output


def test_values_of_all_kinds_in_all_variables_are_answered_in_sentences(tmp_path: Path) -> None:
    """A host for each kind, with that value in every variable: the answer names each of them."""
    vault = "$ANSIBLE_VAULT;1.1;AES256\n" + "61" * 40 + "\n"
    kinds = {
        "undefined": "{{ vault_of_nobody }}",
        "broken": "{{ 'x' | no_such_filter",
        "nested": [{"a": ["{{ vault_of_nobody.x[1] }}"]}],
        "fails": "{{ 'x' | int('" + SECRET + "') // 0 }}",
        "encrypted": {"__ansible_vault": vault},
        "nothing": None,
        "control": SECRET + "\a",
        "undecodable": "{{ '/+8=' | b64decode }}",
    }
    names = [name for name in preflight_plugin.OPTIONS if not preflight_plugin.RESULT.match(name)]
    hosts = {kind: {"ansible_connection": "local", **dict.fromkeys(names, value)} for kind, value in kinds.items()}
    rc, output = preflight(tmp_path, hosts=hosts)
    assert rc == 2
    assert output.count("Nothing was changed.") >= len(kinds)
    for kind in kinds:
        answer = output.partition(f"[{kind}]: FAILED! =>")[2].partition("FAILED! =>")[0]
        missing = [name for name in names if f"{name} " not in answer and f"{name}." not in answer]
        assert missing == [], kind
    assert "forge_app contains the character U+DCFF, which it cannot hold." in output
    for word in (SECRET, "Traceback", "Error: ", "codec", "object has no attribute"):
        assert word not in output


def test_right_inventory_passes_also_in_check_mode(tmp_path: Path) -> None:
    rc, output = preflight(
        tmp_path,
        *("-e", "forge_workers=3", "--check"),
        secret=SECRET,
        forge_target="shop.main:app",
        forge_listen=["8000"],
        forge_environment={
            "SECRET_KEY": "{{ secret }}",
            "DATABASE_URL": "postgresql://shop:{{ secret }}@db/shop",
            "TAGS": [1],
        },
    )
    assert rc == 0, output
    assert "changed=0" in output
    assert SECRET not in output


def test_results_of_an_earlier_play_are_not_evaluated(tmp_path: Path) -> None:
    _rc, output = preflight(
        tmp_path, forge_build_result="{{ no_such_thing }}", forge_host_facts={"os": "{{ nor_this }}"}
    )
    assert "cannot be worked out" not in output
    assert "must be of type" not in output


def test_a_password_in_the_directory_of_the_inventory_is_named_by_its_file(tmp_path: Path) -> None:
    """Ansible takes it for the name of a host."""
    project = tmp_path / "shop-servers"
    project.mkdir()
    (project / "vault-password").write_text(SECRET + "\n")
    app = {"all": {"hosts": {"bastion": {}}}, "forge_app": {"hosts": {"web1": {"ansible_connection": "local"}}}}
    (project / "hosts.json").write_text(json.dumps(app))
    rc, output = preflight(tmp_path, "-i", "shop-servers", "--limit", "web1")
    assert rc == 0, output
    assert (
        f"{project}/vault-password lies in the directory of the inventory, so Ansible takes what it holds for" in output
    )
    assert "hosts.json lies" not in output
    assert SECRET not in output


def test_collection_that_is_not_there_is_noticed() -> None:
    assert preflight_plugin.has_collection("thecodeforge", "fastapi")
    assert not preflight_plugin.has_collection("thecodeforge", "none")
    assert not preflight_plugin.has_collection("nobody", "none")


def test_the_collection_for_postgresql_is_needed_only_where_a_database_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_SCAN_SYS_PATH", "false")  # where the package ansible has it
    local = {"ansible_connection": "local"}
    hosts = {"web1": {**local, "forge_database_name": "shop"}, "web2": local, "db1": local}
    rc, output = preflight(tmp_path, hosts=hosts, in_database="db1")
    assert rc == 2
    assert "The database of the group forge_database needs the collection community.postgresql, which the" in output
    assert output.count("FAILED! =>") == 1
    assert "ok: [web2] =>" in output


def test_that_the_inventory_asks_for_a_database_is_seen_wherever_its_url_is_used(tmp_path: Path) -> None:
    """Its server has not been looked at by then, so there is something in its place; the role sets it afterwards."""

    cases: dict[str, tuple[bool, dict[str, Any]]] = {
        "no word of it": (False, {"forge_environment": {"SECRET_KEY": "x"}}),
        "URL": (True, {"forge_environment": {"DATABASE_URL": "{{ forge_database_url }}"}}),
        "through another": (
            True,
            {"forge_environment": {"DATABASE_URL": "{{ mine | replace('sql:', 'sql+asyncpg:') }}"}},
        ),
        "its host": (True, {"forge_environment_plain": {"PGHOST": "{{ forge_database_url | urlsplit('hostname') }}"}}),
        "file": (True, {"forge_files": [{"name": "shop.ini", "content": "url = {{ mine }}"}]}),
        "name": (True, {"forge_database_name": "shop"}),
        "elsewhere": (
            False,
            {
                "forge_database_url": "postgresql://me@elsewhere/shop",
                "forge_environment": {"DATABASE_URL": "{{ mine }}"},
            },
        ),
    }
    hosts = {name.replace(" ", "-"): variables for name, (_uses, variables) in cases.items()}
    mine = json.dumps({"mine": "{{ forge_database_url }}", "ansible_connection": "local"})
    rc, output = preflight(tmp_path, "-e", mine, hosts=hosts, in_database="no-word-of-it")
    assert rc == 0, output
    for name, (uses, _variables) in cases.items():
        answer = output.partition(f"ok: [{name.replace(' ', '-')}] => ")[2].partition("ok: [")[0]
        assert f"uses_database: {str(uses).lower()}" in answer.replace('"', ""), name
