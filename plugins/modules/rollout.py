#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rollout
short_description: Bring a staged generation into service on a host without losing a request
version_added: 1.0.0
description:
  - V(candidate) starts the generation beside the live one, and waits until it is healthy and passes the smoke
    tests on its private socket. It receives no public request yet. When it fails it is stopped and marked bad, and
    the live generation has not noticed; the answer says RV(healthy=false).
  - V(discard) stops a candidate, because another host's failed.
  - V(switch) flips C(current), waits until the new workers accept public requests, and tells the old generation to stand
    by; it accepts nothing more, and answers what it has accepted. Its other processes end before those of the new one
    start.
  - V(watch) watches the new generation. When it fails, the old one, which stands by, serves again at once.
  - V(finish) stops the old generation, and prunes.
  - V(take_back) lets the old generation serve again, because another host's release failed; it also ends a watch that
    goes on, and stops a candidate that was not switched to. Without O(previous) the host keeps what it was released, and the
    old generation is stopped.
  - A server that can neither stand by nor drain is tried on its private socket alone and stopped again. At the switch
    it starts beside the old generation, and serves as soon as it can.
  - Where a hand-made service of the app's name runs, it serves until the new generation does, and is then stopped; new
    connections go to the one or the other, and its unit file is kept.
  - A step that finds its work done does nothing.
author: The Code Forge (@thecodeforge)
options:
  step:
    description: Which step to take.
    type: str
    required: true
    choices: [candidate, discard, switch, watch, finish, take_back]
  through:
    description: Go on in the same call through this step; O(step) alone when empty.
    type: str
    default: ""
    choices: ["", watch, finish]
  together:
    description:
      - The hosts of the task are a wave. When V(switch) or V(watch) fails on one, the controller takes the others back at
        once, and does not begin on those that wait. The host that failed goes back by itself in any case.
    type: bool
    default: false
  if_failed_on:
    description:
      - For V(take_back), only when the release fails on one of these hosts, which are at it in the same task with O(together). The
        controller waits for them. By Ansible's own way, with C(forge_quick_calls=false), nothing is done.
    type: list
    elements: str
    default: []
  previous:
    description:
      - What served before V(switch), as its RV(from) says; empty when nothing did. V(watch), V(finish) and V(take_back)
        go back to it; without it there is no way back.
    type: str
  action:
    description: What the ledger calls it.
    type: str
    default: deploy
    choices: [deploy, rollback, refresh]
  by:
    description: Who does it, and from where, for the ledger.
    type: str
    default: ""
  worker_connections:
    description: Connections to the database that a worker may open; V(0) when nobody says. A candidate that has more is warned of.
    type: int
    default: 0
  watch_seconds:
    description: Seconds after the switch during which a failure makes the host go back.
    type: int
    default: 10
  drain_seconds:
    description: Seconds that the old generation may take to finish what it serves.
    type: int
    default: 20
  keep:
    description: Good generations to keep.
    type: int
    default: 5
  take_over:
    description: What of somebody else's may be taken over. V(unit) is a hand-made service of the app's name.
    type: list
    elements: str
    default: []
  schema:
    description: Version of the database's schema that the generation was migrated to; a rollback compares it.
    type: str
    default: ""
  way_back:
    description:
      - What a rehearsal has found out of a rollback, C(way_back) of M(thecodeforge.fastapi.rehearse), for the record and the ledger.
    type: dict
    default: {}
extends_documentation_fragment:
  - thecodeforge.fastapi._app
  - thecodeforge.fastapi._app.health
  - thecodeforge.fastapi._app.candidate
  - thecodeforge.fastapi._app.generation
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Start the candidate
  thecodeforge.fastapi.rollout:
    app: forge
    root: /srv
    generation: 0123456789ab-01234567
    step: candidate
"""

RETURN = r"""
from:
  description: Id of the generation that served before; empty when none did.
  returned: always
  type: str
to:
  description: Id of the generation asked for.
  returned: always
  type: str
seconds:
  description: Seconds the step took on the host.
  returned: always
  type: float
healthy:
  description: Did the candidate pass?
  returned: step=candidate
  type: bool
reason:
  description: Why the candidate did not pass; empty when it did.
  returned: step=candidate
  type: str
connections:
  description: Connections to the app's PostgreSQL database that the worker has that has most; V(0) where it is not known.
  returned: step=candidate, when one was started
  type: int
journal:
  description: What a generation that failed wrote last, secrets masked.
  returned: when one failed
  type: list
  elements: str
switched_in:
  description: Seconds from the flip until every new worker accepted public requests.
  returned: step=switch
  type: float
withheld:
  description: Was the step not taken, because another host of the wave had failed?
  returned: when it was not
  type: bool
taken_back:
  description: Serves again what served before, because that was asked for?
  returned: when it does
  type: bool
serves:
  description: Id of the generation that serves now; empty when none does.
  returned: step=take_back
  type: str
ended:
  description:
    - What of other generations did not end by itself in the time it was given, such as C(2 streams), C(1 websocket) or
      C(process mail, killed after 5 s).
    - Streams are answers that had begun; a request had none yet. Websockets are told to come again, with code 1012.
  returned: step=switch, watch or finish
  type: list
  elements: str
removed:
  description: Generations that were pruned.
  returned: with V(finish)
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.errors import RolloutError, tells_what_the_host_refuses
from ..module_utils._private.rollout_steps import RolloutSteps

ARGUMENT_SPEC = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "generation": {"type": "str", "required": True},
    "step": {
        "type": "str",
        "required": True,
        "choices": ["candidate", "discard", "switch", "watch", "finish", "take_back"],
    },
    "through": {"type": "str", "default": "", "choices": ["", "watch", "finish"]},
    "together": {"type": "bool", "default": False},
    "if_failed_on": {"type": "list", "elements": "str", "default": []},
    "previous": {"type": "str"},
    "action": {"type": "str", "default": "deploy", "choices": ["deploy", "rollback", "refresh"]},
    "by": {"type": "str", "default": ""},
    "health_path": {"type": "str", "default": "/healthz"},
    "health_status": {"type": "int", "default": 200},
    "health_passes": {"type": "int", "default": 1, "no_log": False},  # no password
    "health_deadline": {"type": "int", "default": 60},
    "smoke": {"type": "list", "elements": "dict", "default": []},
    "smoke_command": {"type": "str", "default": ""},
    "worker_connections": {"type": "int", "default": 0},
    "watch_seconds": {"type": "int", "default": 10},
    "drain_seconds": {"type": "int", "default": 20},
    "keep": {"type": "int", "default": 5},
    "take_over": {"type": "list", "elements": "str", "default": []},
    "schema": {"type": "str", "default": ""},
    "way_back": {"type": "dict", "default": {}},
}


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    os.umask(0o022)
    steps = RolloutSteps(module.params, module.warn)
    try:
        steps.run(module.check_mode)
    except RolloutError as error:
        module.fail_json(msg=str(error), **{**steps.result, "journal": error.journal})
    module.exit_json(**steps.result)


if __name__ == "__main__":
    main()
