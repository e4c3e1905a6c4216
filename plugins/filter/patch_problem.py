# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: patch_problem
short_description: Why hosts cannot be patched one after the other
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - A reboot takes away all that a host does. That is refused where it does more than to serve this app.
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  results:
    description: What M(thecodeforge.fastapi.absence) returned on each of them.
    type: list
    elements: dict
    required: true
  databases:
    description: Hosts of the database.
    type: list
    elements: str
    default: []
  edges:
    description: Hosts that are an edge.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show why not
  ansible.builtin.debug:
    msg: "{{ ['web1'] | thecodeforge.fastapi.patch_problem(results=[{'other_apps': ['wiki']}]) }}"
"""

RETURN = r"""
_value:
  description: Sentences; empty when nothing is in the way.
  type: str
"""


def patch_problem(
    hosts: Iterable[str], results: Iterable[Mapping[str, Any]], databases: Iterable[str] = (), edges: Iterable[str] = ()
) -> str:
    with_database, with_edge, problems = set(databases), set(edges), []
    for host, result in zip(list(hosts), results, strict=True):
        more = [what for what, where in (("the database", with_database), ("an edge", with_edge)) if host in where]
        others = result.get("other_apps", [])
        if more:
            problems.append(
                f"{host} is also {' and '.join(more)}, which would be away with it: patch it by hand in a maintenance."
            )
        if others:
            problems.append(
                f"{host} also serves {', '.join(others)}: drain it there first, by the playbook drain of that inventory."
            )
    return " ".join([*problems, "Nothing was changed."]) if problems else ""


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"patch_problem": patch_problem}
