# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the module which accounts the inventory names, and runs it in one quick call."""

from __future__ import annotations

import re
from typing import Any

from ansible.errors import AnsibleConnectionFailure

from ..plugin_utils._private.inventory.rules import declared_options
from ..plugin_utils._private.transport.host_call import HostAction

OPTIONS = declared_options()  # read once, when Ansible loads this


class ActionModule(HostAction):
    """See the documentation of the module ``thecodeforge.fastapi.host_info``."""

    MODULE = "host_info"

    def run_module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        for name in ("user", "group"):
            variable = f"forge_{name}"
            if (task_vars or {}).get(variable) == OPTIONS[variable]["default"]:  # its text, not what that comes to
                arguments[name] = ""
        group = arguments.pop("answering", "")
        if not group:
            return super().run_module(arguments, task_vars)
        try:
            result = super().run_module(arguments, task_vars)
        except AnsibleConnectionFailure as error:
            return {"changed": False, "unanswered": cause(str(error))}
        # As the action group_by says it, which as a task of its own would cost each host as much as a call.
        return {**result, "add_group": group, "parent_groups": ["all"]}


def cause(message: str) -> str:
    """Return what SSH said, without what Ansible and SSH put before it."""
    if waited := re.search(r"Timeout \((\d+)s\) waiting for privilege escalation prompt", message):
        return f"no answer within {waited[1]} s"
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["no answer"]
    return re.sub(r"^(.* (via|over) \w+: )?(ssh: )?", "", lines[-1]).rstrip(".")
