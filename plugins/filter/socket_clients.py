# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ..plugin_utils._private.socket_clients import drop_in

DOCUMENTATION = r"""
name: socket_clients
short_description: A drop-in for the unit of the app's public socket, which says who may reach it
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - With edges those alone, the app's own host, and who else is named. systemd applies it to the socket, not to what the app itself
    connects to, and to a socket that is open.
options:
  _input:
    description: Addresses of the edges.
    type: list
    elements: str
    required: true
  app:
    description: Name of the app.
    type: str
    required: true
  own:
    description: Addresses of the app's host.
    type: list
    elements: str
    required: true
  clients:
    description: Who else may; V(any) is everybody.
    type: list
    elements: str
    default: []
  has_edges:
    description: Whether the app has edges.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Show it
  ansible.builtin.debug:
    msg: "{{ ['192.0.2.1'] | thecodeforge.fastapi.socket_clients(app='shop', own=['192.0.2.7'], clients=['198.51.100.0/24']) }}"
"""

RETURN = r"""
_value:
  description: Text of the drop-in; empty when everybody may.
  type: str
"""


def socket_clients(
    edges: list[str], app: str, own: list[str], clients: list[str] | None = None, has_edges: bool = True
) -> str:
    if not has_edges or "any" in (clients or []):
        return ""
    return drop_in(app, edges, [*own, *map(str, clients or [])])


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"socket_clients": socket_clients}
