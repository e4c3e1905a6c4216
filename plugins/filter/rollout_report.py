# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: rollout_report
short_description: What a rollout ends with, as rows of a table
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - One row a host, what it is, its workers and why that many, from which generation to which, where it serves,
    how long it took, and what of the old generation was ended before it had ended by itself.
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  facts:
    description: C(host) of M(thecodeforge.fastapi.host_info) for each host.
    type: list
    elements: dict
    required: true
  targets:
    description: What each host was to serve, with C(generation), C(live), C(workers), C(listen), and perhaps C(drains).
    type: list
    elements: dict
    required: true
  results:
    description:
      - What M(thecodeforge.fastapi.rollout) returned on each host for C(candidate), C(switch) and C(finish); empty
        where it did not run.
    type: list
    elements: dict
    required: true
  addresses:
    description: Name or address of each host, where it is not the host's name; empty where it is.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show what serves
  ansible.builtin.debug:
    msg: "{{ ['web1'] | thecodeforge.fastapi.rollout_report(**of_the_hosts) | thecodeforge.fastapi.table }}"
  vars:
    of_the_hosts:
      facts: [{os: {name: Debian 12}, python: {version: 3.11.2}}]
      targets:
        - generation: bbbbbbbbbbbb-00000000
          live: aaaaaaaaaaaa-00000000
          workers: {count: 5, reason: "2 CPUs: 2 x 2 + 1"}
          listen: ["0.0.0.0:8000"]
      results: [{}]
      addresses: [192.0.2.7]
"""

RETURN = r"""
_value:
  description: Rows, the head first.
  type: list
  elements: list
"""

HEAD = ["host", "system", "Python", "workers", "why", "from", "to", "address", "seconds", "ended meanwhile"]


def rollout_report(
    hosts: Iterable[str],
    facts: Iterable[Mapping[str, Any]],
    targets: Iterable[Mapping[str, Any]],
    results: Iterable[Mapping[str, Any]],
    addresses: Iterable[str],
) -> list[list[str]]:
    """Rows of the table; the head alone without hosts."""
    return [HEAD, *map(row, hosts, facts, targets, results, addresses)]


def row(
    host: str, facts: Mapping[str, Any], target: Mapping[str, Any], result: Mapping[str, Any], address: str
) -> list[str]:
    """What became of one host."""
    if target.get("converged"):  # before this rollout: what is there is the result of an earlier one of the same run
        result = {}
    candidate, switch, finish = (result.get(step) or {} for step in ("candidate", "switch", "finish"))
    changed = bool(candidate.get("changed") or switch.get("changed"))
    drains = target.get("drains", True)
    return [
        host,
        facts["os"]["name"],
        target.get("python") or facts["python"]["version"],
        str(target["workers"]["count"]),
        target["workers"]["reason"]
        + connections(candidate)
        + ("" if drains else "; no drain: a release may cut requests"),
        (target["live"] or "nothing") if changed else "no change",
        target["generation"],
        url(str(target["listen"][0]), address or host),
        f"{candidate.get('seconds', 0) + switch.get('switched_in', 0):.1f}" if changed else "-",
        (", ".join([*switch.get("ended", []), *finish.get("ended", [])]) or "nothing") if changed else "-",
    ]


def connections(candidate: Mapping[str, Any]) -> str:
    """What a worker was seen to open to its database."""
    count = candidate.get("connections", 0)
    return f"; {count} connections a worker" if count > 1 else "; 1 connection a worker" if count else ""


def url(listen: str, host: str) -> str:
    """Where a public socket is reached.

    :param listen: one of ``forge_listen``.
    :param host: name or address, for a socket that is bound to every address.
    """
    if listen.startswith("/"):
        return listen
    name, _colon, port = listen.rpartition(":")
    if name in ("", "0.0.0.0", "[::]"):  # noqa: S104
        name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"rollout_report": rollout_report}
