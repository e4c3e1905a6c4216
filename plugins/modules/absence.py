#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: absence
short_description: Take a host away from its balancers, or let it serve again
version_added: 1.1.0
description:
  - Writes and removes the flags of a host, which the app's workers heed within half a second. A drained host answers the checks of
    balancers with status 503, and everything else as before. In a maintenance it answers everything with a page.
  - The flags outlast a restart of the host, and releases.
author: The Code Forge (@thecodeforge)
options:
  drained:
    description: Whether the host is drained; V(keep) leaves that as it is.
    type: str
    choices: [keep, "on", "off"]
    default: keep
  maintenance:
    description: Whether the host is in a maintenance, likewise.
    type: str
    choices: [keep, "on", "off"]
    default: keep
  page:
    description: Page of the maintenance.
    type: str
    default: ""
  notice:
    description: Seconds for which to wait first, until balancers have noticed.
    type: float
    default: 0
  wait:
    description: Seconds for which to wait at most until nothing is under way on a host that is drained.
    type: float
    default: 0
  gate:
    description: Seconds for which to wait at most until the live generation serves well, as after a start of the host.
    type: float
    default: 0
extends_documentation_fragment:
  - thecodeforge.fastapi._app
  - thecodeforge.fastapi._app.health
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Drain the host
  thecodeforge.fastapi.absence:
    app: shop
    root: /srv
    drained: "on"
    notice: 10
    wait: 60
"""

RETURN = r"""
drained:
  description: Whether the host is drained.
  returned: always
  type: bool
in_maintenance:
  description: Whether it is in a maintenance.
  returned: always
  type: bool
problem:
  description: Why the live generation does not serve well; empty when it does.
  returned: always
  type: str
other_apps:
  description: Other apps of this collection that are released on the host and not drained there.
  returned: always
  type: list
  elements: str
under_way:
  description: Requests under way on a host that is drained; V(-1) where its workers do not say.
  returned: always
  type: int
"""

import glob
import os
import re
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.errors import tells_what_the_host_refuses
from ..module_utils._private.layout import Layout, read_file, write_atomically
from ..module_utils._private.ownership import marked_app
from ..module_utils._private.probe import HealthCheck
from ..module_utils._private.serving import public_workers, serving_generation

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "drained": {"type": "str", "choices": ["keep", "on", "off"], "default": "keep"},
    "maintenance": {"type": "str", "choices": ["keep", "on", "off"], "default": "keep"},
    "page": {"type": "str", "default": ""},
    "notice": {"type": "float", "default": 0},
    "wait": {"type": "float", "default": 0},
    "gate": {"type": "float", "default": 0},
    "health_path": {"type": "str", "default": "/healthz"},
    "health_status": {"type": "int", "default": 200},
}
UNDER_WAY = "under-way-"  # as in roles/service/files/forge_server.py
# As in roles/service/templates/app.service.j2
HOME = re.compile(r"readlink (\S+)/current\b")
HEED = 1.0  # seconds within which workers heed a flag; and between two looks that find nothing under way


def content(path: str) -> bytes | None:
    try:
        return read_file(path)
    except OSError:
        return None


def set_flag(path: str, wanted: str, text: str, check: bool) -> bool:
    """Write a flag, or remove it; return whether that changes anything."""
    text_wanted = {"on": text.encode(), "off": None}.get(wanted, content(path))
    if content(path) == text_wanted:
        return False
    if not check:
        if text_wanted is None:
            os.unlink(path)
        else:
            write_atomically(path, text_wanted, 0o644)
    return True


def under_way(directory: str) -> int:
    """Requests that the workers of a generation say are under way; -1 where none says so."""
    counts = []
    for path in glob.glob(os.path.join(directory, UNDER_WAY + "*")):
        said = content(path)
        if said is not None and said.isdigit():
            counts.append(int(said))
    return sum(counts) if counts else -1


def wait_until_quiet(layout: Layout, notice: float, wait: float) -> int:
    """Wait until nothing is under way, in two looks; return what still is at the end."""
    deadline = time.monotonic() + notice + HEED + wait
    time.sleep(notice + HEED)
    quiet = False
    while True:
        count = sum(max(0, under_way(layout.worker_states(each))) for each in os.listdir(layout.run) if "." not in each)
        if (quiet and not count) or time.monotonic() >= deadline:
            return count
        quiet = not count
        time.sleep(HEED)


def problem_of(layout: Layout, health: HealthCheck) -> str:
    live = serving_generation(layout)
    if not live:
        return "nothing was ever released there"
    if not public_workers(layout, live):
        return f"no worker of {live} accepts public requests"
    return health.problem(layout.private_socket(live))


def wait_until_well(layout: Layout, health: HealthCheck, seconds: float) -> str:
    """Wait until the live generation serves well; return why it does not in the end."""
    deadline = time.monotonic() + seconds
    while True:
        problem = problem_of(layout, health)
        if not problem or time.monotonic() >= deadline:
            return problem
        time.sleep(HEED)


def other_apps(layout: Layout) -> list[str]:
    """Other apps of this collection that are released here and not drained, by their units."""
    found = []
    for path in glob.glob(os.path.join(layout.units, "*.service")):
        name = os.path.basename(path)
        text = (content(path) or b"").decode("utf-8", errors="replace")
        app, home = marked_app(text, name), HOME.search(text)
        if (
            app
            and app != layout.app
            and home
            and os.path.lexists(f"{home[1]}/current")
            and not os.path.exists(f"{home[1]}/drain")
        ):
            found.append(app)
    return sorted(found)


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params, check = module.params, module.check_mode
    layout = Layout(params["root"], params["app"])
    changed = False
    if os.path.isdir(layout.home):
        changed = set_flag(layout.drain, params["drained"], "", check)
        changed = set_flag(layout.maintenance, params["maintenance"], params["page"], check) or changed
    drained, count = os.path.exists(layout.drain), -1
    if drained and params["wait"] and not check and os.path.isdir(layout.run):
        count = wait_until_quiet(layout, params["notice"], params["wait"])
    health = HealthCheck(params["health_path"], params["health_status"])
    module.exit_json(
        changed=changed,
        other_apps=other_apps(layout),
        drained=drained,
        in_maintenance=os.path.exists(layout.maintenance),
        problem=wait_until_well(layout, health, 0 if check else params["gate"]),
        under_way=count,
    )


if __name__ == "__main__":
    main()
