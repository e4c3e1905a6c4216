# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows lines for people."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..modules.show import ARGUMENT_SPEC
from ..plugin_utils._private.transport.console import show


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.show``."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        return {**result, "changed": False, **show(params["lines"])}
