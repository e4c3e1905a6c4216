# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ..module_utils._private.postgresql import PostgreSQL
from ..plugin_utils._private.database_server import names_of

DOCUMENTATION = r"""
name: database_names
short_description: Names of an app's database and its role
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - What the inventory says; else what the app's file on the server says; else the app's name, with C(_) for C(-).
  - What an earlier version made keeps its names, C(forge) and C(forge).
options:
  _input:
    description: Name of the app.
    type: str
    required: true
  server:
    description: C(host.postgresql) of M(thecodeforge.fastapi.host_info) on the server; empty when it was not looked at.
    type: dict
    default: {}
  database:
    description: The name that the inventory gives the database, if any.
    type: str
    default: ""
  role:
    description: The name that the inventory gives the role, if any.
    type: str
    default: ""
  uses_earlier_names:
    description: Does the app that serves connect with the names that earlier versions gave?
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the names
  ansible.builtin.debug:
    msg: "{{ 'my-shop' | thecodeforge.fastapi.database_names }}" # {"database": "my_shop", "role": "my_shop"}
"""

RETURN = r"""
_value:
  description: The names of the C(database) and the C(role).
  type: dict
"""


def database_names(
    app: str,
    server: PostgreSQL | None = None,
    database: str = "",
    role: str = "",
    uses_earlier_names: bool = False,
) -> dict[str, str]:
    return names_of(app, database, role, server or {}, uses_earlier_names)._asdict()


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"database_names": database_names}
