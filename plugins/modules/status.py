#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: What of an app runs on a host
version_added: 1.0.0
description:
  - Tells what serves, since when and how well, what a rollback would go to, what is kept, and who holds the lock.
  - Reads only.
author: The Code Forge (@thecodeforge)
options:
  history:
    description: Entries of the ledger to show, the latest last.
    type: int
    default: 5
extends_documentation_fragment:
  - thecodeforge.fastapi._app
  - thecodeforge.fastapi._app.health
  - thecodeforge.fastapi._attributes
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
drained:
  description: Is the host drained, so that balancers send it nothing?
  returned: always
  type: bool
in_maintenance:
  description: Does the host show the page of a maintenance?
  returned: always
  type: bool
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

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private import systemd
from ..module_utils._private.errors import tells_what_the_host_refuses
from ..module_utils._private.generations import Generations
from ..module_utils._private.layout import Layout
from ..module_utils._private.lock_file import read_lock
from ..module_utils._private.once import problems
from ..module_utils._private.probe import HealthCheck
from ..module_utils._private.processes import Processes
from ..module_utils._private.serving import damage, failed_processes, idle_processes, public_workers, serving_generation
from ..module_utils._private.transient import Transient

ARGUMENT_SPEC = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "health_path": {"type": "str", "default": "/healthz"},
    "health_status": {"type": "int", "default": 200},
    "history": {"type": "int", "default": 5},
}


def problem_of(layout: Layout, health: HealthCheck) -> str:
    """What is wrong with what should serve; empty when nothing is."""
    live = serving_generation(layout)
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
    problem = damage(layout, live) or health.problem(layout.private_socket(live))
    return problem or problem_of_processes(layout, live)


def problem_of_processes(layout: Layout, live: str) -> str:
    """Which command with a schedule has failed; of one that runs once for the fleet the database knows, on whichever host it was."""
    failed = failed_processes(layout, live)
    if failed:
        return f"{', '.join(failed)} has failed: see journalctl -u {failed[0]}"
    units = {name: text for name, text in Processes(layout, live).units().items() if "forge_process" in text}
    found = problems(Transient(layout, live), units, "--last") if units else ()
    return "; ".join(f"{process}: {problem}" for process, problem in found)


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    layout = Layout(params["root"], params["app"])
    generations, live = Generations(layout), serving_generation(layout)
    problem = problem_of(layout, HealthCheck(params["health_path"], params["health_status"]))
    events = [event.to_dict() for event in generations.ledger() if event.result != "switching"]
    holder, _problem = read_lock(layout.lock)
    module.exit_json(
        changed=False,
        live=live,
        healthy=not problem,
        problem=problem,
        drained=os.path.exists(layout.drain),
        in_maintenance=os.path.exists(layout.maintenance),
        since=generations.live_since(),
        workers=public_workers(layout, live),
        previous=generations.previous_good(),
        served=generations.served("good", "left"),
        generations={name: record.to_dict() for name, record in generations.all().items()},
        history=events[-params["history"] :] if params["history"] else [],
        lock=holder.to_dict() if holder else {},
    )


if __name__ == "__main__":
    main()
