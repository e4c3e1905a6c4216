# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: edge_servers
short_description: Where an edge finds the app, on each of its hosts
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - The first address of C(forge_listen) that the edge can reach; on the edge's own host over the loopback.
options:
  _input:
    description: Variables of each host of the app, with C(inventory_hostname).
    type: list
    elements: dict
    required: true
  edge:
    description: Name of the edge.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show where the app is
  ansible.builtin.debug:
    msg: "{{ groups['forge_app'] | map('extract', hostvars) | thecodeforge.fastapi.edge_servers(edge='edge1') }}"
"""

RETURN = r"""
_value:
  description: C(name) of the host and C(address), with its port.
  type: list
  elements: dict
"""

ANY = ("0.0.0.0", "[::]", "")  # noqa: S104 (any address)
DEFAULT = ["0.0.0.0:8000"]  # as forge_listen


def edge_servers(hosts: Iterable[Mapping[str, Any]], edge: str) -> list[dict[str, str]]:
    """
    :raises AnsibleFilterError: when an edge cannot reach the app on a host.
    """
    found = [server(host, edge) for host in hosts]
    if not found:
        raise AnsibleFilterError(
            f"The group forge_app has no host, so none is left behind the edge {edge}: name one, or remove the app."
        )
    return found


def server(host: Mapping[str, Any], edge: str) -> dict[str, str]:
    name, listen = str(host["inventory_hostname"]), [str(each) for each in host.get("forge_listen") or DEFAULT]
    reached = str(host.get("forge_edge_server_address") or host.get("ansible_host") or name)
    if ":" in reached:
        reached = f"[{reached.strip('[]')}]"
    for entry in listen:
        address, _colon, port = entry.rpartition(":")
        if entry.startswith("/"):
            continue
        if name == edge:
            return {"name": name, "address": f"{'127.0.0.1' if address in ANY else address}:{port}"}
        if address in ANY:
            return {"name": name, "address": f"{reached}:{port}"}
        if not re.match(r"127\.|\[::1\]", address):
            return {"name": name, "address": entry}
    raise AnsibleFilterError(
        f"forge_listen: {name} listens on {', '.join(listen)}, where the edge {edge} cannot reach it: add an address such as "
        "0.0.0.0:8000, which then the edges alone may reach."
    )


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"edge_servers": edge_servers}
