#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: process_run
short_description: Run a scheduled process of an app now
version_added: 1.1.0
description:
  - Starts what the timer of the process starts, of the generation that serves, and waits until it has ended. It is recorded in the
    ledger.
  - A process that is to run once for the fleet is not run while another host runs it.
author: The Code Forge (@thecodeforge)
options:
  process:
    description: Name of the process.
    type: str
    required: true
  seconds:
    description: How long to wait for its end. It goes on after that.
    type: int
    default: 3600
  by:
    description: Who runs it; the ledger says so. By default the user on the controller.
    type: str
    default: ""
extends_documentation_fragment:
  - thecodeforge.fastapi._app
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Run the nightly report now
  thecodeforge.fastapi.process_run:
    app: shop
    root: /srv
    process: nightly
"""

RETURN = r"""
output:
  description: What the process has written to the journal, secrets masked.
  returned: always
  type: list
  elements: str
seconds:
  description: How long it took.
  returned: success
  type: float
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private import systemd
from ..module_utils._private.errors import tells_what_the_host_refuses
from ..module_utils._private.generations import Generations
from ..module_utils._private.layout import Layout, write_atomically
from ..module_utils._private.once import NOT_RUN
from ..module_utils._private.processes import Processes
from ..module_utils._private.records import LedgerEvent
from ..module_utils._private.serving import serving_generation

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "process": {"type": "str", "required": True},
    "seconds": {"type": "int", "default": 3600},
    "by": {"type": "str", "default": ""},
}
LINES = 80  # of the journal, the last ones


def unit_of(layout: Layout, live: str, process: str) -> str:
    """The service that the timer of a process starts.

    :raises LookupError: a sentence, when there is none.
    """
    if not live:
        raise LookupError("Nothing was ever released on this host: there is nothing to run. Run site.yml.")
    timers = [name for name in layout.processes(live) if name.endswith(".timer")]
    names = sorted(name.partition("@")[0].partition(".")[2] for name in timers)
    if process not in names:
        known = ", ".join(names) or "none"
        raise LookupError(f"{process!r} is no process of {live} with a schedule; there is: {known}.")
    return f"{layout.app}.{process}@{live}.service"


def run_now(layout: Layout, live: str, unit: str, process: str, seconds: int) -> tuple[str, list[str]]:
    """Run it; return why it was not run to its end, empty when it was, and what it wrote."""
    asked = os.path.join(layout.worker_states(live), f"now.{process}")
    processes, problem = Processes(layout, live), ""
    try:
        write_atomically(asked, b"", 0o644)
        systemd.systemctl("start", unit, timeout=seconds)
    except systemd.SystemdError as error:
        problem = processes.masked(str(error))
    finally:
        if os.path.exists(asked):
            os.unlink(asked)
    state = systemd.properties(unit, "ActiveState", "ExecMainStatus", "ExecMainCode", "Result")
    output = [line for line in processes.journal(unit) if unit not in line][-LINES:]  # without what systemd says of it
    if state["ActiveState"] in ("activating", "active", "deactivating"):
        return f"{process} still runs after {seconds} s, and goes on: see journalctl -u {unit}.", output
    if state.get("ExecMainStatus") == str(NOT_RUN):
        return f"{process} was not run: another host is at it. {' '.join(output[-1:])}".strip(), output
    if state.get("Result") == "exit-code":
        problem = f"it ended with exit status {state.get('ExecMainStatus')}"
    return (f"{process} failed: {problem}." if problem else ""), output


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    layout, process = Layout(params["root"], params["app"]), params["process"]
    live = serving_generation(layout)
    try:
        unit = unit_of(layout, live, process)
    except LookupError as error:
        module.fail_json(msg=error.args[0], output=[])
    if systemd.properties(unit, "ActiveState")["ActiveState"] in ("activating", "active", "deactivating"):
        module.fail_json(msg=f"{process} runs on this host already: wait for its end.", output=[])
    if module.check_mode:
        module.exit_json(changed=True, output=[], seconds=0.0)
    began = time.monotonic()
    problem, output = run_now(layout, live, unit, process, params["seconds"])
    seconds = round(time.monotonic() - began, 1)
    Generations(layout).record_event(
        LedgerEvent(
            action=f"run {process}", by=params["by"], previous=live, generation=live,
            result="failed" if problem else "ended", reason=problem, seconds=seconds,
        )
    )  # fmt: skip
    if problem:
        module.fail_json(msg=problem, output=output)
    module.exit_json(changed=True, output=output, seconds=seconds)


if __name__ == "__main__":
    main()
