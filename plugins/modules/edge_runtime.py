#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: edge_runtime
short_description: Ask an edge what the hosts of an app do, and begin or end a maintenance there
version_added: 1.1.0
description:
  - Asks HAProxy while it runs. It is not reloaded.
author: The Code Forge (@thecodeforge)
options:
  app:
    description: Name of the app.
    type: str
    required: true
  maintenance:
    description: Whether the edge shows the page of a maintenance in the app's place; V(keep) leaves that as it is.
    type: str
    choices: [keep, "on", "off"]
    default: keep
  hold:
    description: Hosts of the app that the edge is to send nothing, until they are named in O(lift).
    type: list
    elements: str
    default: []
  lift:
    description: Hosts of the app that it is to send requests again.
    type: list
    elements: str
    default: []
  names:
    description: Hosts of the app that are waited for.
    type: list
    elements: str
    default: []
  up:
    description:
      - Whether to wait until the edge sends requests to O(names), or until it sends none and none is under way there.
    type: bool
    default: false
  seconds:
    description: How long to wait at most. The result says what was seen last.
    type: float
    default: 0
extends_documentation_fragment:
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Wait until nothing is under way on a host that is drained
  thecodeforge.fastapi.edge_runtime:
    app: shop
    names: [web1]
    seconds: 60
"""

RETURN = r"""
servers:
  description: Name to what the edge sees of it, its C(status) and how many requests are under way (C(current)).
  returned: always
  type: dict
held:
  description: Hosts of the app that the edge sends nothing.
  returned: always
  type: list
  elements: str
held_before:
  description: Those before this call.
  returned: always
  type: list
  elements: str
in_maintenance:
  description: Whether the page of a maintenance is shown.
  returned: always
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private import haproxy
from ..module_utils._private.edge_config import maintenance_file
from ..module_utils._private.edge_host import Edge, EdgeError, edge_lock
from ..module_utils._private.errors import tells_what_the_host_refuses
from ..module_utils._private.layout import read_file, write_atomically

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "app": {"type": "str", "required": True},
    "maintenance": {"type": "str", "choices": ["keep", "on", "off"], "default": "keep"},
    "hold": {"type": "list", "elements": "str", "default": []},
    "lift": {"type": "list", "elements": "str", "default": []},
    "names": {"type": "list", "elements": "str", "default": []},
    "up": {"type": "bool", "default": False},
    "seconds": {"type": "float", "default": 0},
}


def apps_in_maintenance() -> list[str]:
    try:
        return read_file(maintenance_file()).decode().split()
    except OSError:
        return []


def set_maintenance(app: str, on: bool) -> None:
    """Write it down for the next start of HAProxy, and tell the one that runs.

    :raises HAProxyError: when that does not know the list, as it has no such app.
    """
    others = [name for name in apps_in_maintenance() if name != app]
    write_atomically(
        maintenance_file(), "".join(f"{name}\n" for name in [*others, *([app] if on else [])]).encode(), 0o644
    )
    answer = haproxy.ask(f"{'add' if on else 'del'} acl {maintenance_file()} {app}")
    if answer:
        raise haproxy.HAProxyError(answer)


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    app, wanted = params["app"], {"on": True, "off": False}.get(params["maintenance"])
    was = app in apps_in_maintenance()
    changed = wanted is not None and wanted != was
    try:
        before = held = Edge(app).mine().held
        if not module.check_mode and (changed or params["hold"] or params["lift"]):
            with edge_lock():
                if changed:
                    set_maintenance(app, bool(wanted))
                before, held = Edge(app).hold(params["hold"], params["lift"])
        changed = changed or before != held
        seconds = 0.0 if module.check_mode else params["seconds"]
        found = (
            haproxy.wait_for(app, params["names"], params["up"], seconds) if params["names"] else haproxy.servers(app)
        )
    except EdgeError as error:
        module.fail_json(msg=str(error))
    except haproxy.HAProxyError as error:
        module.fail_json(msg=f"{error}: is the app on this edge, as the playbook site puts it there?")
    module.exit_json(
        changed=changed,
        servers=found,
        held=held,
        held_before=before,
        in_maintenance=was if wanted is None else wanted,
    )


if __name__ == "__main__":
    main()
