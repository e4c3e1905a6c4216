# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The quick way to run a module on a host: what is sent, which Python runs it, and when Ansible's own way is taken."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import become_loader, connection_loader
from ansible.template import Templar
from ansible.template import trust_as_template as template
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.transport import host_call
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.transport.host_call import (
    PACKAGE,
    PLUGINS,
    call,
    interpreter,
    is_switched_on,
    result_of,
    script,
    sources_of,
    takes_input,
)

HOST_INFO = {"app": "no-such-app", "root": "/srv", "python": sys.executable, "user": "shop", "group": "shop"}
HOST_MODULES = sorted(
    path.stem for path in (PLUGINS / "modules").glob("*.py") if "AnsibleModule(" in path.read_text(encoding="utf-8")
)


class Connection:
    """One to this machine, which takes input unless somebody has said no."""

    def __init__(self, pipelining: tuple[bool, str]) -> None:
        self.options = {"pipelining": pipelining}

    def get_option_and_origin(self, name: str) -> tuple[bool, str]:
        return self.options[name]

    def set_option(self, name: str, value: bool) -> None:
        self.options[name] = (value, "Direct")


class Action:
    """An action plugin on a connection to this machine."""

    def __init__(self, pipelining: tuple[bool, str] = (False, "default"), check: bool = False) -> None:
        self._task = SimpleNamespace(check_mode=check, diff=False, delegate_to=None)
        self._connection = Connection(pipelining)
        self._templar = Templar(variables={"python_of_mine": "/opt/python"})
        self.commands: list[str] = []

    def _is_pipelining_enabled(self, style: str) -> bool:
        return self._connection.options["pipelining"][0]

    def _compute_environment_string(self) -> str:
        return "LC_MARK=1"

    def _low_level_execute_command(self, command: str, in_data: bytes) -> dict[str, Any]:
        self.commands.append(command)
        done = subprocess.run(["sh", "-c", command], input=in_data, capture_output=True, timeout=60)
        return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}

    def _execute_module(self, module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        return {"by": "ansible", "module": module_name, "arguments": module_args, "invocation": {}}


def on_this_machine(module: str, arguments: dict[str, Any], **options: Any) -> dict[str, Any]:
    return call(Action(**options), module, arguments, {"ansible_python_interpreter": sys.executable})  # type: ignore[arg-type]


@pytest.fixture
def add_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str, str], None]]:
    """Adds a module to those that can be called, from the text of its file."""

    def add(name: str, text: str) -> None:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        module = ModuleType(f"{PACKAGE}.modules.{name}")
        exec(text, module.__dict__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        real = host_call.path_of
        monkeypatch.setattr(host_call, "path_of", lambda name: path if name == module.__name__ else real(name))

    yield add
    host_call.host_module.cache_clear()
    host_call.read.cache_clear()


ECHO = """
from ansible.module_utils.basic import AnsibleModule
ARGUMENT_SPEC = {
    "count": {"type": "int", "default": 3},
    "path": {"type": "path"},
    "password": {"type": "str", "no_log": True},
    "colour": {"type": "str", "aliases": ["color"], "choices": ["red", "blue"]},
    "old": {"type": "bool", "removed_in_version": "9.0.0", "removed_from_collection": "a.b"},
}
def main():
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=SUPPORTED)
    if module.params["password"]:
        module.warn("the password is " + module.params["password"])
    module.exit_json(changed=False, params=module.params, check=module.check_mode, diff=module._diff)
"""


# ---- What is sent


def test_a_module_answers() -> None:
    host = on_this_machine("host_info", HOST_INFO)["host"]
    assert host["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert host["account"] == {"user": "shop", "group": "shop", "ready": False}
    assert "the account shop (group shop, no login)" in host["missing_prerequisites"]


def test_a_host_that_is_not_supported_is_refused() -> None:
    result = on_this_machine("host_info", {**HOST_INFO, "systems": ["plan9 4"]})
    assert result["failed"]
    assert "this collection supports plan9 4 with systemd. Nothing was changed." in result["msg"]


@pytest.mark.parametrize(("module", "limit"), [("host_info", 55_000), ("deploy_lock", 19_500), ("rollout", 88_500)])
def test_little_is_sent(module: str, limit: int) -> None:
    assert len(script(module, {}, check=False, diff=False)) < limit


def test_what_a_module_imports_is_sent_and_nothing_else() -> None:
    sent = {name.removeprefix(f"{PACKAGE}.") for name in sources_of(f"{PACKAGE}.modules.deploy_lock")}
    own = {"errors", "exclusive", "layout", "lock_file", "ownership", "records"}
    assert sent == {"modules.deploy_lock"} | {
        f"module_utils._private.{name}" for name in own.union(*map(imported_by, own))
    }
    assert "import debian\n" not in script("deploy_lock", {}, check=False, diff=False)


def imported_by(utility: str) -> set[str]:
    text = (PLUGINS / "module_utils" / "_private" / f"{utility}.py").read_text(encoding="utf-8")
    return {
        node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
    }


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("from ..module_utils._private.layout import Layout", ["module_utils._private.layout"]),
        ("from ..module_utils._private import layout, records", ["module_utils._private.layout", "module_utils._private.records"]),
        ("from ..module_utils._private import (\n    layout,  # why\n)", ["module_utils._private.layout"]),
        ("def late():\n    from ..module_utils._private.debian import missing_packages", ["module_utils._private.debian"]),
        (f"from {PACKAGE}.module_utils._private import layout", ["module_utils._private.layout"]),
        ("import os\nfrom ansible.module_utils.basic import AnsibleModule", []),
    ],
)  # fmt: skip
def test_each_way_to_import_is_understood(statement: str, found: list[str]) -> None:
    names = list(host_call.imports_of(f"{PACKAGE}.modules.any", statement))
    assert names == [f"{PACKAGE}.{name}" for name in found]


@pytest.mark.parametrize("module", HOST_MODULES)
def test_no_import_is_overlooked(module: str) -> None:
    """They are looked for by lines, and not as Python reads them."""
    for name, text in sources_of(f"{PACKAGE}.modules.{module}").items():
        read = {
            each
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and node.level
            for origin in [resolve_name("." * node.level + (node.module or ""), name.rpartition(".")[0])]
            for each in [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
            if host_call.path_of(each).is_file()
        }
        assert set(host_call.imports_of(name, text)) == read, name


def test_imports_beside_a_utility_are_understood() -> None:
    names = list(host_call.imports_of(f"{PACKAGE}.module_utils._private.any", "from . import layout"))
    assert names == [f"{PACKAGE}.module_utils._private.layout"]


@pytest.mark.parametrize("module", HOST_MODULES)
def test_modules_import_what_is_there_on_the_host(module: str) -> None:
    for name, text in sources_of(f"{PACKAGE}.modules.{module}").items():
        for node in ast.walk(ast.parse(text, feature_version=(3, 9))):
            origin = (node.module or "") if isinstance(node, ast.ImportFrom) and not node.level else ""
            if origin.startswith("ansible"):
                assert (origin, [each.name for each in node.names]) == (
                    "ansible.module_utils.basic",
                    ["AnsibleModule"],
                ), name


@pytest.mark.parametrize("module", HOST_MODULES)
def test_every_module_has_its_arguments_where_the_controller_reads_them(module: str) -> None:
    assert host_call.host_module(module).spec == importlib.import_module(f"{PACKAGE}.modules.{module}").ARGUMENT_SPEC


def test_a_module_without_an_argument_spec_is_named(add_module: Callable[[str, str], None]) -> None:
    add_module("bare", "def main(): ...")
    with pytest.raises(LookupError, match=r"modules\.bare"):
        call(Action(), "bare", {}, {})  # type: ignore[arg-type]


def test_the_script_is_for_an_old_python_and_any_locale() -> None:
    text = script("deploy_lock", {}, check=False, diff=False)
    ast.parse(text, feature_version=(3, 9))
    assert text.isascii()


# ---- Arguments and results


def test_parameters_are_those_that_ansible_makes_of_the_arguments(
    add_module: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_module("echo", ECHO.replace("SUPPORTED", "True"))
    result = on_this_machine("echo", {"count": "7", "color": "red"})
    assert result["params"].items() >= {"count": 7, "colour": "red", "path": None, "password": None}.items()
    assert (result["check"], result["diff"]) == (False, False)
    assert on_this_machine("echo", {})["params"]["count"] == 3


def test_a_path_is_the_hosts(add_module: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    add_module("echo", ECHO.replace("SUPPORTED", "True"))
    monkeypatch.setattr(Action, "_compute_environment_string", lambda self: "HOME=/home/there WHERE=x")
    assert on_this_machine("echo", {"path": "~/$WHERE"})["params"]["path"] == "/home/there/x"


def test_a_secret_is_not_in_a_result(add_module: Callable[[str, str], None]) -> None:
    add_module("echo", ECHO.replace("SUPPORTED", "True"))
    result = on_this_machine("echo", {"password": 'hunter"22\n'})
    assert result["warnings"] == ["the password is ********"]
    assert "hunter" not in json.dumps(result)


def test_what_will_be_removed_is_passed_on(add_module: Callable[[str, str], None]) -> None:
    add_module("echo", ECHO.replace("SUPPORTED", "True"))
    (deprecation,) = on_this_machine("echo", {"old": True})["deprecations"]
    assert "'old' is deprecated" in deprecation["msg"]
    assert on_this_machine("echo", {"color": "red", "colour": "red"})["warnings"] == [
        "Both option colour and its alias color are set."
    ]


def test_check_mode_arrives(add_module: Callable[[str, str], None]) -> None:
    add_module("echo", ECHO.replace("SUPPORTED", "True"))
    assert on_this_machine("echo", {}, check=True)["check"]


def test_a_module_that_cannot_check_is_skipped(add_module: Callable[[str, str], None]) -> None:
    add_module("echo", ECHO.replace("SUPPORTED", "False"))
    assert on_this_machine("echo", {}, check=True)["skipped"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shade": 1}, r"Unsupported parameters for \(thecodeforge.fastapi.echo\) module: shade. Supported parameters"),
        ({"count": "many"}, "argument 'count' is of type str and we were unable to convert to int"),
        ({"colour": "green"}, "value of colour must be one of: red, blue, got: green"),
    ],
)
def test_mistakes_in_arguments_are_told(
    add_module: Callable[[str, str], None], arguments: dict[str, Any], sentence: str
) -> None:
    add_module("echo", ECHO.replace("SUPPORTED", "True"))
    with pytest.raises(AnsibleActionFail, match=sentence):
        on_this_machine("echo", arguments)


def test_missing_arguments_are_told() -> None:
    with pytest.raises(AnsibleActionFail, match="missing required arguments: app, root"):
        on_this_machine("host_info", {"python": "python3"})


def test_a_module_that_dies_says_its_last_line() -> None:
    result = result_of("stage", {"rc": 1, "stdout": "", "stderr": "Traceback:\nMemoryError: no room\n"})
    assert result["failed"]
    assert result["msg"] == "stage ended without an answer: MemoryError: no room"
    assert result_of("stage", {"rc": 9, "stdout": "", "stderr": ""})["msg"].endswith("exit code 9")


def test_a_traceback_names_the_module_and_the_line(add_module: Callable[[str, str], None]) -> None:
    add_module("broken", "ARGUMENT_SPEC = {}\ndef main():\n    raise OSError('disk')")
    result = on_this_machine("broken", {})
    assert result["msg"] == "broken ended without an answer: OSError: disk"
    assert 'modules.broken.py", line 3, in main' in result["module_stderr"]


def test_a_host_without_that_python_is_told_what_to_do() -> None:
    result = call(Action(), "host_info", HOST_INFO, {"ansible_python_interpreter": "/opt/none"})  # type: ignore[arg-type]
    assert "/opt/none: not found" in result["msg"]
    assert "say with ansible_python_interpreter where it is" in result["msg"]


def test_sudo_that_wants_a_tty_is_told_what_to_do() -> None:
    stderr = "sudo: sorry, you must have a tty to run sudo\n"
    result = result_of("stage", {"rc": 1, "stdout": "", "stderr": stderr})
    assert result["msg"].endswith("Set ansible_pipelining: false for this host.")


@pytest.mark.parametrize(
    ("pipelining", "by_ansible"), [((False, "default"), True), ((True, "/home/me/ansible.cfg"), False)]
)
def test_ansibles_way_where_sudo_wants_a_tty_and_nobody_has_asked_for_pipelining(
    monkeypatch: pytest.MonkeyPatch, pipelining: tuple[bool, str], by_ansible: bool
) -> None:
    refused = {"rc": 1, "stdout": "", "stderr": "sudo: sorry, you must have a tty to run sudo\n"}
    monkeypatch.setattr(Action, "_low_level_execute_command", lambda *_arguments, **_more: refused)
    result = on_this_machine("host_info", HOST_INFO, pipelining=pipelining)
    assert (result == BY_ANSIBLE) is by_ansible
    assert by_ansible or result["msg"].endswith("Set ansible_pipelining: false for this host.")


def test_what_a_login_prints_is_passed_over() -> None:
    done = {"rc": 0, "stdout": '{"motd": 1}\nWelcome\n{"changed": false}\n', "stderr": ""}
    assert result_of("stage", done) == {"changed": False}


# ---- The switch

BY_ANSIBLE = {"by": "ansible", "module": "thecodeforge.fastapi.host_info", "arguments": HOST_INFO}


@pytest.mark.parametrize("value", [False, "false", "no", template("{{ 1 > 2 }}")])
def test_switched_off_everything_goes_ansibles_way(value: Any) -> None:
    assert call(Action(), "host_info", HOST_INFO, {"forge_quick_calls": value}) == BY_ANSIBLE  # type: ignore[arg-type]


def test_the_switch_is_a_boolean() -> None:
    assert is_switched_on(Action(), {})  # type: ignore[arg-type]
    with pytest.raises(AnsibleActionFail, match="forge_quick_calls must be of type bool"):
        is_switched_on(Action(), {"forge_quick_calls": "maybe"})  # type: ignore[arg-type]


@pytest.mark.parametrize("origin", ["var: ansible_pipelining", "env: ANSIBLE_PIPELINING", "/home/me/ansible.cfg"])
def test_ansibles_way_where_somebody_has_refused_pipelining(origin: str) -> None:
    assert on_this_machine("host_info", HOST_INFO, pipelining=(False, origin)) == BY_ANSIBLE


@pytest.mark.parametrize("pipelining", [(False, "default"), (True, "var: ansible_pipelining")])
def test_the_quick_way_where_nobody_has(pipelining: tuple[bool, str]) -> None:
    assert "host" in on_this_machine("host_info", HOST_INFO, pipelining=pipelining)


def real_action(connection_name: str, **variables: Any) -> Any:
    connection = connection_loader.get(connection_name, PlayContext())
    connection.set_options(var_options=variables)
    action: Any = Action()
    action._connection = connection
    action._is_pipelining_enabled = lambda style: connection.is_pipelining_enabled()
    return action


@pytest.mark.parametrize("name", ["ansible.builtin.ssh", "ansible.builtin.local"])
def test_real_connections_take_input_unless_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANSIBLE_PIPELINING", raising=False)
    assert takes_input(real_action(name))
    assert not takes_input(real_action(name, ansible_pipelining=False))
    monkeypatch.setenv("ANSIBLE_PIPELINING", "0")
    assert not takes_input(real_action(name))
    assert takes_input(real_action(name, ansible_pipelining=True))


def test_real_connections_know_what_else_speaks_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not takes_input(real_action("ansible.builtin.ssh", ansible_ssh_pipelining=False))
    assert not takes_input(real_action("ansible.builtin.ssh", ansible_ssh_extra_args="-tt"))
    action = real_action("ansible.builtin.ssh")
    action._connection.become = become_loader.get("ansible.builtin.sudo")
    assert takes_input(action)
    action._connection.become = become_loader.get("ansible.builtin.su")
    assert not takes_input(action)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_connection_without_the_option_is_left_to_ansible(enabled: bool) -> None:
    action: Any = Action()
    action._connection.options.clear()
    action._is_pipelining_enabled = lambda style: enabled
    assert takes_input(action) is enabled


# ---- Which Python


@pytest.mark.parametrize(
    ("configured", "command"),
    [
        ("/opt/python3", "/opt/python3"),
        ("python3.12", "python3.12"),
        ("/usr/bin/env python3.12", "/usr/bin/env python3.12"),
        (template("{{ python_of_mine }}"), "/opt/python"),
    ],
)
def test_the_interpreter_of_the_inventory(configured: str, command: str) -> None:
    assert interpreter(Action(), {"ansible_python_interpreter": configured}) == command  # type: ignore[arg-type]


def test_the_interpreter_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_PYTHON_INTERPRETER", "/from/environment")
    assert interpreter(Action(), {}) == "/from/environment"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "mode", ["auto", "auto_silent", "auto_legacy", "auto_legacy_silent", "", template("{{ omit }}")]
)
def test_the_interpreter_that_ansible_has_discovered(mode: str) -> None:
    facts = {"discovered_interpreter_python": "/found/python"}
    task_vars = {"ansible_python_interpreter": mode, "ansible_facts": facts}
    assert interpreter(Action(), task_vars) == "/found/python"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["true", "sh"], "true"),
        (["no-such-python", "/no/python3", "sh"], "/sh"),
        (["no-such-python"], "/usr/bin/python3"),
        (["no'such"], "/usr/bin/python3"),
    ],
)
def test_the_interpreter_is_discovered_in_the_order_of_ansible(names: list[str], found: str) -> None:
    task_vars = {"ansible_python_interpreter": "auto", "ansible_interpreter_python_fallback": names}
    command = interpreter(Action(), task_vars)  # type: ignore[arg-type]
    done = subprocess.run(["sh", "-c", f"echo {command}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(found)


def test_discovery_uses_ansibles_list() -> None:
    names = C.config.get_config_value("INTERPRETER_PYTHON_FALLBACK")
    command = interpreter(Action(), {"ansible_python_interpreter": "auto"})  # type: ignore[arg-type]
    assert command == f"$({' || '.join(f'command -v {name}' for name in names)} || echo /usr/bin/python3)"


def test_the_interpreter_of_the_host_a_task_is_delegated_to() -> None:
    action = Action()
    action._task.delegate_to = "db1"
    task_vars = {
        "ansible_python_interpreter": "/of/web1",
        "ansible_delegated_vars": {"db1": {"ansible_python_interpreter": "/of/db1"}},
    }
    assert interpreter(action, task_vars) == "/of/db1"  # type: ignore[arg-type]


def test_environment_of_the_task_and_isolated_python() -> None:
    action = Action()
    call(action, "host_info", HOST_INFO, {"ansible_python_interpreter": sys.executable})  # type: ignore[arg-type]
    assert action.commands == [f"LC_MARK=1 {sys.executable} -I -S -"]
