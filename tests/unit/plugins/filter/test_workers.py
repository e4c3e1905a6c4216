# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many workers a host gets, and the reason that is given."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.thecodeforge.fastapi.plugins.filter.workers import workers
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import sizing
from hypothesis import given
from hypothesis import strategies as st

PLENTY = 1 << 20


def host(cpus: int, memory_mb: int = PLENTY, cpu_quota: float = 0) -> dict[str, Any]:
    return {"cpus": cpus, "cpu_quota": cpu_quota, "memory_mb": memory_mb}


@pytest.mark.parametrize(
    ("cpus", "count", "reason"),
    [
        (1, 3, "1 CPU: 2 x 1 + 1"),
        (2, 5, "2 CPUs: 2 x 2 + 1"),
        (4, 9, "4 CPUs: 2 x 4 + 1"),
        (5, 10, "5 CPUs: 5 + 5"),
        (16, 21, "16 CPUs: 16 + 5"),
    ],
)
def test_documented_rule_on_small_hosts_bends_on_big_ones(cpus: int, count: int, reason: str) -> None:
    assert workers(host(cpus)) == {"count": count, "reason": reason}


@pytest.mark.parametrize(
    ("policy", "count", "reason"),
    [("documented", 33, "16 CPUs: 2 x 16 + 1"), ("per_cpu", 16, "16 CPUs: one a CPU")],
)
def test_policy_is_a_choice(policy: str, count: int, reason: str) -> None:
    assert workers(host(16), policy=policy) == {"count": count, "reason": reason}


def test_policy_that_does_not_exist_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match="'many' is none of balanced, documented, per_cpu"):
        workers(host(1), policy="many")


@pytest.mark.parametrize(
    ("cpus", "quota", "count", "reason"),
    [
        (8, 1.5, 5, "quota of 1.5 CPUs: 2 x 2 + 1"),
        (8, 0.2, 3, "quota of 0.2 CPUs: 2 x 1 + 1"),
        (2, 4, 5, "2 CPUs: 2 x 2 + 1"),
        (2, 1.5, 5, "2 CPUs: 2 x 2 + 1"),
    ],
)
def test_quota_of_the_control_group_caps(cpus: int, quota: float, count: int, reason: str) -> None:
    assert workers(host(cpus, cpu_quota=quota)) == {"count": count, "reason": reason}


@pytest.mark.parametrize(
    ("memory_mb", "options", "count", "reason"),
    [
        (1024, {}, 3, "768 MiB hold 2 generations of 3 x 128 MiB"),
        (8192, {"memory_mb": 1024}, 3, "6144 MiB hold 2 generations of 3 x 1024 MiB"),
        (8192, {"memory_limit_mb": 256}, 2, "limit of 256 MiB for a generation: 2 x 128 MiB"),
        (256, {}, 1, "192 MiB hold 2 generations of 1 x 128 MiB"),
        (16384, {}, 5, "2 CPUs: 2 x 2 + 1"),
    ],
)
def test_memory_caps_for_two_generations(memory_mb: int, options: dict[str, int], count: int, reason: str) -> None:
    assert workers(host(2, memory_mb), **options) == {"count": count, "reason": reason}


def test_database_connections_cap_for_two_generations_on_all_hosts() -> None:
    sized = workers(host(4), connections=5, database_connections=90, hosts=2)
    assert sized == {"count": 4, "reason": "90 database connections for 2 hosts x 2 generations x 5 a worker"}
    assert 2 * 2 * 5 * sized["count"] <= 90


@pytest.mark.parametrize("options", [{"connections": 5}, {"database_connections": 5}])
def test_unknown_half_of_the_connections_caps_nothing(options: dict[str, int]) -> None:
    assert workers(host(4), **options)["count"] == 9


def test_database_that_cannot_serve_one_worker_a_host_is_an_error() -> None:
    expected = "gives 20 connections, but one worker on each of 3 hosts needs 30 during a swap"
    with pytest.raises(AnsibleFilterError, match=expected):
        workers(host(2), connections=5, database_connections=20, hosts=3)


def test_a_given_count_wins_over_everything() -> None:
    sized = workers(host(2, 256), count=40, connections=5, database_connections=1)
    assert sized == {"count": 40, "reason": "set by hand"}


def test_numbers_of_the_command_line_are_numbers() -> None:
    """``-e forge_workers=4`` is the string '4' in Ansible."""
    assert workers(host(2), count="4")["count"] == 4  # type: ignore[arg-type]
    assert workers(
        host(2), count="0", memory_mb="128", memory_limit_mb="0", connections="5", database_connections="20"
    ) == {  # type: ignore[arg-type]
        "count": 2,
        "reason": "20 database connections for 1 host x 2 generations x 5 a worker",
    }


sizes = {
    "memory_mb": st.integers(64, PLENTY),
    "policy": st.sampled_from(["balanced", "documented", "per_cpu"]),
    "limit": st.integers(0, PLENTY),
    "worker_mb": st.integers(1, 4096),
}


@given(cpus=st.integers(1, 256), **sizes)
def test_another_cpu_never_takes_a_worker_away(
    cpus: int, memory_mb: int, policy: str, limit: int, worker_mb: int
) -> None:
    few, more = (
        workers(host(n, memory_mb), policy=policy, memory_mb=worker_mb, memory_limit_mb=limit)["count"]
        for n in (cpus, cpus + 1)
    )
    assert 1 <= few <= more


@given(cpus=st.integers(1, 256), connections=st.integers(1, 50), given=st.integers(1, 2000), hosts=st.integers(1, 50))
def test_a_swap_never_takes_more_connections_than_there_are(
    cpus: int, connections: int, given: int, hosts: int
) -> None:
    try:
        sized = workers(host(cpus), connections=connections, database_connections=given, hosts=hosts)
    except AnsibleFilterError:
        assert 2 * connections * hosts > given
    else:
        assert sized["count"] >= 1
        assert sized["count"] * 2 * connections * hosts <= given


def test_the_memory_of_a_container_is_not_shared_with_a_next_generation() -> None:
    assert sizing.workers(host(2, 512)) == {"count": 1, "reason": "384 MiB hold 2 generations of 1 x 128 MiB"}
    assert sizing.workers(host(2, 512), generations=1) == {"count": 3, "reason": "384 MiB hold 3 x 128 MiB"}
