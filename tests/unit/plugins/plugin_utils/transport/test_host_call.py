"""The quick way to run a module on a host: what is sent, what is understood, and Ansible's way where it does not work."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.bootstrap import (
    MASK,
    AnsibleModule,
    as_type,
)
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.transport.host_call import (
    call,
    parsed,
    script,
)
from hypothesis import given
from hypothesis import strategies as st

LOOK = {"app": "shop", "root": "/srv", "python": sys.executable, "user": "shop", "group": "shop"}


class Action:
    """An action plugin on a connection to this machine."""

    def __init__(self, pipelining: bool = True, check: bool = False) -> None:
        self._task = SimpleNamespace(check_mode=check, diff=False)
        self.pipelining = pipelining
        self.commands: list[str] = []

    def _is_pipelining_enabled(self, style: str) -> bool:
        return self.pipelining

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


def test_a_module_answers() -> None:
    host = on_this_machine("host_info", LOOK)["host"]
    assert host["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert host["account"] is False
    assert f"the account {LOOK['user']} (group {LOOK['group']}, no login)" in host["lacks"]


def test_little_is_sent() -> None:
    assert len(script("host_info", LOOK, check=False, diff=False)) < 60_000


def test_check_mode_arrives(tmp_path: Any) -> None:
    arguments = {"app": "shop", "root": str(tmp_path), "generation": "x", "commands": ["true"]}
    assert on_this_machine("migrate", arguments, check=True)["lines"] == ["would run: true"]


def test_a_refusal_is_the_modules_own_sentence(tmp_path: Any) -> None:
    arguments = {"app": "shop", "root": str(tmp_path), "generation": "x", "commands": ["true"]}
    answer = on_this_machine("migrate", arguments)
    assert answer["failed"]
    assert "not staged on this host" in answer["msg"]


def test_mistakes_in_arguments_are_told() -> None:
    assert "Unsupported parameters: colour" in on_this_machine("host_info", {**LOOK, "colour": 1})["msg"]
    assert "missing required arguments: app" in on_this_machine("host_info", {"root": "/srv"})["msg"]


def test_a_module_that_dies_says_its_last_words() -> None:
    answer = parsed("stage", {"rc": 1, "stdout": "", "stderr": "Traceback:\nMemoryError: no room\n"})
    assert answer["failed"]
    assert answer["msg"] == "stage ended without an answer: MemoryError: no room"
    assert parsed("stage", {"rc": 127, "stdout": "", "stderr": ""})["msg"].endswith("exit code 127")


def test_what_a_login_prints_is_passed_over() -> None:
    done = {"rc": 0, "stdout": '{"motd": 1}\nWelcome\n{"changed": false}\n', "stderr": ""}
    assert parsed("stage", done) == {"changed": False}


def test_ansibles_way_without_pipelining() -> None:
    answer = on_this_machine("host_info", LOOK, pipelining=False)
    assert answer == {"by": "ansible", "module": "thecodeforge.fastapi.host_info", "arguments": LOOK}


def test_the_interpreter_of_the_inventory_or_the_systems() -> None:
    action = Action()
    call(action, "host_info", LOOK, {"ansible_python_interpreter": "auto_silent"})  # type: ignore[arg-type]
    assert action.commands == ["LC_MARK=1 /usr/bin/python3 -I -S -"]


def test_a_secret_is_not_in_an_answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnsibleModule, "given", {"password": 'hunter"2\n', "name": "x"})
    module = AnsibleModule({"password": {"type": "str", "no_log": True}, "name": {"type": "str"}})
    with pytest.raises(SystemExit):
        module.fail_json('wrong: hunter"2\n!')
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"failed": True, "msg": f"wrong: {MASK}!"}


VALUES = st.one_of(
    st.booleans(), st.integers(-9, 9), st.text(max_size=5), st.sampled_from(["yes", "no", "1", "0", "7", "1.5", "True"]),
    st.lists(st.integers(0, 9), max_size=3), st.dictionaries(st.sampled_from("ab"), st.integers(0, 9)),
)  # fmt: skip


@given(VALUES, st.sampled_from(["bool", "int", "str", "list", "dict"]))
def test_values_are_those_that_ansible_makes_of_them(value: Any, kind: str) -> None:
    validated = ArgumentSpecValidator({"x": {"type": kind}}).validate({"x": value})
    try:
        ours = as_type(value, kind)
    except (TypeError, ValueError):
        # Ansible also splits "a,b" and reads "a=b"; our modules are given what it is, a list or a mapping.
        assert validated.error_messages or kind in ("list", "dict") or isinstance(value, (list, dict))
    else:
        if not validated.error_messages and not (kind == "str" and isinstance(value, (list, dict))):
            assert ours == validated.validated_parameters["x"]
