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


def limits(app: str = "") -> Limits:
    """What this machine or container has.

    :param app: that systemd runs, or will run, as a service here; empty where it does not.
    """
    quota, limit_mb = cgroup_limits(app)
    total_mb = memory_total_mb()
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_quota": quota,
        "memory_mb": min(total_mb, limit_mb) if limit_mb else total_mb,
    }


def cgroup_limits(app: str = "", root: str = "/sys/fs/cgroup") -> tuple[float, int]:
    """Return the CPUs and MiB that the control groups above a service allow; 0 where there is no limit.

    A machine has no limit at its top, a container has its own; systemd's slices may have one each, and the lowest holds (cgroup
    v2: cpu.max, memory.max; v1: cpu.cfs_quota_us, memory.limit_in_bytes). Sources: kernel, Documentation/admin-guide/cgroup-v2.rst;
    systemd.slice(5).

    :param app: whose generations are instances of one template, which have a slice of their own.
    """
    slices = ["", "system.slice"]
    if app:
        slices.append(os.path.join("system.slice", "system-{}.slice".format(app.replace("-", "\\x2d"))))
    found = [_limits_of(root, each) for each in slices]
    return min((cpus for cpus, _mb in found if cpus), default=0.0), min((mb for _cpus, mb in found if mb), default=0)


def _limits_of(root: str, group: str) -> tuple[float, int]:
    cpus, memory_mb = 0.0, 0
    quota, _separator, period = read(os.path.join(root, group, "cpu.max")).partition(" ")
    if not quota:
        quota = read(os.path.join(root, "cpu", group, "cpu.cfs_quota_us"))
        period = read(os.path.join(root, "cpu", group, "cpu.cfs_period_us"))
    if quota.isdigit() and period.isdigit() and int(period):
        cpus = int(quota) / int(period)
    limit = read(os.path.join(root, group, "memory.max")) or read(
        os.path.join(root, "memory", group, "memory.limit_in_bytes")
    )
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
