# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOCUMENTATION = r"""
name: unsupported_hosts
short_description: Hosts that this collection does not support, and what they run
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
options:
  _input:
    description: Name of each host to what M(thecodeforge.fastapi.host_info) says of it.
    type: dict
    required: true
  systems:
    description: Operating systems that are supported, each as C(ID) and C(VERSION_ID) of C(/etc/os-release).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show what is not supported
  ansible.builtin.debug:
    msg: "{{ {'web1': look1.host, 'web2': look2.host} | thecodeforge.fastapi.unsupported_hosts(['debian 12']) }}"
    # ["web1 runs Fedora 44", "web2 runs Debian 12 without systemd"]
"""

RETURN = r"""
_value:
  description: Half a sentence for each host that is not supported.
  type: list
  elements: str
"""


def unsupported_hosts(hosts: Mapping[str, Mapping[str, Any]], systems: list[str]) -> list[str]:
    said = []
    for name, look in hosts.items():
        without = "" if look["booted_with_systemd"] else " without systemd"
        if without or f"{look['os']['id']} {look['os']['version']}" not in systems:
            said.append(f"{name} runs {look['os']['name']}{without}")
    return said


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"unsupported_hosts": unsupported_hosts}
