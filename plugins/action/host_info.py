# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Looks at a host in one quick call, and says when it is none that the collection supports."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail

from ..plugin_utils._private.transport.host_call import HostAction


class ActionModule(HostAction):
    """See the documentation of the module ``thecodeforge.fastapi.host_info``."""

    MODULE = "host_info"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        systems = self._task.args.pop("systems", None) or []
        result = super().run(tmp, task_vars)
        problem = unsupported(result["host"], systems) if systems and "host" in result else ""
        if problem:
            name = (task_vars or {}).get("inventory_hostname", "The host")
            raise AnsibleActionFail(f"{name} {problem} Nothing was changed.")
        return result


def unsupported(host: dict[str, Any], systems: list[str]) -> str:
    """Half a sentence on why a host is not supported; empty when it is.

    :param host: what the module says of it.
    :param systems: ``ID VERSION_ID`` of each that is supported.
    """
    without = "" if host["booted_with_systemd"] else " without systemd"
    if not without and f"{host['os']['id']} {host['os']['version']}" in systems:
        return ""
    return f"runs {host['os']['name']}{without}: this collection supports {', '.join(systems)} with systemd."
