# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: edges_to_tell
short_description: Edges that can be told which hosts lack a release
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - All but those that do not answer, and those that have no HAProxy yet. A run that has not looked takes them for well.
options:
  _input:
    description: Names of the edges.
    type: list
    elements: str
    required: true
  facts:
    description: What M(thecodeforge.fastapi.host_info) gave on each of them; empty where it was not asked.
    type: list
    elements: dict
    required: true
  results:
    description: What M(thecodeforge.fastapi.edge) gave on each of them, likewise.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show which edges are told
  ansible.builtin.debug:
    msg: "{{ ['e1', 'e2'] | thecodeforge.fastapi.edges_to_tell(facts=[{}, {'unanswered': 'no route'}], results=[{}, {}]) }}"
"""

RETURN = r"""
_value:
  description: Names.
  type: list
  elements: str
"""


def edges_to_tell(
    edges: Iterable[str], facts: Iterable[Mapping[str, Any]], results: Iterable[Mapping[str, Any]]
) -> list[str]:
    return [
        edge
        for edge, found, result in zip(edges, facts, results, strict=True)
        if "unanswered" not in found and result.get("installed", True)
    ]


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"edges_to_tell": edges_to_tell}
