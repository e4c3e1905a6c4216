# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: absence_problem
short_description: Why hosts cannot be taken away on purpose
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - A name that is none of the app's hosts, or too few hosts that would go on serving.
options:
  _input:
    description: Names of the hosts to be taken away.
    type: list
    elements: str
    required: true
  app_hosts:
    description: Names of the hosts that serve the app.
    type: list
    elements: str
    required: true
  results:
    description: What M(thecodeforge.fastapi.absence) returned on each of them; empty where one does not answer.
    type: list
    elements: dict
    required: true
  min_serving:
    description: The variable C(forge_min_serving).
    type: int
    default: 1
  server:
    description: The variable C(forge_server).
    type: str
    default: gunicorn
"""

EXAMPLES = r"""
- name: Show why not
  ansible.builtin.debug:
    msg: "{{ ['web1'] | thecodeforge.fastapi.absence_problem(app_hosts=['web1'], results=[{'drained': false, 'problem': ''}]) }}"
"""

RETURN = r"""
_value:
  description: A sentence; empty when nothing is in the way.
  type: str
"""


def absence_problem(
    hosts: Iterable[str],
    app_hosts: Iterable[str],
    results: Iterable[Mapping[str, Any]],
    min_serving: int = 1,
    server: str = "gunicorn",
) -> str:
    named, found = list(hosts), dict(zip(app_hosts, results, strict=True))
    unknown = [host for host in named if host not in found]
    if not named or unknown:
        wrong = f"has {', '.join(unknown)}, which forge_app has not" if unknown else "is empty"
        return f"forge_drain_hosts {wrong}: name hosts of the app with -e forge_drain_hosts=NAME,NAME. Nothing was changed."
    if server == "gunicorn-asgi":
        return "forge_server: gunicorn-asgi does not answer the checks of balancers, so it cannot be drained. Nothing was changed."
    left = [host for host, result in found.items() if host not in named and serves(result)]
    if len(left) < int(min_serving):
        others = {host: why(result) for host, result in found.items() if host not in named and not serves(result)}
        away = "".join(f"; {host} {reason}" for host, reason in others.items())
        return (
            f"{', '.join(left) or 'No host'} would be left to serve, and forge_min_serving is {min_serving}{away}: drain fewer hosts. "
            "Nothing was changed."
        )
    return ""


def serves(result: Mapping[str, Any]) -> bool:
    return bool(result) and "problem" in result and not result["drained"] and not result["problem"]


def why(result: Mapping[str, Any]) -> str:
    if "problem" not in result:
        return "does not answer, or is outside of --limit"
    return "is drained" if result["drained"] else f"does not serve ({result['problem']})"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"absence_problem": absence_problem}
