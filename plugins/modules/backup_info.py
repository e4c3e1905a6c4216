#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: backup_info
short_description: What there is of backups of a PostgreSQL cluster
version_added: 1.1.0
description:
  - Reads what Debian's C(pg_backupcluster) keeps, and asks the server what of its WAL was received.
  - Reads only.
author: The Code Forge (@thecodeforge)
options:
  base_hours:
    description: How old the newest base backup may be.
    type: int
    default: 192
  wal_minutes:
    description: How long WAL may not have been received.
    type: int
    default: 15
  offsite_minutes:
    description: How old the newest copy in another place may be, where there are copies.
    type: int
    default: 60
  drill_hours:
    description: How old the newest drill that went well may be, where there are drills.
    type: int
    default: 36
extends_documentation_fragment:
  - thecodeforge.fastapi._cluster
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Ask for backups
  thecodeforge.fastapi.backup_info:
    cluster: 15/main
    port: 5432
  become: true
"""

RETURN = r"""
state:
  description:
    - C(owner), the app that the backups were set up for; C(backups), each with C(path), C(kind), C(end), C(seconds) and C(bytes); the
      age in seconds of the newest C(base_age), C(dump_age), C(wal_age) and C(offsite_age); C(slot); C(wal_keep_mb), what the server
      keeps for it, which is unknown while it does not run; C(free_bytes); and C(same_disk) as the database.
    - C(timers), what is switched on of C(copies), C(drill) and C(watch); C(programs), the SHA-256 of what they run; C(offsite),
      whether there are copies; C(drill), with its C(last) and its C(good) result and how old that is; C(failed) units; and C(told), why
      nobody could be told of a problem.
  returned: success
  type: dict
problems:
  description: What is wrong with them, a sentence each.
  returned: success
  type: list
  elements: str
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.backup import Limits, problems, state_of
from ..module_utils._private.errors import tells_what_the_host_refuses

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "cluster": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "base_hours": {"type": "int", "default": 192},
    "wal_minutes": {"type": "int", "default": 15},
    "offsite_minutes": {"type": "int", "default": 60},
    "drill_hours": {"type": "int", "default": 36},
}


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    state = state_of(params["cluster"], params["port"], time.time())
    limits = {name: params[name] for name in Limits.__dataclass_fields__}
    found = problems(state, Limits(**limits))
    module.exit_json(changed=False, state=state, problems=found)


if __name__ == "__main__":
    main()
