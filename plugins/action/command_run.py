# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the command with one call, and looks at it with others until it has ended: so what it prints is shown as it comes."""

from __future__ import annotations

import secrets
import time
from typing import Any

from ..plugin_utils._private.transport.console import show
from ..plugin_utils._private.transport.controller import Controller
from ..plugin_utils._private.transport.host_call import HostAction

PAUSE = 0.5  # seconds between two looks


class ActionModule(HostAction):
    """See the documentation of the module ``thecodeforge.fastapi.command_run``."""

    MODULE = "command_run"

    def run_module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        arguments = {"by": str(Controller.this()), **arguments, "_name": secrets.token_hex(6)}
        began, host = time.monotonic(), str((task_vars or {}).get("inventory_hostname", ""))
        found = super().run_module(arguments, task_vars)
        if found.get("failed") or self._task.check_mode:
            return {"lines": [], **found}
        lines, offset = list[str](), 0
        while not found.get("failed") and not found.get("ended"):
            took = round(time.monotonic() - began, 1)
            found = super().run_module({**arguments, "_step": "read", "_offset": offset, "_took": took}, task_vars)
            new, offset = found.get("lines", []), found.get("offset", offset)
            if new:
                show([f"{host}: {line}" for line in new])
                lines += new
            if not found.get("ended"):
                time.sleep(PAUSE)
        if found.get("failed"):
            return {**found, "lines": lines}
        result = {"changed": True, "lines": lines, "rc": found["rc"], "seconds": round(time.monotonic() - began, 1)}
        problem = found["reason"] or (f"it ended with exit code {found['rc']}" if found["rc"] else "")
        quiet = {"_ansible_verbose_override": True}  # its lines were shown
        return {
            **result,
            **quiet,
            **({"failed": True, "msg": f"{arguments['command']!r}: {problem}."} if problem else {}),
        }
