#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: What of an app runs on a host
version_added: 1.0.0
description:
  - Says what serves, since when and how well, what a rollback would go to, what is kept, and who holds the lock.
  - Reads only.
author: The Code Forge (@thecodeforge)
options:
  app:
    description: Name of the app.
    type: str
    required: true
  root:
    description: Directory that holds the apps.
    type: path
    required: true
  health_path:
    description: What is asked of the live generation.
    type: str
    default: /healthz
  health_status:
    description: The status it must answer.
    type: int
    default: 200
  history:
    description: Entries of the ledger to show, the latest last.
    type: int
    default: 5
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Ask what serves
  thecodeforge.fastapi.status:
    app: forge
    root: /srv
"""

RETURN = r"""
live:
  description: Id of the generation that serves; empty when none does.
  returned: always
  type: str
healthy:
  description: Does it run, alone, and answer its health check?
  returned: always
  type: bool
problem:
  description: What is wrong; empty when nothing is.
  returned: always
  type: str
since:
  description: When it was switched to.
  returned: always
  type: str
workers:
  description: Workers that accept public requests.
  returned: always
  type: int
previous:
  description: Id of the generation that a rollback goes to; empty when there is none.
  returned: always
  type: str
served:
  description: Generations that have served, the latest first.
  returned: always
  type: list
  elements: str
generations:
  description: Record of each generation that is kept.
  returned: always
  type: dict
history:
  description: The last entries of the ledger.
  returned: always
  type: list
  elements: dict
lock:
  description: Who holds the lock on this host; empty when nobody does.
  returned: always
  type: dict
"""

import http.client

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private import systemd
from ..module_utils._private.generations import Generations
from ..module_utils._private.layout import Layout
from ..module_utils._private.probe import ask
from ..module_utils._private.settled import idle_processes, public_workers

PROBE_TIMEOUT = 5.0


def problem_of(layout: Layout, path: str, status: int) -> str:
    live = layout.live()
    if not live:
        return "nothing was ever released here"
    if live not in systemd.instances(layout.app):
        return f"{live} does not run"
    running = systemd.running(layout.app)
    if running != [live]:
        return f"{', '.join(name for name in running if name != live)} runs beside it"
    idle = idle_processes(layout, live)
    if idle:
        return f"{', '.join(idle)} should run and does not"
    try:
        answered, _text = ask(layout.private_socket(live), path, PROBE_TIMEOUT)
    except (OSError, http.client.HTTPException):
        return f"{path} does not answer"
    return "" if answered == status else f"{path} answered {answered}, not {status}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "health_path": {"type": "str", "default": "/healthz"},
            "health_status": {"type": "int", "default": 200},
            "history": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    given = module.params
    layout = Layout(given["root"], given["app"])
    generations = Generations(layout)
    problem = problem_of(layout, given["health_path"], given["health_status"])
    ledger = [entry for entry in generations.ledger() if entry.get("result") != "switching"]
    module.exit_json(
        changed=False,
        live=layout.live(),
        healthy=not problem,
        problem=problem,
        since=generations.live_since(),
        workers=public_workers(layout, layout.live()),
        previous=generations.to_go_back_to(),
        served=generations.served("good", "left"),
        generations=generations.all(),
        history=ledger[-given["history"] :] if given["history"] else [],
        lock=layout.lock_holder(),
    )


if __name__ == "__main__":
    main()
