# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the settings of an app where Ansible runs."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils._private.environment import read_environment
from ..modules.check_settings import ARGUMENT_SPEC
from ..plugin_utils._private.build.app_settings import check_settings
from ..plugin_utils._private.build.errors import BuildError
from ..plugin_utils._private.build.workspace import Workspace, without_secrets
from ..plugin_utils._private.inventory.names import prefix_hints


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.check_settings``."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _valid, args = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        # The unit of a generation sets these two.
        generation = {args["prefix"] + name: "checked-on-the-controller" for name in ("RELEASE", "GENERATION")}
        environment = {**generation, **read_environment(args["environment"])}
        try:
            workspace = Workspace.from_arguments(args)
            checked = check_settings(args["target"], args["release"], environment, workspace, args["made"])
        except BuildError as error:
            raise AnsibleActionFail(without_secrets(str(error))) from None
        if checked.problems:
            hints = prefix_hints(checked.problems, environment, args["prefix"])
            raise AnsibleActionFail(" ".join([*checked.problems, *hints, "Nothing was changed."]))
        if checked.unchecked:
            self._display.warning(
                f"The app was not asked about its settings on the controller: {without_secrets(checked.unchecked)}. "
                "Hosts ask it before anything serves."
            )
        return {**result, "changed": False, "unchecked": checked.unchecked}
