# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ..module_utils._private.sizing import GENERATIONS_IN_A_SWAP
from .workers import workers

DOCUMENTATION = r"""
name: fleet_connections
short_description: How many connections a fleet needs its database server to accept
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - Workers of all hosts, each with two generations in a swap and the connections that a worker may open, and those that are
    kept free. At least what PostgreSQL has by itself, and at most what the memory of the server holds.
options:
  _input:
    description: What M(thecodeforge.fastapi.host_info) says of the hosts of the app that were seen, C(host) of each.
    type: list
    elements: dict
    required: true
  hosts:
    description: How many hosts there are; one that was not seen counts as the largest.
    type: int
    required: true
  connections:
    description: Connections that one worker may open; V(0) when nobody has said.
    type: int
    required: true
  reserve:
    description: Connections that are kept free.
    type: int
    required: true
  server_memory_mb:
    description: Memory of the server in MiB; V(0) when it was not seen.
    type: int
    default: 0
  sizing:
    description: Options of P(thecodeforge.fastapi.workers#filter), those of the database left out.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show what the fleet needs
  ansible.builtin.debug:
    msg: >-
      {{ [{'cpus': 2, 'cpu_quota': 0, 'memory_mb': 4096}]
         | thecodeforge.fastapi.fleet_connections(hosts=3, connections=10, reserve=10, server_memory_mb=8192) }}
    # 3 hosts x 5 workers x 2 generations x 10 connections + 10: 310
"""

RETURN = r"""
_value:
  description: The number of connections.
  type: int
"""

BY_ITSELF = 100  # max_connections of PostgreSQL
# A connection that works takes 5 to 10 MiB. Half of the memory is left to the server's buffers and to the system.
# Source: PostgreSQL wiki, "Tuning Your PostgreSQL Server": max_connections, work_mem, shared_buffers.
CONNECTION_MB = 10
MEMORY_SHARE = 0.5


def fleet_connections(
    facts: list[dict[str, Any]],
    hosts: int,
    connections: int,
    reserve: int,
    server_memory_mb: int = 0,
    sizing: dict[str, Any] | None = None,
) -> int:
    counts = [workers(host, **(sizing or {}))["count"] for host in facts]
    unseen = max(counts, default=0) * max(0, hosts - len(counts))
    needed = (sum(counts) + unseen) * GENERATIONS_IN_A_SWAP * connections + reserve
    held = int(server_memory_mb * MEMORY_SHARE / CONNECTION_MB) if server_memory_mb else needed
    return max(BY_ITSELF, min(needed, held))


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"fleet_connections": fleet_connections}
