# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What CPU and memory a host or a container has. Part of images, too: imports nothing of ours."""

from __future__ import annotations

import os
import re
from typing import TypedDict


class Limits(TypedDict):
    cpus: int  # that this process may use (affinity)
    cpu_quota: float  # CPUs that the control group allows; 0 is no limit
    memory_mb: int  # MiB, the control group's limit included


def limits() -> Limits:
    quota, limit_mb = cgroup_limits()
    total_mb = memory_total_mb()
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_quota": quota,
        "memory_mb": min(total_mb, limit_mb) if limit_mb else total_mb,
    }


def cgroup_limits(root: str = "/sys/fs/cgroup") -> tuple[float, int]:
    """Return the CPUs and MiB that the host's top control group allows; 0 where there is no limit.

    A machine has no limit there; a container has its own (cgroup v2: cpu.max, memory.max; v1:
    cpu.cfs_quota_us, memory.limit_in_bytes). Source: kernel, Documentation/admin-guide/cgroup-v2.rst.
    """
    cpus, memory_mb = 0.0, 0
    quota, _separator, period = read(os.path.join(root, "cpu.max")).partition(" ")
    if not quota:
        quota = read(os.path.join(root, "cpu", "cpu.cfs_quota_us"))
        period = read(os.path.join(root, "cpu", "cpu.cfs_period_us"))
    if quota.isdigit() and period.isdigit() and int(period):
        cpus = int(quota) / int(period)
    limit = read(os.path.join(root, "memory.max")) or read(os.path.join(root, "memory", "memory.limit_in_bytes"))
    if limit.isdigit() and int(limit) < 1 << 60:  # v1 writes "no limit" as nearly 2^63
        memory_mb = int(limit) // (1 << 20)
    return cpus, memory_mb


def memory_total_mb() -> int:
    """Return the memory of the machine in MiB."""
    found = re.search(r"^MemTotal: +(\d+) kB", read("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def read(path: str) -> str:
    """Return the text of a file without blanks at its ends; empty when there is none."""
    return read_all(path).strip()


def read_all(path: str) -> str:
    """Return the text of a file; empty when there is none."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except OSError:
        return ""
