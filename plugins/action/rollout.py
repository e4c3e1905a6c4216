# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Tells the ledger who deploys, and from where."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils._private.transport.controller import Controller
from ..plugin_utils._private.transport.host_call import call


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.rollout``."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = {"by": str(Controller.this()), **self._task.args}
        return {**result, **call(self, "rollout", arguments, task_vars)}
