# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that a fleet needs: they follow its size, and never what the server cannot hold."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.filter.fleet_connections import fleet_connections
from ansible_collections.thecodeforge.fastapi.plugins.filter.workers import workers
from hypothesis import given
from hypothesis import strategies as st

SMALL: dict[str, Any] = {"cpus": 1, "cpu_quota": 0, "memory_mb": 2048}  # 3 workers
LARGE: dict[str, Any] = {"cpus": 2, "cpu_quota": 0, "memory_mb": 8192}  # 5 workers


@pytest.mark.parametrize(
    ("facts", "options", "expected"),
    [
        ([SMALL], {"connections": 0}, 100),  # nobody has said what a worker opens
        ([SMALL], {"connections": 5}, 100),  # 40 would do
        ([LARGE, LARGE, SMALL], {"connections": 10}, 13 * 2 * 10 + 10),
        ([LARGE, SMALL], {"connections": 10, "hosts": 3}, 13 * 2 * 10 + 10),  # one is away
        ([LARGE] * 3, {"connections": 10, "sizing": {"count": 2}}, 6 * 2 * 10 + 10),
        ([LARGE] * 3, {"connections": 10, "server_memory_mb": 4096}, 204),
        ([LARGE] * 3, {"connections": 10, "server_memory_mb": 1024}, 100),
        ([], {"connections": 10, "hosts": 3}, 100),
    ],
)
def test_connections(facts: list[dict[str, Any]], options: dict[str, Any], expected: int) -> None:
    assert fleet_connections(facts, **{"hosts": len(facts), "reserve": 10, **options}) == expected


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 32))
def test_each_host_gets_what_it_is_sized_for_where_the_memory_holds_it(hosts: int, connections: int, cpus: int) -> None:
    host = {"cpus": cpus, "cpu_quota": 0, "memory_mb": 1 << 16}
    accepted = fleet_connections([host] * hosts, hosts=hosts, connections=connections, reserve=10)
    sized = workers(host, connections=connections, database_connections=accepted - 10, hosts=hosts)
    assert sized["count"] == workers(host)["count"]
