# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Checks the variables of a host on the controller."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ..plugin_utils._private.inventory.names import unknown_names
from ..plugin_utils._private.inventory.rules import (
    declared_options,
    wrong_names,
    wrong_settings,
    wrong_types,
    wrong_values,
)

OPTIONS = declared_options()  # read once, when Ansible loads this, and not again in each of its forks


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.preflight``."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        given = [name for name in task_vars or {} if name.startswith("forge_")]
        said = []
        for entry in unknown_names(given, list(OPTIONS)):
            name, _space, hint = entry.partition(" ")
            said.append(f"{name} is not a variable of this collection{' ' + hint if hint else ''}.")
        values: dict[str, Any] = {}
        for name in sorted(set(given) & set(OPTIONS)):
            found, problems = self._value(name, task_vars or {})
            said += problems
            if not problems:
                values[name] = found
        said += wrong_types(values)
        if not said:
            said += wrong_values(values)
            prefix = values.get("forge_environment_prefix", "FORGE_")
            said += wrong_settings(values.get("forge_environment", {}), prefix)
            said += wrong_settings(values.get("forge_environment_plain", {}), "", "forge_environment_plain")
            said += wrong_names(values)
        if said:
            raise AnsibleActionFail(" ".join([*said, "Nothing was changed."]))
        return {**result, "changed": False}

    def _value(self, name: str, task_vars: dict[str, Any]) -> tuple[Any, list[str]]:
        """A variable's value, or why it has none: one sentence for each part that is undefined."""
        raw = task_vars[name]
        if isinstance(raw, dict):
            found, problems = {}, []
            for key, part in raw.items():
                try:
                    found[key] = self._templar.template(part)
                except AnsibleError as error:
                    problems.append(f"{name}.{key} cannot be worked out: {short(error)}.")
            return found, problems
        try:
            return self._templar.template(raw), []
        except AnsibleError as error:
            return None, [f"{name} cannot be worked out: {short(error)}."]


def short(error: AnsibleError) -> str:
    """The last cause, in Ansible's words."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return str(cause).splitlines()[0].rstrip(".")
