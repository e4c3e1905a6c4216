# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Runs the build where Ansible runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils._private.build import build
from ..plugin_utils._private.errors import BuildError
from ..plugin_utils._private.lock import Index, Platform


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.build``."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _valid, given = self.validate_argument_spec(
            argument_spec={
                "source": {"type": "str", "required": True},
                "target": {"type": "str", "required": True},
                "hosts": {"type": "dict", "required": True},
                "cache": {"type": "str", "required": True},
                "exclude": {"type": "list", "elements": "str", "default": []},
                "index_url": {"type": "str", "default": "", "no_log": True},
                "ca_bundle": {"type": "str", "default": ""},
            }
        )
        try:
            made = build(
                source_directory=given["source"],
                target=given["target"],
                platforms=platforms_of(given["hosts"]),
                cache=Path(given["cache"]).expanduser(),
                index=Index(given["index_url"], given["ca_bundle"]),
                exclude=given["exclude"],
            )
        except BuildError as error:
            raise AnsibleActionFail(str(error)) from None
        return {**result, "changed": bool(made["made"]), **made}


def platforms_of(hosts: dict[str, dict[str, Any]]) -> list[Platform]:
    """Hosts (name to what host_info says) grouped by platform.

    :raises BuildError: naming the hosts that cannot be built for.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for name, host in sorted(hosts.items()):
        if not host["python"]["version"]:
            raise BuildError(f"{name} does not have the interpreter that forge_python names.")
        if not host["glibc"]:
            raise BuildError(f"{name} does not use glibc: only Debian and Ubuntu hosts are supported.")
        found.setdefault((host["python"]["version"], host["machine"], host["glibc"]), []).append(name)
    return [Platform(*key, hosts=tuple(names)) for key, names in found.items()]
