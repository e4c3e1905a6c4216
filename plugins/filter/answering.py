# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: answering
short_description: The pattern of the hosts that a play is for, without those that do not answer
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - A host that M(thecodeforge.fastapi.host_info) has got an answer from is in the group C(forge_answering). Before anybody
    was asked, all are taken to answer.
options:
  _input:
    description: The variable C(groups).
    type: dict
    required: true
  of:
    description: Names of the groups.
    type: list
    elements: str
    default: [forge_app]
  otherwise:
    description: Names of the groups where those have no host. A play that matches no host is one that Ansible complains of.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Roll out
  hosts: "{{ groups | thecodeforge.fastapi.answering }}"
"""

RETURN = r"""
_value:
  description: A pattern of hosts.
  type: str
"""


def answering(groups: dict[str, list[str]], of: list[str] | None = None, otherwise: list[str] | None = None) -> str:
    wanted = of or ["forge_app"]
    if otherwise:
        wanted = [name for name in wanted if groups.get(name)] or otherwise
    return ":".join([*wanted, *(["&forge_answering"] if "forge_answering" in groups else [])])


class FilterModule:
    def filters(self) -> dict[str, object]:
        return {"answering": answering}
