# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module in one quick call, and tells the ledger who runs the process."""

from __future__ import annotations

from typing import Any

from ..plugin_utils._private.transport.controller import Controller
from ..plugin_utils._private.transport.host_call import HostAction


class ActionModule(HostAction):
    """See the documentation of the module ``thecodeforge.fastapi.process_run``."""

    MODULE = "process_run"

    def run_module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        return super().run_module({"by": str(Controller.this()), **arguments}, task_vars)
