# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._private import sizing

DOCUMENTATION = r"""
name: workers
short_description: How many workers a host gets, and why
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - Gunicorn's documented rule is (2 x CPU) + 1. It holds on small hosts; on more than four CPUs it only costs
    memory and throughput for async workers, so from there the count grows by one a CPU.
  - Memory, the control group's CPU quota and database connections cap it. A swap runs two generations at
    once, so memory and connections count twice.
options:
  _input:
    description: What M(thecodeforge.fastapi.host_info) says of the host.
    type: dict
    required: true
  server:
    description: What serves; V(uvicorn) is one process.
    type: str
    default: gunicorn
  count:
    description: A number that is given; V(0) sizes from the host.
    type: int
    default: 0
  policy:
    description: V(balanced) is the rule above, V(documented) is (2 x CPU) + 1 everywhere, V(per_cpu) is one a CPU.
    type: str
    choices: [balanced, documented, per_cpu]
    default: balanced
  memory_mb:
    description: Memory of one worker in MiB.
    type: int
    default: 128
  memory_limit_mb:
    description: Memory in MiB that one generation may use; V(0) is no limit.
    type: int
    default: 0
  connections:
    description: Database connections that one worker may open; V(0) when they are no limit.
    type: int
    default: 0
  database_connections:
    description: Connections that the database gives to this app on all hosts.
    type: int
    default: 0
  hosts:
    description: Hosts that share the database.
    type: int
    default: 1
"""

EXAMPLES = r"""
- name: Size the service
  ansible.builtin.debug:
    msg: "{{ {'cpus': 2, 'cpu_quota': 0, 'memory_mb': 4096} | thecodeforge.fastapi.workers }}"
    # {"count": 5, "reason": "2 CPUs: 2 x 2 + 1"}
"""

RETURN = r"""
_value:
  description: The C(count) of workers and the C(reason).
  type: dict
"""


def workers(host: dict[str, Any], **options: Any) -> dict[str, Any]:
    try:
        return sizing.workers(host, **options)
    except sizing.SizingError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"workers": workers}
