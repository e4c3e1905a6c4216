# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ..module_utils._private.postgresql import PostgreSQL
from ..module_utils._private.records import ProjectRecord
from ..plugin_utils._private.database_server import Names, Plan, Wish, plan

DOCUMENTATION = r"""
name: database_plan
short_description: What an app changes on a PostgreSQL server that it may share
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - Compares what the app needs with one look at the server. Only what is marked as the app's is changed, settings are only
    raised, and a restart is planned only when it helps.
options:
  _input:
    description: C(host.postgresql) of M(thecodeforge.fastapi.host_info).
    type: dict
    required: true
  host:
    description: Name of the host, for people.
    type: str
    required: true
  app:
    description: Name of the app.
    type: str
    required: true
  names:
    description: What P(thecodeforge.fastapi.database_names#filter) gives.
    type: dict
    required: true
  port:
    description: Port of the server.
    type: int
    required: true
  max_connections:
    description: Connections that the app needs the server to accept.
    type: int
    required: true
  clients:
    description: Addresses and networks of the app's hosts.
    type: list
    elements: str
    required: true
  keeps_clients:
    description: Not every host of the app was seen, so whoever is let in stays so.
    type: bool
    default: false
  addresses:
    description: Addresses of the server.
    type: list
    elements: str
    required: true
  has_password:
    description: Does this controller know the role's password?
    type: bool
    required: true
  take_over:
    description: Take a database or a role that this collection did not make.
    type: bool
    default: false
  project:
    description: What tells the project from others, as P(thecodeforge.fastapi.project#filter) gives it.
    type: dict
    default: {}
  take_over_project:
    description: Go on where another project has an app of this name.
    type: bool
    default: false
  fresh:
    description: Has this run installed the server?
    type: bool
    default: false
  uses_earlier_names:
    description: Does the app that serves connect with the names that earlier versions gave?
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show what would change
  ansible.builtin.debug:
    msg: >-
      {{ forge_host_facts.host.postgresql | thecodeforge.fastapi.database_plan(
           host='db1', app='shop', names={'database': 'shop', 'role': 'shop'}, port=5432, max_connections=100,
           clients=['192.0.2.7'], addresses=['192.0.2.9'], has_password=true) }}
"""

RETURN = r"""
_value:
  description:
    - C(problems) and C(notes) for people, C(packages) and the systemd C(unit); where the server runs also the C(rules) and
      C(files) to be written, whether to C(reload) or why to C(restart), and the comments that mark what is the app's.
  type: dict
"""


def database_plan(
    server: PostgreSQL, names: dict[str, str], project: dict[str, str] | None = None, **wish: Any
) -> Plan:
    return plan(Wish(names=Names(**names), project=ProjectRecord.from_dict(project), **wish), server)


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"database_plan": database_plan}
