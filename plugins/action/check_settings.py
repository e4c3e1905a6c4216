# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Checks the settings of an app where Ansible runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils._private.environment import read_environment
from ..plugin_utils._private.build.app_settings import check_settings
from ..plugin_utils._private.build.errors import BuildError
from ..plugin_utils._private.build.index import INDEX_ARGUMENTS, Index


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.check_settings``."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _valid, given = self.validate_argument_spec(
            argument_spec={
                "target": {"type": "str", "required": True},
                "release": {"type": "str", "required": True},
                "environment": {"type": "str", "required": True, "no_log": True},
                "prefix": {"type": "str", "default": ""},
                **INDEX_ARGUMENTS,
            }
        )
        # The unit of a generation sets these two.
        own = {given["prefix"] + name: "checked-on-the-controller" for name in ("RELEASE", "GENERATION")}
        try:
            problems, unchecked = check_settings(
                target=given["target"],
                release=given["release"],
                environment={**own, **read_environment(given["environment"])},
                cache=Path(given["cache"]).expanduser(),
                index=Index.given(given),
            )
        except BuildError as error:
            raise AnsibleActionFail(str(error)) from None
        if problems:
            raise AnsibleActionFail(" ".join([*problems, "Nothing was changed."]))
        return {**result, "changed": False, "unchecked": unchecked}
