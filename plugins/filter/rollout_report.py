# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOCUMENTATION = r"""
name: rollout_report
short_description: What a rollout ends with, as rows of a table
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - One row a host, what it is, its workers and why that many, from which generation to which, where it serves,
    how long it took.
options:
  _input:
    description: Variables of the hosts.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Say what serves
  ansible.builtin.debug:
    msg: "{{ rows | thecodeforge.fastapi.table }}"
  vars:
    rows: "{{ ansible_play_hosts | map('extract', hostvars) | thecodeforge.fastapi.rollout_report }}"
"""

RETURN = r"""
_value:
  description: Rows, the head first.
  type: list
  elements: list
"""

HEAD = ["host", "system", "Python", "workers", "why", "from", "to", "address", "seconds"]


def rollout_report(hosts: list[Mapping[str, Any]]) -> list[list[str]]:
    return [HEAD, *(row(host) for host in hosts)]


def row(host: Mapping[str, Any]) -> list[str]:
    look = host["__forge_look"]["host"]
    workers = host["__forge_workers"]
    staged = host["__forge_staged"]
    to = staged["generation"]
    steps = [host.get(name) or {} for name in ("__forge_candidate", "__forge_switched")]
    changed = any(step.get("changed") for step in steps)
    return [
        host["inventory_hostname"],
        look["os"]["name"],
        look["python"]["version"],
        str(workers["count"]),
        workers["reason"] + ("" if drains(host) else "; no drain: a release may cut requests"),
        (staged["live"] or "nothing") if changed else "no change",
        to,
        url(host),
        f"{steps[0].get('seconds', 0) + steps[1].get('switched_in', 0):.1f}" if changed else "-",
    ]


def drains(host: Mapping[str, Any]) -> bool:
    """Can what serves stand by and drain? Known once the generation is staged."""
    staged: dict[str, Any] = {**host["__forge_staged"], **(host.get("__forge_staged_now") or {})}
    return bool(staged.get("drains", True))


def url(host: Mapping[str, Any]) -> str:
    """Where the first public socket is reached."""
    address = str(host["__forge_listen"][0])
    if address.startswith("/"):
        return address
    name, _colon, port = address.rpartition(":")
    if name in ("", "0.0.0.0", "[::]"):  # noqa: S104
        name = str(host.get("ansible_host", host["inventory_hostname"]))
        name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"rollout_report": rollout_report}
