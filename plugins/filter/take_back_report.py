# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: take_back_report
short_description: What a rollout that failed left on each host, as rows of a table
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - One row a host, what serves there now, and why.
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  steps:
    description:
      - For each host what M(thecodeforge.fastapi.rollout) returned for V(switch), V(watch) and V(finish); empty where a step
        did not run.
    type: list
    elements: list
    required: true
  backs:
    description: What it returned for V(take_back) on each host.
    type: list
    elements: dict
    required: true
  generations:
    description: Id of the generation that each host was to serve.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show which host is where
  ansible.builtin.debug:
    msg: >-
      {{ ['web1'] | thecodeforge.fastapi.take_back_report(steps=[[{}]], backs=[{}], generations=['bbbbbbbbbbbb-00000000'])
         | thecodeforge.fastapi.table }}
"""

RETURN = r"""
_value:
  description: Rows, the head first.
  type: list
  elements: list
"""

HEAD = ["host", "serves", "because"]


def take_back_report(
    hosts: Iterable[str],
    steps: Iterable[Iterable[Mapping[str, Any]]],
    backs: Iterable[Mapping[str, Any]],
    generations: Iterable[str],
) -> list[list[str]]:
    """Rows of the table; the head alone without hosts."""
    return [HEAD, *map(row, hosts, steps, backs, generations)]


def row(host: str, steps: Iterable[Mapping[str, Any]], back: Mapping[str, Any], generation: str) -> list[str]:
    """What became of one host."""
    taken = list(steps)
    if "serves" not in back:
        return [host, "unknown", "it could not be asked: look at it with status.yml"]
    serves = str(back["serves"])
    if any(step.get("failed") for step in taken):
        because = "its release failed"
    elif serves == generation:
        because = "it keeps what it was released"
    elif any(step.get("taken_back") for step in [*taken, back]):
        because = "it was taken back"
    else:
        because = "it was not switched"
    return [host, serves or "nothing", because]


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"take_back_report": take_back_report}
