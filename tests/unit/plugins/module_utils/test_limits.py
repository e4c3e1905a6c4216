# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What CPU and memory a host or a container has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import limits


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (0.0, 0)),  # a machine: the root group has no limits
        ({"cpu.max": "max 100000", "memory.max": "max"}, (0.0, 0)),
        ({"cpu.max": "150000 100000\n", "memory.max": "536870912\n"}, (1.5, 512)),
        ({"cpu.max": "20000 100000", "memory.max": "max"}, (0.2, 0)),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, (0.0, 0)),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, (2.0, 0)),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, (0.0, 0)),
        ({"memory/memory.limit_in_bytes": "1073741824"}, (0.0, 1024)),
        ({"cpu.max": "100000 0", "memory.max": "garbage"}, (0.0, 0)),
        # a slice above the service; of several limits the lowest holds
        ({"system.slice/cpu.max": "50000 100000", "system.slice/memory.max": "536870912"}, (0.5, 512)),
        ({"cpu.max": "50000 100000", "system.slice/cpu.max": "150000 100000"}, (0.5, 0)),
        (
            {"system.slice/cpu.max": "max 100000", "system.slice/system-my\\x2dapp.slice/cpu.max": "20000 100000"},
            (0.2, 0),
        ),
        ({"cpu/system.slice/cpu.cfs_quota_us": "50000", "cpu/system.slice/cpu.cfs_period_us": "100000"}, (0.5, 0)),
    ],
)
def test_limits_of_the_control_group(tmp_path: Path, files: dict[str, str], expected: tuple[float, int]) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert limits.cgroup_limits("my-app", str(tmp_path)) == expected


def test_memory_of_the_machine_is_read() -> None:
    assert limits.memory_total_mb() > 100


def test_what_the_control_group_allows_is_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory_total_mb", lambda: 4096)
    monkeypatch.setattr(limits, "cgroup_limits", lambda _app: (1.5, 512))
    assert limits.limits() == {"cpus": len(os.sched_getaffinity(0)), "cpu_quota": 1.5, "memory_mb": 512}
    monkeypatch.setattr(limits, "cgroup_limits", lambda _app: (0.0, 0))
    assert limits.limits()["memory_mb"] == 4096
