#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: remove
short_description: Take an app off a host, or off a PostgreSQL server
version_added: 1.0.0
description:
  - Removes exactly what carries the mark of the app, and answers what it removed and what it left, and why.
  - Of a host, units, code, layers and generations, and the account and its group unless somebody else needs them. The
    app is stopped as its service would be, so it answers what it has accepted.
  - Of a PostgreSQL server, the app's configuration file and access rules. The server is told to read its configuration
    again, and never restarted.
  - Of an edge, the app's part of HAProxy's configuration, which is reloaded. The last app leaves it without an address.
  - Data goes only with O(data=true), which are state and cache directories, the ledger, the database and its owner.
  - What somebody has put into a directory of the app stays, with what it lies in.
author: The Code Forge (@thecodeforge)
options:
  part:
    description: >-
      Which part of the app this host has, V(app) what serves, V(database) its part of a PostgreSQL server, V(edge) its part of an
      edge.
    type: str
    default: app
    choices: [app, database, edge]
  user:
    description: Account of the app, beside those that its units name.
    type: str
    default: ""
  project:
    description: What tells the project from others, keys of C(project.json). The app of another one is not removed.
    type: dict
    default: {}
  take_over:
    description: With V(project) in it, the app of another project is removed, too.
    type: list
    elements: str
    default: []
  data:
    description: Whether data goes too.
    type: bool
    default: false
  state_directories:
    description: Directories below C(/var/lib) that are the app's, beside those that its units name.
    type: list
    elements: str
    default: []
  cache_directories:
    description: Directories below C(/var/cache) that are the app's, beside those that its units name.
    type: list
    elements: str
    default: []
  port:
    description: Port of the PostgreSQL server.
    type: int
    default: 5432
extends_documentation_fragment:
  - thecodeforge.fastapi._app
  - thecodeforge.fastapi._attributes
attributes:
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Take the app off the host, and leave its data
  thecodeforge.fastapi.remove:
    app: shop
    root: /srv
    user: shop
"""

RETURN = r"""
removed:
  description: What was removed, or would be in check mode, each with C(what) it is and its C(name).
  returned: always
  type: list
  elements: dict
left:
  description: What was left, each with C(what) it is, its C(name), and C(why) it was left.
  returned: always
  type: list
  elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.database_removal import DatabaseRemoval
from ..module_utils._private.edge_removal import EdgeRemoval
from ..module_utils._private.errors import tells_what_the_host_refuses
from ..module_utils._private.layout import Layout, read_json
from ..module_utils._private.records import ProjectRecord
from ..module_utils._private.removal import Inventory, Removal, RemovalError, check_project

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "part": {"type": "str", "default": "app", "choices": ["app", "database", "edge"]},
    "user": {"type": "str", "default": ""},
    "project": {"type": "dict", "default": {}},
    "take_over": {"type": "list", "elements": "str", "default": []},
    "data": {"type": "bool", "default": False},
    "state_directories": {"type": "list", "elements": "str", "default": []},
    "cache_directories": {"type": "list", "elements": "str", "default": []},
    "port": {"type": "int", "default": 5432},
}


def removal_of(params: dict[str, Any]) -> Removal | DatabaseRemoval | EdgeRemoval:
    if params["part"] == "edge":
        return EdgeRemoval(
            params["app"], None if "project" in params["take_over"] else ProjectRecord.from_dict(params["project"])
        )
    if params["part"] == "database":
        project = None if "project" in params["take_over"] else ProjectRecord.from_dict(params["project"])
        return DatabaseRemoval(params["app"], params["port"], params["data"], project)
    layout = Layout(params["root"], params["app"])
    if "project" not in params["take_over"]:
        check_project(
            layout.home, ProjectRecord.from_dict(read_json(layout.project)), ProjectRecord.from_dict(params["project"])
        )
    directories = [f"/var/{kind}/{name}" for kind, option in (("lib", "state"), ("cache", "cache"))
                   for name in params[f"{option}_directories"]]  # fmt: skip
    return Removal(layout, params["user"], params["data"], directories)


def diff(found: Inventory) -> dict[str, str]:
    """What is there before and after, a line each."""
    before = [f"{thing.what} {thing.name}\n" for thing in found.things]
    after = [f"{thing.what} {thing.name}\n" for thing in found.things if thing.why]
    return {
        "before_header": "on this host",
        "after_header": "on this host",
        "before": "".join(before),
        "after": "".join(after),
    }


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        removal = removal_of(module.params)
        found = removal.find()
        result: dict[str, Any] = {**found.result(), "changed": any(not thing.why for thing in found.things)}
        if result["changed"] and not module.check_mode:
            removal.take_away(found)
    except RemovalError as error:
        module.fail_json(msg=str(error))
    if module._diff and result["changed"]:
        result["diff"] = diff(found)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
