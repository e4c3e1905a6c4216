# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

DOCUMENTATION = r"""
name: unreachable
short_description: What is said of hosts that do not answer
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - Says whether a run stops, as hosts do not answer, or goes on without them.
options:
  _input:
    description: What M(thecodeforge.fastapi.host_info) gave on each host, by the host's name.
    type: dict
    required: true
  app_hosts:
    description: Names of the hosts that serve the app.
    type: list
    elements: str
    required: true
  needed:
    description: Names of hosts that no run can do without.
    type: list
    elements: str
    default: []
  choice:
    description: The variable C(forge_unreachable).
    type: str
    choices: [stop, go_on]
    required: true
"""

EXAMPLES = r"""
- name: Go on without the hosts that do not answer, where that is wanted
  ansible.builtin.assert:
    that: (facts | thecodeforge.fastapi.unreachable(app_hosts=['web1', 'web2'], choice='go_on')).problem == ''
  vars:
    facts: {web1: {}, web2: {unanswered: 'connect to host 192.0.2.7 port 22: No route to host'}}
"""

RETURN = r"""
_value:
  description:
    - C(problem), why the run stops, empty when it does not; and C(note), which hosts it goes on without, empty when there
      are none.
  type: dict
"""


def unreachable(
    facts: dict[str, Any], app_hosts: list[str], choice: str, needed: list[str] | None = None
) -> dict[str, str]:
    causes = {host: found["unanswered"] for host, found in facts.items() if "unanswered" in found}
    if not causes:
        return {"problem": "", "note": ""}
    who = listed(causes)
    missed = [host for host in needed or [] if host in causes]
    if choice == "stop":
        problem = (
            f"{who}: start what is down, or go on without it with -e forge_unreachable=go_on. Nothing was changed."
        )
    elif missed:
        problem = f"{who}, and no run goes on without the database on {missed[0]}: start that. Nothing was changed."
    elif set(app_hosts).intersection(facts) <= set(causes):
        problem = f"{who}, and no other host is left: start one. Nothing was changed."
    else:
        return {"problem": "", "note": f"{who}: the run goes on, and what is there stays until the next run."}
    return {"problem": problem, "note": ""}


def listed(causes: dict[str, str]) -> str:
    hosts = [f"{host} ({said})" for host, said in causes.items()]
    verb = "does" if len(hosts) == 1 else "do"
    return f"{', '.join(hosts)} {verb} not answer"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"unreachable": unreachable}
