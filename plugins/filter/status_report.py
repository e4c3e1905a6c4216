# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  statuses:
    description: What M(thecodeforge.fastapi.status) returned on each host.
    type: list
    elements: dict
    required: true
  releases:
    description:
      - What M(thecodeforge.fastapi.stage) returned on each host in check mode; empty where it was not compared.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the hosts
  ansible.builtin.debug:
    msg: "{{ ['web1'] | thecodeforge.fastapi.status_report([status], [{}]) | thecodeforge.fastapi.table }}"
"""

RETURN = r"""
_value:
  description: Rows, the head first.
  type: list
  elements: list
"""

HEAD = ["host", "live", "commit", "since", "workers", "healthy", "previous", "drift", "lock"]


def status_report(
    hosts: Iterable[str], statuses: Iterable[Mapping[str, Any]], releases: Iterable[Mapping[str, Any]]
) -> list[list[str]]:
    """Rows of the table; the head alone without hosts."""
    return [HEAD, *map(row, hosts, statuses, releases)]


def row(host: str, status: Mapping[str, Any], release: Mapping[str, Any]) -> list[str]:
    """How one host serves; of one that does not answer only the problem is known."""
    if "generations" not in status:
        return [host, "?", "-", "-", "-", f"no: {status['problem']}", "-", drift("", release), "?"]
    lock = status["lock"]
    return [
        host,
        status["live"] or "nothing",
        str(status["generations"].get(status["live"], {}).get("commit") or "-")[:10],
        status["since"] or "-",
        str(status["workers"]),
        healthy(status),
        status["previous"] or "-",
        drift(status["live"], release),
        f"{lock['user']}@{lock['host']} ({lock['reason']}) since {lock['since']}" if lock else "-",
    ]


def healthy(status: Mapping[str, Any]) -> str:
    """Whether a host serves well, and whether an operator keeps it from that."""
    kept = [text for text, key in (("drained", "drained"), ("in maintenance", "in_maintenance")) if status.get(key)]
    return ", ".join(["yes" if status["healthy"] else f"no: {status['problem']}", *kept])


def drift(live: str, release: Mapping[str, Any]) -> str:
    """How a host differs from the inventory; C(-) when it does not, C(?) when it was not compared."""
    if not release:
        return "?"
    if live != release["generation"]:
        return f"the inventory asks for {release['generation']}"
    if release["drifted"]:
        return f"edited: {', '.join(release['drifted'])}"
    return "-" if release["converged"] and not release["missing"] else "incomplete"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"status_report": status_report}
