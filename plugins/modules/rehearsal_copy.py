#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rehearsal_copy
short_description: A copy of a PostgreSQL cluster that the app's hosts reach, for a rehearsal
version_added: 1.1.0
description:
  - V(present) restores the newest backup with all WAL since into a new cluster beside the one that serves, as
    M(thecodeforge.fastapi.backup_restore) does. It listens where that one does, on a port of its own, and the app's role has another
    password there.
  - V(open) lets a restored cluster listen like that, with all passwords as they are, and V(closed) ends that.
  - V(absent) removes the copy that V(present) has made; also one that a run has left which was killed.
author: The Code Forge (@thecodeforge)
options:
  target:
    description: Name of the restored cluster, for V(open) and V(closed). Empty is the only one that there is.
    type: str
    default: ""
  role:
    description: The app's role, for V(present).
    type: str
    default: ""
  password:
    description: What it logs in with at the copy, for V(present).
    type: str
    default: ""
  state:
    description: What is to be.
    type: str
    choices: [present, open, closed, absent]
    default: present
extends_documentation_fragment:
  - thecodeforge.fastapi._cluster
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Provide a copy
  thecodeforge.fastapi.rehearsal_copy:
    cluster: 15/main
    port: 5432
    role: forge
    password: "{{ password_of_the_copy }}"
  become: true
  register: copy
"""

RETURN = r"""
port:
  description: Port of the copy.
  returned: when V(present) or V(open)
  type: int
seconds:
  description: How long it took.
  returned: when V(present)
  type: float
bytes:
  description: Size of the copy.
  returned: when V(present)
  type: int
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.backup import BackupError, query
from ..module_utils._private.drill import claimed, clear, fresh_copy
from ..module_utils._private.errors import tells_what_the_host_refuses
from ..module_utils._private.restore import (
    ALONE,
    SCRATCH,
    Cluster,
    bytes_of,
    is_copy,
    listen,
    query_port,
    quoted,
    remove,
    waiting_copy,
)

NAME = "rehearsal"
ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "cluster": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "target": {"type": "str", "default": ""},
    "role": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "state": {"type": "str", "choices": ["present", "open", "closed", "absent"], "default": "present"},
}


def present(params: dict[str, Any], live: Cluster, target: Cluster) -> dict[str, Any]:
    """Make the copy. What fails leaves none.

    :raises BackupError: when there is no backup that can be restored.
    """
    began = time.monotonic()
    clear(target)
    with claimed(target):
        port = fresh_copy(live, params["port"], target)["port"]
        try:
            literal = params["password"].replace("'", "''")
            query(
                port,
                f"SET password_encryption = 'scram-sha-256'; ALTER ROLE {quoted(params['role'])} PASSWORD '{literal}'",
            )
            listen(target, port, SCRATCH)
        except BaseException:
            remove(target)
            raise
    return {"port": port, "seconds": round(time.monotonic() - began, 1), "bytes": bytes_of(target.data)}


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    live, state = Cluster.parse(params["cluster"]), params["state"]
    scratch = Cluster(live.version, NAME)
    result: dict[str, Any] = {}
    try:
        if state == "absent":
            if not module.check_mode:
                clear(scratch)
        elif state == "present":
            if not module.check_mode:
                result = present(params, live, scratch)
        else:
            target = Cluster(live.version, params["target"]) if params["target"] else waiting_copy(live)
            if not is_copy(target):
                raise BackupError(
                    f"The cluster {target} is none that was restored and waits: restore one first, with -e at=MOMENT."
                )
            result["port"] = int(query_port(target))
            if not module.check_mode:
                listen(target, result["port"], ALONE, everywhere=state == "open")
    except BackupError as error:
        module.fail_json(msg=f"{error} What serves was not changed.")
    module.exit_json(changed=state in ("present", "absent"), **result)


if __name__ == "__main__":
    main()
