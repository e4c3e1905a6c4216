#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_upgrade
short_description: Upgrade a PostgreSQL cluster to another version, a copy of it first
version_added: 1.1.0
description:
  - V(checked) says whether it can be upgraded. V(rehearsed) restores the newest backup beside it, upgrades that copy with Debian's
    C(pg_upgradecluster), compares all tables, and lets it listen for the app to try it. V(absent) removes the copy.
  - V(upgraded) upgrades the cluster itself, which the app waits for. The old one is stopped and kept, until V(removed).
author: The Code Forge (@thecodeforge)
options:
  app:
    description: Name of the app whose databases it may have.
    type: str
    required: true
  version:
    description: The version to upgrade to. Empty is the newest that is installed.
    type: str
    default: ""
  method:
    description: >-
      V(dump) writes all of it anew, which takes longest and is safe whatever differs. V(upgrade) copies files, and builds indexes anew.
    type: str
    choices: [dump, upgrade]
    default: dump
  shared:
    description: Upgrade it although it has databases of others?
    type: bool
    default: false
  old:
    description: The cluster that V(removed) removes, such as V(15/main).
    type: str
    default: ""
  state:
    description: What is to be done.
    type: str
    choices: [checked, rehearsed, absent, upgraded, removed]
    default: checked
extends_documentation_fragment:
  - thecodeforge.fastapi._cluster
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Upgrade it
  thecodeforge.fastapi.cluster_upgrade:
    cluster: 15/main
    port: 5432
    app: forge
    state: upgraded
  become: true
"""

RETURN = r"""
version:
  description: The version that it is upgraded to.
  returned: success
  type: str
seconds:
  description: How long the upgrade took.
  returned: when V(rehearsed) or V(upgraded)
  type: float
port:
  description: Port of the upgraded copy.
  returned: when V(rehearsed)
  type: int
bytes:
  description: Size of the upgraded copy.
  returned: when V(rehearsed)
  type: int
tables:
  description: Number of tables that were compared.
  returned: when V(rehearsed)
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.backup import BackupError
from ..module_utils._private.errors import tells_what_the_host_refuses
from ..module_utils._private.restore import Cluster, is_restored, remove
from ..module_utils._private.upgrade import check, newest_version, rehearse, remove_rehearsal, upgrade

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "cluster": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "app": {"type": "str", "required": True},
    "version": {"type": "str", "default": ""},
    "method": {"type": "str", "choices": ["dump", "upgrade"], "default": "dump"},
    "shared": {"type": "bool", "default": False},
    "old": {"type": "str", "default": ""},
    "state": {
        "type": "str",
        "choices": ["checked", "rehearsed", "absent", "upgraded", "removed"],
        "default": "checked",
    },
}


def take_step(params: dict[str, Any], live: Cluster, version: str, check_mode: bool) -> dict[str, Any]:
    """:raises BackupError: when the step cannot be taken."""
    state, port = params["state"], params["port"]
    if state == "removed":
        old = Cluster.parse(params["old"])
        if str(old) == str(live) or (old.exists() and not is_restored(old)):
            raise BackupError(f"The cluster {old} serves, or was not upgraded here: it is not removed.")
        changed = old.exists()
        if not check_mode:
            remove(old)
        return {"changed": changed}
    if state == "absent":
        if not check_mode:
            remove_rehearsal(live, version)
        return {"changed": True}
    if check_mode and version != newest_version() and int(version) > int(newest_version()):
        return {"changed": True}  # its package would be installed first
    check(live, port, version, params["app"], params["shared"])
    if state == "checked" or check_mode:
        return {"changed": state != "checked"}
    if state == "rehearsed":
        return {"changed": True, **rehearse(live, port, version, params["method"])}
    return {"changed": True, **upgrade(live, port, version, params["method"])}


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    version = params["version"] or newest_version()
    try:
        result = take_step(params, Cluster.parse(params["cluster"]), version, module.check_mode)
    except BackupError as error:
        module.fail_json(msg=f"{error} What serves was not changed.")
    module.exit_json(version=version, **result)


if __name__ == "__main__":
    main()
