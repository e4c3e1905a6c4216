# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: host_problems
short_description: What keeps hosts from being prepared, in sentences
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - Two names that are one machine, packages that no package source of a host has, and an interpreter that is not where it
    should be.
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  facts:
    description: What M(thecodeforge.fastapi.host_info) returned as C(host) on each host.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Assert that the hosts can be prepared
  ansible.builtin.assert:
    that: ansible_play_hosts | thecodeforge.fastapi.host_problems(facts=[host_info.host]) | length == 0
"""

RETURN = r"""
_value:
  description: Sentences; none when nothing is wrong.
  type: list
  elements: str
"""


def host_problems(hosts: Iterable[str], facts: Iterable[Mapping[str, Any]]) -> list[str]:
    pairs = list(zip(hosts, facts, strict=True))
    return [*same_machines(pairs), *(problem for name, host in pairs for problem in missing(name, host))]


def same_machines(pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Names of an inventory that are one machine: two deploys would meet there."""
    names: dict[str, list[str]] = {}
    for name, host in pairs:
        names.setdefault(host["identity"], []).append(name)
    return [
        f"{' and '.join(found)} are one machine: keep one of these names in the group forge_app."
        for found in names.values()
        if len(found) > 1
    ]


def missing(name: str, host: Mapping[str, Any]) -> list[str]:
    """What a host lacks and cannot be given."""
    python = host["python"]
    directory, _slash, program = python["path"].rpartition("/")
    unavailable = list(host["unavailable_packages"])
    problems = []
    if not python["installed"] and directory != "/usr/bin":
        problems.append(
            f"forge_python: {name} has no {python['path']}, and packages install to /usr/bin: put an interpreter there, "
            "or give a name such as python3."
        )
    elif not python["installed"] and program in unavailable:
        problems.append(
            f"forge_python: {name} has no {program}, and no package source of it does: give one that {host['os']['name']} "
            "has, such as python3, or add a source."
        )
    others = [package for package in unavailable if python["installed"] or package != program]
    if others:
        problems.append(
            f"forge_packages: no package source of {name} has {', '.join(others)}: correct the name, or add a source."
        )
    return problems


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"host_problems": host_problems}
