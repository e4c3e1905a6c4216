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
    description: Variables of the hosts, with what M(thecodeforge.fastapi.host_info) says of each.
    type: list
    elements: dict
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
    msg: "{{ ansible_play_hosts | map('extract', hostvars) | thecodeforge.fastapi.unsupported_hosts(['debian 12']) }}"
    # ["web1 runs Fedora 44", "web2 runs Debian 12 without systemd"]
"""

RETURN = r"""
_value:
  description: Half a sentence for each host that is not supported.
  type: list
  elements: str
"""


def unsupported_hosts(hosts: list[Mapping[str, Any]], systems: list[str]) -> list[str]:
    said = []
    for variables in hosts:
        look = variables["__forge_look"]["host"]
        without = "" if look["booted_with_systemd"] else " without systemd"
        if without or f"{look['os']['id']} {look['os']['version']}" not in systems:
            said.append(f"{variables['inventory_hostname']} runs {look['os']['name']}{without}")
    return said


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"unsupported_hosts": unsupported_hosts}
