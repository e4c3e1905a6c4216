#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: command_run
short_description: Run a command as what serves would
version_added: 1.1.0
description:
  - Runs a command with the user, sandbox, settings, working directory and Python of the generation that serves. What it prints is shown as
    it comes, secrets masked. It is recorded in the ledger.
author: The Code Forge (@thecodeforge)
options:
  command:
    description: The command with its arguments; programs of the layer are found by name. No shell reads it.
    type: str
    required: true
  seconds:
    description: After how many seconds it is ended, whatever becomes of the controller.
    type: int
    default: 3600
  memory_mb:
    description: MiB that it may take. V(0) is what the service may.
    type: int
    default: 0
  by:
    description: Who runs it; the ledger says so. By default the user on the controller.
    type: str
    default: ""
  _step:
    description: For the action plugin.
    type: str
    choices: [start, read]
    default: start
  _name:
    description: For the action plugin.
    type: str
    default: ""
  _offset:
    description: For the action plugin.
    type: int
    default: 0
  _took:
    description: For the action plugin.
    type: float
    default: 0
extends_documentation_fragment:
  - thecodeforge.fastapi._app
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Count the orders
  thecodeforge.fastapi.command_run:
    app: shop
    root: /srv
    command: python -m shop.report --day 3
"""

RETURN = r"""
lines:
  description: What it printed, secrets masked.
  returned: always
  type: list
  elements: str
rc:
  description: Its exit code.
  returned: when it has ended
  type: int
seconds:
  description: How long it took.
  returned: when it has ended
  type: float
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.command_run import CommandRun
from ..module_utils._private.errors import StageError, tells_what_the_host_refuses
from ..module_utils._private.layout import Layout
from ..module_utils._private.systemd import SystemdError
from ..module_utils._private.transient import TransientError

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "command": {"type": "str", "required": True},
    "seconds": {"type": "int", "default": 3600},
    "memory_mb": {"type": "int", "default": 0},
    "by": {"type": "str", "default": ""},
    "_step": {"type": "str", "choices": ["start", "read"], "default": "start"},
    "_name": {"type": "str", "default": ""},
    "_offset": {"type": "int", "default": 0},
    "_took": {"type": "float", "default": 0.0},
}


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    found: dict[str, Any] = {}
    try:
        run = CommandRun(Layout(params["root"], params["app"]), params["_name"])
        if params["_step"] == "read":
            found = run.read(params["_offset"])
            if found["ended"]:
                run.end(params["command"], params["by"], params["_took"], found)
        elif not module.check_mode:
            run.start(params["command"], params["seconds"], params["memory_mb"])
    except TransientError as error:
        module.fail_json(msg=f"{params['command']!r}: {error} Nothing was run.", lines=[])
    except (StageError, SystemdError) as error:
        module.fail_json(msg=str(error), lines=[])
    module.exit_json(changed=True, **found)


if __name__ == "__main__":
    main()
