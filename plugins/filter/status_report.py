# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOCUMENTATION = r"""
name: status_report
short_description: What serves where, as rows of a table
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - One row a host, with the live generation and the commit it was built from, since when, its workers, whether it is
    healthy, what a rollback goes to, whether the host differs from the inventory, and who holds the lock.
options:
  _input:
    description: Variables of the hosts.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the hosts
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts | map('extract', hostvars) | thecodeforge.fastapi.status_report | thecodeforge.fastapi.table }}"
"""

RETURN = r"""
_value:
  description: Rows, the head first.
  type: list
  elements: list
"""

HEAD = ["host", "live", "commit", "since", "workers", "healthy", "previous", "drift", "lock"]


def status_report(hosts: list[Mapping[str, Any]]) -> list[list[str]]:
    return [HEAD, *(row(host) for host in hosts)]


def row(host: Mapping[str, Any]) -> list[str]:
    status = host["__forge_status"]
    lock = status["lock"]
    return [
        host["inventory_hostname"],
        status["live"] or "nothing",
        str(status["generations"].get(status["live"], {}).get("commit") or "-")[:10],
        status["since"] or "-",
        str(status["workers"]),
        "yes" if status["healthy"] else f"no: {status['problem']}",
        status["previous"] or "-",
        drift(host),
        f"{lock['user']}@{lock['host']} ({lock['reason']}) since {lock['since']}" if lock else "-",
    ]


def drift(host: Mapping[str, Any]) -> str:
    staged = host.get("__forge_staged")
    if not staged:
        return "?"
    if host["__forge_status"]["live"] != staged["generation"]:
        return f"the inventory asks for {staged['generation']}"
    if staged["drifted"]:
        return f"edited: {', '.join(staged['drifted'])}"
    return "-" if staged["settled"] and not staged["missing"] else "incomplete"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"status_report": status_report}
