#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: backup_restore
short_description: Restore a PostgreSQL cluster to a moment, beside the one that serves
version_added: 1.1.0
description:
  - Restores the newest base backup before a moment, and the WAL up to it, into a new cluster of Debian's, which nobody but the server's
    socket reaches; and compares it with the one that serves. That one is never touched.
  - In a second step the restored one takes its place. The old one is stopped and kept, until it is removed in a third.
author: The Code Forge (@thecodeforge)
options:
  target:
    description: >-
      Name of the restored one. Empty is V(restored), or that with a number, for V(restored); and the only one that there is, for
      V(switched). Needed for V(removed).
    type: str
    default: ""
  state:
    description: What is to be done - restore it, let it take the place of O(cluster), or remove the one that does not serve.
    type: str
    choices: [restored, switched, removed]
    default: restored
  at:
    description: >-
      The moment, such as V(2026-11-26 14:03), in the zone of the host unless it says another. Needed for V(restored).
    type: str
    default: ""
extends_documentation_fragment:
  - thecodeforge.fastapi._cluster
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Restore what was there at three past two
  thecodeforge.fastapi.backup_restore:
    cluster: 15/main
    port: 5432
    at: 2026-11-26 14:03
  become: true
  register: restored
"""

RETURN = r"""
target:
  description: Name of the restored cluster.
  returned: success
  type: str
backup:
  description: Path of the base backup.
  returned: when restored
  type: str
port:
  description: Port of the restored cluster.
  returned: when restored
  type: int
reached:
  description: The last commit that was restored, as the server says it; empty when there was none after the base backup.
  returned: when restored
  type: str
seconds:
  description: How long it took.
  returned: when restored
  type: float
bytes:
  description: Size of the restored cluster.
  returned: when restored
  type: int
tables:
  description: >-
    For each C(table) its C(rows) and C(newest) moment in the cluster that serves, empty where that does not run, and C(restored_rows) and
    C(restored_newest).
  returned: when restored
  type: list
  elements: dict
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.backup import BackupError, backups_in, base_for, directory_of, moment_of
from ..module_utils._private.command import run
from ..module_utils._private.errors import tells_what_the_host_refuses
from ..module_utils._private.restore import (
    Cluster,
    bytes_of,
    check_room,
    compared,
    contents,
    is_copy,
    is_restored,
    receive_all,
    remove,
    restore,
    switch,
    waiting_copy,
)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "cluster": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "target": {"type": "str", "default": ""},
    "state": {"type": "str", "choices": ["restored", "switched", "removed"], "default": "restored"},
    "at": {"type": "str", "default": ""},
}


def restored(params: dict[str, Any], live: Cluster, target: Cluster, check_mode: bool) -> dict[str, Any]:
    began = time.monotonic()
    moment = moment_of(params["at"], time.time())
    backup = base_for(backups_in(directory_of(str(live))), moment)
    if target.exists():
        raise BackupError(f"The cluster {target} is there already: let it take over, remove it, or give another name.")
    runs = run(["systemctl", "is-active", "--quiet", live.unit]).returncode == 0
    check_room(live)
    if check_mode:
        return {"backup": backup.path}
    if runs:
        receive_all(params["port"])
    result = restore(backup, live, target, moment)
    before = contents(params["port"]) if runs else None
    tables = compared(before, contents(result["port"]))
    seconds = round(time.monotonic() - began, 1)
    return {"backup": backup.path, "bytes": bytes_of(target.data), "seconds": seconds, "tables": tables, **result}


def target_of(params: dict[str, Any], live: Cluster) -> Cluster:
    """The cluster that is meant.

    :raises BackupError: when that is not certain.
    """
    if params["target"]:
        return Cluster(live.version, params["target"])
    if params["state"] == "restored":
        names = ("restored", *(f"restored{number}" for number in range(2, 100)))
        return next(each for each in (Cluster(live.version, name) for name in names) if not each.exists())
    return waiting_copy(live)


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    live = Cluster.parse(params["cluster"])
    result: dict[str, Any] = {}
    try:
        target = target_of(params, live)
        if params["state"] == "restored":
            result = restored(params, live, target, module.check_mode)
        elif params["state"] == "switched":
            if not target.exists() or not is_copy(target):
                raise BackupError(
                    f"The cluster {target} is none that was restored and waits: restore one first, with -e at=MOMENT."
                )
            if not module.check_mode:
                switch(live, params["port"], target)
        elif not target.exists():
            module.exit_json(changed=False, target=target.name)
        elif str(target) == str(live) or not is_restored(target):
            raise BackupError(f"The cluster {target} serves, or was not restored here: it is not removed.")
        elif not module.check_mode:
            remove(target)
    except BackupError as error:
        module.fail_json(msg=f"{error} What serves was not changed.")
    module.exit_json(changed=True, target=target.name, **result)


if __name__ == "__main__":
    main()
