# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waves of a rollout, and which host is where when one has failed."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.filter.take_back_report import take_back_report
from ansible_collections.thecodeforge.fastapi.plugins.filter.waves import waves
from hypothesis import given
from hypothesis import strategies as st

TEN = [f"web{number}" for number in range(10)]
shares = st.one_of(st.integers(1, 60), st.integers(1, 100).map("{}%".format))


def sizes(*arguments: Any, hosts: list[str] | None = None, **options: Any) -> list[int]:
    return [len(wave) for wave in waves(TEN if hosts is None else hosts, *arguments, **options)]


@pytest.mark.parametrize(
    ("given_shares", "batch", "expected"),
    [
        (["1", "100%"], "", [1, 9]),
        ([1, "25%", "100%"], "", [1, 2, 7]),  # 25 % are 2.5
        (["100%"], "", [10]),
        ([3, 2, "100%"], "", [3, 7]),
        ([50, "100%"], "", [10]),
        (["100%"], "1", [1] * 10),
        (["100%"], 4, [4, 4, 2]),
        (["100%"], "30%", [3, 3, 3, 1]),
    ],
)
def test_hosts_of_each_wave(given_shares: list[Any], batch: Any, expected: list[int]) -> None:
    assert sizes(given_shares, batch=batch) == expected


def test_one_host_is_one_wave_and_none_is_none() -> None:
    assert sizes(["1", "100%"], hosts=["web0"]) == [1]
    assert sizes(["1", "100%"], hosts=[]) == []


@given(st.integers(0, 60), st.lists(shares, min_size=1, max_size=5), st.one_of(st.just(""), shares))
def test_every_host_is_in_one_wave_and_in_order(count: int, given_shares: list[Any], batch: Any) -> None:
    hosts = [f"web{number}" for number in range(count)]
    divided = waves(hosts, given_shares, batch)
    assert [host for wave in divided for host in wave] == hosts
    assert all(divided)


NEW, OLD = "bbbbbbbbbbbb-00000000", "aaaaaaaaaaaa-00000000"


@pytest.mark.parametrize(
    ("steps", "back", "serves", "because"),
    [
        ([{"failed": True}], {"serves": OLD}, OLD, "its release failed"),
        ([{}, {"failed": True}, {"skipped": True}], {"serves": OLD}, OLD, "its release failed"),
        ([{}], {"serves": OLD, "taken_back": True}, OLD, "it was taken back"),
        ([{"taken_back": True}], {"serves": OLD}, OLD, "it was taken back"),
        ([{"skipped": True}], {"serves": OLD}, OLD, "it was not switched"),
        ([{"withheld": True}], {"serves": ""}, "nothing", "it was not switched"),
        ([{}], {"serves": NEW}, NEW, "it keeps what it was released"),
        ([{}], {}, "unknown", "it could not be asked: look at it with status.yml"),
        ([{}], {"failed": True}, "unknown", "it could not be asked: look at it with status.yml"),
        ([{}], {"skipped": True}, "unknown", "it could not be asked: look at it with status.yml"),
    ],
)
def test_which_host_is_where_after_a_failure(
    steps: list[dict[str, Any]], back: dict[str, Any], serves: str, because: str
) -> None:
    head, row = take_back_report(["web1"], [steps], [back], [NEW])
    assert row == ["web1", serves, because]
    assert len(head) == len(row)
