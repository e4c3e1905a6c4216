# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: remove_report
short_description: What a removal ends with, as rows of a table
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - One row for each thing that was removed or left, with its host and why it was left.
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  results:
    description: What M(thecodeforge.fastapi.remove) returned on each host, for each part of the app that the host has.
    type: list
    elements: dict
    required: true
  removed:
    description: Whether things were removed, or only listed.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Show what was removed
  ansible.builtin.debug:
    msg: "{{ ['web1'] | thecodeforge.fastapi.remove_report(results=[result]) | thecodeforge.fastapi.table }}"
  vars:
    result:
      app:
        removed: [{what: unit, name: shop.service}]
        left: [{what: account, name: shop, why: it does not carry the mark of this app}]
"""

RETURN = r"""
_value:
  description: Rows, the head first.
  type: list
  elements: list
"""

HEAD = ["host", "what", "name", "outcome"]


def remove_report(hosts: Iterable[str], results: Iterable[Mapping[str, Any]], removed: bool = True) -> list[list[str]]:
    """Rows of the table."""
    rows = [HEAD]
    for host, parts in zip(hosts, results, strict=True):
        found = [
            *(
                [each, "removed" if removed else "would be removed"]
                for part in parts.values()
                for each in part["removed"]
            ),
            *([each, f"left: {each['why']}"] for part in parts.values() for each in part["left"]),
        ]
        rows += [[host, each["what"], each["name"], outcome] for each, outcome in found]
        rows += [] if found else [[host, "nothing", "-", "the host has nothing of this app"]]
    return rows


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"remove_report": remove_report}
