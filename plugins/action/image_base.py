# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a base image what it has, where Ansible runs."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..modules.image_base import ARGUMENT_SPEC
from ..plugin_utils._private.build.workspace import without_secrets
from ..plugin_utils._private.container_tool import ContainerTool, ContainerToolError, name_for


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.image_base``."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _valid, args = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        try:
            tool = ContainerTool.find(args["tool"])
            if tool.name == "docker" and len(args["platforms"]) > 1:
                raise ContainerToolError(
                    "forge_image_platforms: several platforms under one name need podman or buildah, and here is docker: "
                    "install one of them, or name one platform."
                )
            bases = {
                name_for(args["base"], platform): {"platform": platform, **tool.probe(args["base"], platform)}
                for platform in args["platforms"] or [""]
            }
        except ContainerToolError as error:
            raise AnsibleActionFail(f"{without_secrets(str(error))} Nothing was changed.") from None
        return {**result, "changed": False, "tool": tool.name, "bases": bases}
