# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..plugin_utils._private.socket_clients import edges_in

DOCUMENTATION = r"""
name: edge_addresses
short_description: Addresses from which edges reach the app
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - Those that the inventory gives, or all addresses of the edges. Of one that was not looked at, as it is away, those by which a host
    of the app knows it; where that knows none it fails in one sentence, as a release without its addresses would not trust it.
options:
  _input:
    description: Names of the hosts that are edges.
    type: list
    elements: str
    required: true
  facts:
    description: What M(thecodeforge.fastapi.host_info) returned on each of them; empty where it was not asked.
    type: list
    elements: dict
    required: true
  given:
    description: The variable C(forge_edge_addresses).
    type: list
    elements: str
    default: []
  host:
    description: What M(thecodeforge.fastapi.host_info) says of a host of the app.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show the addresses
  ansible.builtin.debug:
    msg: "{{ ['edge1'] | thecodeforge.fastapi.edge_addresses(facts=[host_info]) }}"
"""

RETURN = r"""
_value:
  description: Addresses, sorted, each once.
  type: list
  elements: str
"""


def edge_addresses(
    edges: Iterable[str],
    facts: Iterable[Mapping[str, Any]],
    given: list[str] | None = None,
    host: Mapping[str, Any] | None = None,
) -> list[str]:
    """
    :raises AnsibleFilterError: where an edge was not looked at, the host knows none, and no addresses are given.
    """
    seen = {edge: found.get("host") for edge, found in zip(edges, facts, strict=True)}
    if given:
        return sorted(set(given)) if seen else []
    addresses = {address for found in seen.values() if found for address in found["addresses"]}
    unseen = [edge for edge, found in seen.items() if not found]
    if unseen:
        known = edges_in((host or {}).get("clients", ""))
        if not known - addresses:
            raise AnsibleFilterError(
                f"{', '.join(unseen)} was not looked at, so the addresses of the edges are not known: do not leave it out by "
                "--limit, or name them in forge_edge_addresses. Nothing was changed."
            )
        addresses |= known
    return sorted(addresses)


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"edge_addresses": edge_addresses}
