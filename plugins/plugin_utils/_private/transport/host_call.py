# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of this collection on a host, in one quick call; ``forge_quick_calls: false`` has Ansible do it.

Ansible's own way sends 180 KB a call, most of it ``ansible.module_utils.basic``, which the host compiles anew each time:
0.35 s. Ours sends the module and what it imports, a tenth of that, as a script for the host's Python: 0.1 s.

Two parts: *the switch* says which way a call goes, *the script* is made and its answer read on the controller. What goes
along stands in for ``AnsibleModule`` (host_script.py). Arguments are checked on the controller, by Ansible's own validator
and the module's ARGUMENT_SPEC, so that they mean the same both ways.
"""

from __future__ import annotations

import ast
import base64
import importlib.util
import json
import re
import shlex
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleValueOmittedError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator, ValidationResult
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.errors import UnsupportedError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

PLUGINS = Path(__file__).parents[3]
COLLECTION = "thecodeforge.fastapi"
PACKAGE = f"ansible_collections.{COLLECTION}.plugins"
HOST_SCRIPT = Path(__file__).with_name("host_script.py").read_text(encoding="utf-8").partition('"""\n\n')[2]
IMPORT = re.compile(r"^[ \t]*from (\.*[\w.]*) import (?:\(([^)]*)\)|(.*))", re.MULTILINE)

# ---- The switch ------------------------------------------------------------------------------------------------------


class HostAction(ActionBase):
    """An action that runs a module on the host. A subclass names it, and so has it read before Ansible forks."""

    MODULE = ""
    _supports_check_mode = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        host_module(cls.MODULE)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        return {**result, **self.run_module(dict(self._task.args), task_vars)}

    def run_module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module and return its result; for a subclass that does more than that to extend."""
        return call(self, self.MODULE, arguments, task_vars)


def call(
    action: ActionBase, module: str, arguments: dict[str, Any], task_vars: dict[str, Any] | None
) -> dict[str, Any]:
    """Run a module on the host of a task and return its result.

    :param action: the action plugin of the task; it knows the connection, and check mode.
    :param module: name of the module, without that of the collection.
    :raises AnsibleActionFail: when the arguments are not those of the module, or the switch is not a boolean.
    """
    if is_switched_on(action, task_vars or {}) and takes_input(action):
        result = quick_call(action, module, arguments, task_vars or {})
        if not (result.pop("needs_terminal", False) and is_default(action)):
            return result
        action._connection.set_option("pipelining", False)
    result = action._execute_module(module_name=f"{COLLECTION}.{module}", module_args=arguments, task_vars=task_vars)
    result.pop("invocation", None)
    return result


def is_switched_on(action: ActionBase, task_vars: dict[str, Any]) -> bool:
    value = action._templar.template(task_vars.get("forge_quick_calls", True))
    try:
        return boolean(value)
    except TypeError:
        raise AnsibleActionFail("forge_quick_calls must be of type bool.") from None


def takes_input(action: ActionBase) -> bool:
    """Return whether a command on the connection can read the script from its standard input.

    Ansible's option ``pipelining`` says so. Its default is no, for the sake of sudo's ``requiretty``, which Debian and
    Ubuntu do not have; so only a user who has said no is understood to mean it.
    """
    if is_default(action):
        action._connection.set_option("pipelining", True)
    return action._is_pipelining_enabled("new")


def is_default(action: ActionBase) -> bool:
    """Return whether nobody has said anything about ``pipelining``. What has no such option leaves it to Ansible."""
    try:
        _value, origin = action._connection.get_option_and_origin("pipelining")
    except KeyError:
        return False
    return origin in ("default", "Direct")


def interpreter(action: ActionBase, task_vars: dict[str, Any]) -> str:
    """Return the shell words that start the Python which Ansible would take on the host.

    Where Ansible would discover it with a call of its own, the shell of this one tries the same names in the same order.
    """
    host_vars = task_vars
    if action._task.delegate_to:
        host_vars = task_vars.get("ansible_delegated_vars", {}).get(action._task.delegate_to, {})
    configured = C.config.get_config_value("INTERPRETER_PYTHON", variables=host_vars)
    try:
        python = str(action._templar.template(configured) or "auto").strip()
    except AnsibleValueOmittedError:
        python = "auto"
    if python not in ("auto", "auto_silent", "auto_legacy", "auto_legacy_silent"):
        return python
    discovered = host_vars.get("ansible_facts", {}).get("discovered_interpreter_python")
    if discovered:
        return str(discovered)
    names = C.config.get_config_value("INTERPRETER_PYTHON_FALLBACK", variables=host_vars)
    return f"$({' || '.join(f'command -v {shlex.quote(name)}' for name in names)} || echo /usr/bin/python3)"


# ---- The script ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HostModule:
    """What a call needs of a module: its ARGUMENT_SPEC, and the name and text of it and of all that it imports."""

    spec: dict[str, dict[str, Any]]
    sources: dict[str, str]


@cache
def host_module(module: str) -> HostModule:
    """Read a module. Where the class of an action asks for it, that is once a run and not once a task and host.

    :raises LookupError: when the module has no ARGUMENT_SPEC.
    """
    name = f"{PACKAGE}.modules.{module}"
    sources = sources_of(name)
    return HostModule(argument_spec(name, sources[name]), sources)


def argument_spec(name: str, text: str) -> dict[str, dict[str, Any]]:
    """Return what the text of a module sets as ARGUMENT_SPEC: not imported, as it needs only on the host what it imports."""
    for node in ast.parse(text).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id == "ARGUMENT_SPEC":
                return dict(ast.literal_eval(node.value))
    raise LookupError(name)


def sources_of(name: str) -> dict[str, str]:
    """Return name and text of a module and of all that it imports of this collection, itself or through others."""
    sources: dict[str, str] = {}
    pending = [name]
    while pending:
        name = pending.pop()
        if name not in sources:
            sources[name], imported = read(name)
            pending += imported
    return sources


@cache
def read(name: str) -> tuple[str, list[str]]:
    """Return the text of a module, and what it imports: modules share most of that."""
    text = path_of(name).read_text(encoding="utf-8")
    return text, list(imports_of(name, text))


def imports_of(name: str, text: str) -> Iterator[str]:
    """Yield the names of this collection's modules that the text of one imports, with ``from``.

    Looks for lines rather than parses: Python takes 0.1 s to parse all that a release sends.
    """
    for module, lines, line in IMPORT.findall(text):
        origin = importlib.util.resolve_name(module, name.rpartition(".")[0])
        for imported in [origin, *(f"{origin}.{each}" for each in re.findall(r"\w+", lines or line))]:
            if imported.startswith(f"{PACKAGE}.") and path_of(imported).is_file():
                yield imported


def path_of(name: str) -> Path:
    return PLUGINS.joinpath(*name.removeprefix(f"{PACKAGE}.").split(".")).with_suffix(".py")


def quick_call(action: ActionBase, module: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
    checked = validated(module, arguments)
    params = checked.validated_parameters
    text = script(module, params, check=bool(action._task.check_mode), diff=bool(action._task.diff))
    python = interpreter(action, task_vars)
    command = f"{action._compute_environment_string()} {python} -I -S -".strip()
    result = result_of(module, action._low_level_execute_command(command, in_data=text.encode()))
    warnings = [f"Both option {each['option']} and its alias {each['alias']} are set." for each in checked._warnings]
    for name, found in (("warnings", warnings), ("deprecations", checked._deprecations)):
        if found:
            result[name] = [*found, *result.get(name, [])]
    return remove_values(result, checked._no_log_values)


def validated(module: str, arguments: dict[str, Any]) -> ValidationResult:
    """Check the arguments of a module; the result has its parameters, defaults included.

    :raises AnsibleActionFail: naming every argument that is missing, unknown or of the wrong type.
    """
    # A path is the host's: its ~ and $HOME are read there.
    spec = {
        name: {**option, "type": "str"} if option.get("type") == "path" else option
        for name, option in host_module(module).spec.items()
    }
    # What a module is sent is JSON: no marks of Ansible's on it, and a value from a vault as text.
    checked = ArgumentSpecValidator(spec).validate(json.loads(json.dumps(arguments, default=str)))
    if checked.error_messages:
        unsupported = isinstance(checked.errors[0], UnsupportedError)
        intro = f"Unsupported parameters for ({COLLECTION}.{module}) module: " if unsupported else ""
        raise AnsibleActionFail(remove_values(intro + checked.errors.msg, checked._no_log_values))
    return checked


def script(module: str, params: dict[str, Any], check: bool, diff: bool) -> str:
    """Return a text for the host's Python, which runs a module and prints its result as the last line."""
    sources = host_module(module).sources
    content = {"module": next(iter(sources)), "sources": sources, "params": params, "check": check, "diff": diff}
    packed = base64.b64encode(zlib.compress(json.dumps(content).encode(), 1)).decode()
    return f'{HOST_SCRIPT}\nrun("{packed}")\n'


def result_of(module: str, done: dict[str, Any]) -> dict[str, Any]:
    """Return the result in what a call printed, or a failure with the last line when there is none."""
    for line in reversed(done["stdout"].splitlines()):
        if line.startswith("{"):
            return dict(json.loads(line))
    output = (done["stderr"].strip() or done["stdout"].strip() or f"exit code {done['rc']}").splitlines()
    message = f"{module} ended without an answer: {output[-1]}"
    if done["rc"] in (126, 127):
        message = (
            f"The Python of this host cannot be started ({output[-1]}): install python3 there, or say with "
            "ansible_python_interpreter where it is."
        )
    failure: dict[str, Any] = {"failed": True, "msg": message, "module_stderr": done["stderr"]}
    if "have a tty" in output[-1]:
        failure.update(msg=f"{message}. Set ansible_pipelining: false for this host.", needs_terminal=True)
    return failure
