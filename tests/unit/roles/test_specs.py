# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles say the same thing everywhere: defaults, argument_specs, README. And shipped content stands on its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.inventory.rules import declared_options

REPOSITORY = Path(__file__).parents[3]
ROLES = sorted(path.name for path in (REPOSITORY / "roles").iterdir())
COLLECTION = "thecodeforge.fastapi"
PLUGINS = {
    kind: sorted(path.stem for path in (REPOSITORY / "plugins" / directory).glob("*.py"))
    for kind, directory in (("module", "modules"), ("filter", "filter"))
}


@cache
def load(path: str) -> Any:
    return yaml.safe_load((REPOSITORY / path).read_text(encoding="utf-8"))


def specs(role: str) -> dict[str, Any]:
    return load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]


def defaults_of(role: str) -> str:
    return "roles/common/defaults/main.yml" if role == "common" else f"roles/{role}/defaults/main/{role}.yml"


def options_of(role: str) -> dict[str, Any]:
    return specs(role)["main"].get("options") or {}


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    loader = SourceFileLoader("docs_of_roles", str(REPOSITORY / "tools" / "role_docs"))
    module = module_from_spec(spec_from_loader("docs_of_roles", loader))  # type: ignore[arg-type]
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_what_the_specification_says(role: str) -> None:
    said = {name: option.get("default") for name, option in options_of(role).items()}
    assert load(defaults_of(role)) == said


@pytest.mark.parametrize("role", [role for role in ROLES if role != "common"])
def test_every_role_has_the_defaults_of_common(role: str) -> None:
    link = REPOSITORY / "roles" / role / "defaults" / "main" / "common.yml"
    assert link.readlink() == Path("../../../common/defaults/main.yml"), (
        "a link within the collection, so that an artifact has it"
    )
    assert sorted(path.stem for path in link.parent.iterdir()) == sorted({"common", role})


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_described_typed_and_carries_the_prefix(role: str) -> None:
    for spec in specs(role).values():
        assert spec["short_description"]
        for name, option in (spec.get("options") or {}).items():
            assert name.startswith("forge_")
            assert option["description"]
            assert "default" in option or option.get("required")
            assert ("elements" in option) == (option["type"] == "list")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_one_entry_point(role: str) -> None:
    """Other task files are steps: they have no specification of their own."""
    assert set(specs(role)) == {"main"}
    assert (REPOSITORY / "roles" / role / "tasks" / "main.yml").is_file()


def test_no_variable_belongs_to_two_roles() -> None:
    owners: dict[str, list[str]] = {}
    for role in ROLES:
        for name in options_of(role):
            owners.setdefault(name, []).append(role)
    assert {name: roles for name, roles in owners.items() if len(roles) > 1} == {}


@pytest.mark.parametrize("role", ROLES)
def test_every_public_variable_a_role_uses_is_declared(role: str) -> None:
    """A misspelt name in a task or a template would only show on a host."""
    groups = {"forge_app", "forge_database", "forge_answering", "forge_edge", "forge_load_balancer"}
    used = set()
    for directory in ("tasks", "templates", "handlers", "vars"):
        for path in (REPOSITORY / "roles" / role / directory).rglob("*"):
            if path.is_file():
                used |= set(re.findall(r"(?<![\w.])forge_[a-z_]+\b(?!\.py)", path.read_text(encoding="utf-8")))
    assert used - set(declared_options()) - groups - {"forge_worker", "forge_container"} == set()


# -- what passes from one role to another --------------------------------------------------------------


def places() -> dict[str, list[Path]]:
    """Files that may read a variable, by the place that they belong to: a role, the playbooks, the plugins."""
    found = {
        f"role {role}": [path for path in (REPOSITORY / "roles" / role).rglob("*") if path.suffix in (".yml", ".j2")]
        for role in ROLES
    }
    found["playbooks"] = list((REPOSITORY / "playbooks").glob("*.yml"))
    found["plugins"] = list((REPOSITORY / "plugins").rglob("*.py"))
    return found


def names_set(node: Any) -> set[str]:
    """Names that YAML sets: facts, registered results, names of loops, and what stands below ``vars``."""
    if isinstance(node, list):
        return set().union(*map(names_set, node))
    if not isinstance(node, dict):
        return set()
    found = set().union(*map(names_set, node.values()))
    found |= set(node.get("ansible.builtin.set_fact") or {}) | set(node.get("vars") or {})
    return found | {node[key] for key in ("register", "loop_var", "index_var") if key in node}


def sets_in(place: list[Path]) -> set[str]:
    found = set()
    for path in place:
        if path.suffix == ".yml":
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            found |= set(content or {}) if path.parent.name == "vars" else names_set(content)
    return found


def reads_in(place: list[Path]) -> set[str]:
    """Hidden names that stand anywhere in the files; with Python's own mangled names left out."""
    return {name for path in place for name in re.findall(r"\b__forge_\w+", path.read_text(encoding="utf-8"))}


def test_no_role_playbook_or_plugin_reads_a_hidden_fact_of_another() -> None:
    """What passes from one to the next is a documented variable; a hidden one is known only where it is set."""
    hidden = {
        place: sorted(foreign) for place, files in places().items() if (foreign := reads_in(files) - sets_in(files))
    }
    assert hidden == {}


def test_no_hidden_name_is_set_in_two_places() -> None:
    """A fact outlives the role that set it."""
    owners: dict[str, list[str]] = {}
    for place, files in places().items():
        for name in sets_in(files):
            if name.startswith("__forge_"):
                owners.setdefault(name, []).append(place)
    assert {name: where for name, where in owners.items() if len(where) > 1} == {}


def facts_set(node: Any) -> set[str]:
    """Names that outlive a task."""
    if isinstance(node, list):
        return set().union(*map(facts_set, node))
    if not isinstance(node, dict):
        return set()
    found = set().union(*map(facts_set, node.values())) | set(node.get("ansible.builtin.set_fact") or {})
    return found | ({node["register"]} if "register" in node else set())


def public_facts(files: list[Path]) -> set[str]:
    found = set().union(*(facts_set(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in files))
    return {name for name in found if not name.startswith("__")}


@pytest.mark.parametrize("role", ROLES)
def test_every_result_is_described_by_the_role_that_gives_it(role: str, docs: ModuleType) -> None:
    options = options_of(role)
    given = public_facts(list((REPOSITORY / "roles" / role / "tasks").glob("*.yml")))
    assert given <= set(options)
    assert {name for name, option in options.items() if docs.is_result(option)} <= given
    for name in given - {"forge_database_url", "forge_database_name", "forge_database_user"}:
        assert "Gives " in docs.words(options[name]["description"]), name
        assert options[name]["default"] in ({}, [])


def test_results_are_set_by_roles_alone() -> None:
    assert public_facts(places()["playbooks"]) == set()


def test_no_role_needs_a_result_that_it_does_not_know_how_to_get(docs: ModuleType) -> None:
    """A role reads results of itself, of common, of those that its main includes, and of those that these include."""
    givers = {name: role for role in ROLES for name, option in options_of(role).items() if docs.is_result(option)}

    def reached(role: str) -> set[str]:
        others = set(docs.included_roles(role))
        return {role, "common"} | others | set().union(*map(reached, others))

    optional = {
        "service": {"forge_postgresql_result"},  # without it the database is no limit
        "environment": {"forge_build_result"},  # without it there is no app to ask
        "rollout": {"forge_migrations_result", "forge_rehearsal_result"},  # without them the schema is not known
    }
    for role in ROLES:
        text = "".join(
            path.read_text(encoding="utf-8") for path in places()[f"role {role}"] if path.parent.name != "meta"
        )
        read = {name for name in givers if re.search(rf"\b{name}\b", text)}
        assert {name for name in read if givers[name] not in reached(role)} == optional.get(role, set()), role


def plays(path: Path) -> list[dict[str, Any]]:
    return [play for play in yaml.safe_load(path.read_text(encoding="utf-8")) if "hosts" in play]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "playbooks").glob("*.yml")), ids=lambda path: path.stem)
def test_plays_leave_to_the_inventory_what_is_its_own(path: Path) -> None:
    """Variables of a play win over those of the inventory."""
    for play in plays(path):
        assert not [name for name in play.get("vars", {}) if name.startswith(("forge_", "ansible_"))]
        if play["hosts"] != "localhost":
            assert play["strategy"] == "ansible.builtin.linear", "run_once and meta tasks rely on it"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "playbooks").glob("*.yml")), ids=lambda path: path.stem)
def test_playbooks_check_variables_once(path: Path) -> None:
    """Preflight does. A step has no specification, and its role would read that of the whole for nothing."""
    for play in plays(path):
        steps = ([each, *each.get("block", []), *each.get("rescue", [])] for each in play["tasks"])
        for task in chain.from_iterable(steps):
            call = task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role")
            if call:
                assert call["rolespec_validate"] is False, task["name"]


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_literal(role: str) -> None:
    """A fact or a lookup there would break --tags and gather_facts: false, and cost time where it is not used."""
    text = (REPOSITORY / defaults_of(role)).read_text(encoding="utf-8")
    assert not re.search(r"ansible_facts|ansible_[a-z]+|lookup\(|query\(|hostvars|groups\[", text)


@pytest.mark.parametrize("role", ROLES)
def test_role_says_who_it_is_and_what_it_needs(role: str) -> None:
    meta = load(f"roles/{role}/meta/main.yml")
    assert meta["galaxy_info"]["license"] == "GPL-3.0-or-later"
    floor = load("meta/runtime.yml")["requires_ansible"].removeprefix(">=")
    assert floor.startswith(meta["galaxy_info"]["min_ansible_version"])
    assert meta["dependencies"] == [], "each would be read again for every role of every play"


@pytest.mark.parametrize("role", ROLES)
def test_readme_is_what_the_specification_makes(role: str, docs: ModuleType) -> None:
    assert (REPOSITORY / "roles" / role / "README.md").read_text(encoding="utf-8") == docs.readme(role)


def test_examples_use_variables_and_roles_that_exist(docs: ModuleType) -> None:
    for role, variables in docs.EXAMPLE_VARIABLES.items():
        assert role in ROLES
        assert set(variables) <= set(declared_options())


def test_readme_says_which_roles_are_included_when_a_result_is_absent(docs: ModuleType) -> None:
    empty = {"common": "`forge_host_facts` is empty", "build": "`forge_build_result` is empty"}
    assert docs.included_roles("service") == empty
    assert docs.included_roles("rollout") == {"release": "`forge_rollout_target` and `forge_release_result` are empty"}
    assert docs.included_roles("release")["service_user"] == "the host lacks what it provides"
    assert "- [build](../build/README.md) when `forge_build_result` is empty" in docs.readme("service")
    assert "- `forge_service_result` (dict): `files` and `units`" in docs.readme("service")


def test_markup_becomes_markdown(docs: ModuleType) -> None:
    assert (
        docs.words("C(address:port),\nV((2 x CPU) + 1) is B(not) I(so)")
        == "`address:port`, `(2 x CPU) + 1` is **not** *so*"
    )
    assert docs.words(["One C(a(b)).", "Two V(0)."]) == "One `a(b)`. Two `0`."
    assert docs.cell("a|b") == "a\\|b"


def test_no_markup_is_left_in_a_readme() -> None:
    for role in ROLES:
        text = (REPOSITORY / "roles" / role / "README.md").read_text(encoding="utf-8")
        assert not re.search(r"\b[A-Z]\([^)]*\)", text)


def test_shipped_content_does_not_know_of_what_is_not_shipped() -> None:
    """Everything but meta, plugins, roles and playbooks may be deleted."""
    found = []
    for directory in ("meta", "plugins", "roles", "playbooks"):
        for path in sorted((REPOSITORY / directory).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                    if re.search(r"(?<![\w}/])app/|inventories/|molecule|tests/|thecodeforge\.main", line):
                        found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}")
    assert found == []


def test_a_default_that_another_role_repeats_is_the_one_of_its_specification() -> None:
    """A role that reads a variable of another one says what it is without that; empty stands for nothing."""
    options, differ = declared_options(), set()
    for path in sorted([*(REPOSITORY / "roles").rglob("*.yml"), *(REPOSITORY / "roles").rglob("*.j2")]):
        for name, text in re.findall(r"\b(forge_\w+) \| default\(([^()]*)\)", path.read_text(encoding="utf-8")):
            value = yaml.safe_load(text.partition(", ")[0] if text.startswith("'") else text)
            if value and name in options and value != options[name].get("default"):
                differ.add(f"{path.relative_to(REPOSITORY)}: {name}")
    assert differ == set()


def test_playbooks_use_only_full_names() -> None:
    for path in sorted((REPOSITORY / "playbooks").glob("*.yml")):
        assert re.fullmatch(r"[a-z_]+\.yml", path.name), "ansible-playbook namespace.collection.name takes no dash"
        for name in re.findall(r"(?:role|name): (\w+\.\w+\.\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert name.rpartition(".")[0] == COLLECTION
            assert name.rpartition(".")[2] in ROLES


@pytest.mark.parametrize("action", sorted(path.stem for path in (REPOSITORY / "plugins" / "action").glob("*.py")))
def test_every_action_has_the_documentation_of_a_module(action: str) -> None:
    assert action in PLUGINS["module"]


@pytest.fixture(scope="module")
def rendered() -> dict[str, dict[str, Any]]:
    """What ansible-doc makes of every plugin: the modules and the filters in one call each."""
    found = {}
    for kind, names in PLUGINS.items():
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-doc"), "--json", "-t", kind, *(f"{COLLECTION}.{name}" for name in names)],
            cwd=REPOSITORY, env=dict(os.environ), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "WARNING" not in done.stderr, done.stderr
        found[kind] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in PLUGINS.items() for name in names])
def test_ansible_doc_renders_every_plugin(rendered: dict[str, dict[str, Any]], kind: str, name: str) -> None:
    plugin = rendered[kind][f"{COLLECTION}.{name}"]
    assert plugin["doc"]["short_description"]
    assert plugin["doc"]["version_added"]
    assert yaml.safe_load(plugin["examples"])
    assert f"{COLLECTION}.{name}" in plugin["examples"]
    assert plugin["return"] or name in ("preflight", "show")
    for task in yaml.safe_load(plugin["examples"]):
        assert task["name"]
        if kind == "module":
            options = plugin["doc"].get("options", {})
            assert set(task.get(f"{COLLECTION}.{name}") or {}) <= set(options)
            assert {key for key, option in options.items() if option.get("required")} <= set(
                task.get(f"{COLLECTION}.{name}") or {}
            )


def test_a_candidate_leaves_the_shared_socket_as_the_live_generation_needs_it() -> None:
    """systemd sets O_NONBLOCK by the unit that it starts, and the socket is one for all generations."""
    for name in ("app@.service.j2", "app.service.j2"):
        template = (REPOSITORY / "roles" / "service" / "templates" / name).read_text(encoding="utf-8")
        assert "\nNonBlocking=yes\n" in template
