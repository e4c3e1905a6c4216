# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: edge_holds
short_description: What edges are told of hosts after a run
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - Hosts that lack a release get nothing from an edge. Those of this run lack none any more. Others that an edge holds are held by all,
    also by one that was away when the rest were told.
options:
  _input:
    description: What M(thecodeforge.fastapi.edge) gave on each edge; empty where it was not asked.
    type: list
    elements: dict
    required: true
  hosts:
    description: Hosts of the app that have got what the run released.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show what the edges are told
  ansible.builtin.debug:
    msg: "{{ [{'held': ['web2']}, {'held': []}] | thecodeforge.fastapi.edge_holds(hosts=['web1']) }}"
"""

RETURN = r"""
_value:
  description: C(hold) and C(lift), names of hosts; empty where all edges are as they should be.
  type: dict
"""


def edge_holds(results: Iterable[Mapping[str, Any]], hosts: Iterable[str]) -> dict[str, list[str]]:
    held = [set(result["held"]) for result in results if "held" in result]
    anywhere, everywhere = set[str]().union(*held), set.intersection(*held) if held else set[str]()
    here = set(hosts)
    return {"hold": sorted(anywhere - everywhere - here), "lift": sorted(anywhere & here)}


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"edge_holds": edge_holds}
