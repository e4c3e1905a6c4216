#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rehearse
short_description: Run migrations against a copy of the database, and try what serves with what it has become
version_added: 1.1.0
description:
  - Runs the commands in the sandbox of a staged generation, with settings that name the copy, and notes which locks they take and how long.
  - Then starts the staged generation, and after it the one that serves, on private sockets of their own against the migrated copy, and puts
    both through their health check and smoke tests. Of the one that serves, those count that it passes before.
  - What serves and the real database are not touched. The copy's password is another one; where the real one's stands anywhere but in a
    URL of the database, nothing is rehearsed.
  - Without commands only the generation that serves is tried, with the copy as it is.
author: The Code Forge (@thecodeforge)
options:
  generation:
    description: Id of the staged generation; empty for the one that serves.
    type: str
    default: ""
  commands:
    description: Commands with their arguments; programs of the layer are found by name. No shell reads them.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds after which a command is stopped.
    type: int
    default: 900
  role:
    description: What the app logs in as.
    type: str
    required: true
  port:
    description: Port of the real database, in the app's settings.
    type: int
    required: true
  copy_port:
    description: Port of the copy, on the same host.
    type: int
    required: true
  copy_password:
    description: Password of the role in the copy. Empty is the real one's, for a copy that nothing is to be written to.
    type: str
    default: ""
  drain_seconds:
    description: Seconds that a generation may take to stop.
    type: int
    default: 20
extends_documentation_fragment:
  - thecodeforge.fastapi._app
  - thecodeforge.fastapi._app.health
  - thecodeforge.fastapi._app.candidate
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Rehearse
  thecodeforge.fastapi.rehearse:
    app: forge
    root: /srv
    generation: 0123456789ab-01234567
    commands: [alembic upgrade head]
    role: forge
    port: 5432
    copy_port: 5433
    copy_password: "{{ password_of_the_copy }}"
  run_once: true
"""

RETURN = r"""
lines:
  description: The commands and what they printed, secrets masked.
  returned: always
  type: list
  elements: str
seconds:
  description: Seconds that the commands took.
  returned: always
  type: float
locks:
  description:
    - C(table), C(mode) and C(seconds) of each lock behind which statements of the app would wait, the most seconds in a row. Shorter than
      0.05 seconds may not be among them.
  returned: always
  type: list
  elements: dict
locks_problem:
  description: Why locks could not be looked at; empty when they could.
  returned: always
  type: str
way_back:
  description:
    - Whether the release that serves works with the migrated copy, C(release), C(state) (V(works), V(does not work) or V(is not known)) and
      C(reason); empty where none serves.
  returned: always
  type: dict
journal:
  description: What a generation that failed wrote last, secrets masked.
  returned: when one failed
  type: list
  elements: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.errors import STILL_SERVES, RolloutError, StageError, tells_what_the_host_refuses
from ..module_utils._private.exclusive import LockHeld, exclusive_lock
from ..module_utils._private.layout import Layout
from ..module_utils._private.rehearsal import Rehearsal
from ..module_utils._private.systemd import SystemdError
from ..module_utils._private.transient import TransientError

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "generation": {"type": "str", "default": ""},
    "commands": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 900},
    "role": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "copy_port": {"type": "int", "required": True},
    "copy_password": {"type": "str", "default": "", "no_log": True},
    "health_path": {"type": "str", "default": "/healthz"},
    "health_status": {"type": "int", "default": 200},
    "health_passes": {"type": "int", "default": 1, "no_log": False},  # no password
    "health_deadline": {"type": "int", "default": 60},
    "smoke": {"type": "list", "elements": "dict", "default": []},
    "smoke_command": {"type": "str", "default": ""},
    "drain_seconds": {"type": "int", "default": 20},
}


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    os.umask(0o022)
    layout = Layout(params["root"], params["app"])
    result: dict[str, Any] = {
        "changed": False, "lines": [], "seconds": 0.0, "locks": [], "locks_problem": "", "way_back": {},
    }  # fmt: skip
    if module.check_mode:
        module.exit_json(**result)
    try:
        with exclusive_lock(layout.kernel_lock("rehearse")):
            Rehearsal(layout, params).run(result)
    except LockHeld:
        module.fail_json(
            msg=f"A rehearsal of {params['app']} is at work on this host already: run again when it is done. {STILL_SERVES}"
        )
    except RolloutError as error:
        module.fail_json(msg=f"{error} {STILL_SERVES}", **{**result, "journal": error.journal})
    except (StageError, TransientError, SystemdError) as error:
        module.fail_json(msg=f"{error} {STILL_SERVES}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
