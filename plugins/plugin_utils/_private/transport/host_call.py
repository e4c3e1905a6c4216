# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Runs a module of this collection on a host, in one quick call.

Ansible's own way sends 180 KB a call, most of it ``ansible.module_utils.basic``, which the host compiles anew each time:
0.35 s. Ours sends the module and its utilities, a tenth of that, as a script for the host's Python: 0.1 s. Where the
connection cannot pipeline it is Ansible's way.
"""

from __future__ import annotations

import base64
import json
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

PLUGINS = Path(__file__).parents[3]
PACKAGE = "ansible_collections.thecodeforge.fastapi.plugins"
COLLECTION = "thecodeforge.fastapi"
PYTHON = "/usr/bin/python3"


class HostAction(ActionBase):
    """An action that is a module and nothing more; a subclass says which."""

    MODULE = ""
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        return {**result, **call(self, self.MODULE, dict(self._task.args), task_vars)}


def call(
    action: ActionBase, module: str, arguments: dict[str, Any], task_vars: dict[str, Any] | None
) -> dict[str, Any]:
    """What a module answers on the host of a task.

    :param action: the action plugin of the task; it knows the connection, and check mode.
    :param module: name of the module, without that of the collection.
    """
    if not action._is_pipelining_enabled("new"):
        answer = action._execute_module(
            module_name=f"{COLLECTION}.{module}", module_args=arguments, task_vars=task_vars
        )
        answer.pop("invocation", None)
        return answer
    text = script(module, arguments, check=bool(action._task.check_mode), diff=bool(action._task.diff))
    environment = action._compute_environment_string()
    command = " ".join(filter(None, [environment, interpreter(task_vars or {}), "-I -S -"]))
    done = action._low_level_execute_command(command, in_data=text.encode())
    return parsed(module, done)


def interpreter(task_vars: dict[str, Any]) -> str:
    """Python of the host: that of the inventory, or the system's, which Debian and Ubuntu have there."""
    given = str(task_vars.get("ansible_python_interpreter") or "")
    return given if given.startswith("/") else PYTHON


def parsed(module: str, done: dict[str, Any]) -> dict[str, Any]:
    """The answer in what a call printed; one that died is a failure that says its last words."""
    for line in reversed(done["stdout"].splitlines()):
        if line.startswith("{"):
            return dict(json.loads(line))
    words = (done["stderr"].strip() or done["stdout"].strip() or f"exit code {done['rc']}").splitlines()
    return {"failed": True, "msg": f"{module} ended without an answer: {words[-1]}", "module_stderr": done["stderr"]}


def script(module: str, arguments: dict[str, Any], check: bool, diff: bool) -> str:
    """Text for the host's Python, which runs a module and prints its answer as the last line."""
    name = f"{PACKAGE}.modules.{module}"
    sources = {**utilities(), name: (PLUGINS / "modules" / f"{module}.py").read_text(encoding="utf-8")}
    content = {"module": name, "sources": sources, "arguments": arguments, "check": check, "diff": diff}
    packed = base64.b64encode(zlib.compress(json.dumps(content).encode(), 1)).decode()
    bootstrap = (PLUGINS / "module_utils" / "_private" / "bootstrap.py").read_text(encoding="utf-8")
    return f'{bootstrap}\n\nimport base64, zlib\n\nrun(json.loads(zlib.decompress(base64.b64decode("{packed}"))))\n'


@lru_cache(maxsize=1)
def utilities() -> dict[str, str]:
    """Name to text of what modules import; the text of a package is empty."""
    texts = {"ansible.module_utils.basic": "AnsibleModule = None\n"}
    for path in sorted((PLUGINS / "module_utils" / "_private").glob("*.py")):
        texts[f"{PACKAGE}.module_utils._private.{path.stem}"] = path.read_text(encoding="utf-8")
    for name in [*texts, f"{PACKAGE}.modules.any"]:
        parts = name.split(".")[:-1]
        texts.update({".".join(parts[: number + 1]): "" for number in range(len(parts))})
    return texts
