# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many workers a host or a container gets, and why. Part of images, too: imports nothing of ours."""

from __future__ import annotations

import math
from typing import Any

# Up to here the documented rule is honoured. Measured on 2 CPUs (docs/measured.md, serving): 5 workers serve 0.99 of
# what 2 serve, 9 serve 0.89.
SMALL_HOST_CPUS = 4
# A quarter of the memory is left to the system and to what grows.
MEMORY_SHARE = 0.75
GENERATIONS_IN_A_SWAP = 2


class SizingError(ValueError):
    """No worker can be had, or the policy does not exist. The text is a whole sentence."""


def workers(
    host: dict[str, Any],
    server: str = "gunicorn",
    count: int = 0,
    policy: str = "balanced",
    memory_mb: int = 128,
    memory_limit_mb: int = 0,
    connections: int = 0,
    database_connections: int = 0,
    hosts: int = 1,
    generations: int = GENERATIONS_IN_A_SWAP,
) -> dict[str, Any]:
    """Number of workers and the reason for it.

    :param host: ``cpus``, ``cpu_quota`` (CPUs, 0 without limit) and ``memory_mb`` (MiB).
    :param generations: that share the memory; a container has one.
    :raises SizingError: when the database cannot serve one worker a host, or the policy does not exist.
    """
    # A variable that was given on the command line is a string.
    count, memory_mb, memory_limit_mb, connections, database_connections = map(
        int, (count, memory_mb, memory_limit_mb, connections, database_connections)
    )
    if server == "uvicorn":
        return {"count": 1, "reason": "Uvicorn is one process"}
    if count:
        return {"count": count, "reason": "set by hand"}
    cpus, what = available_cpus(host)
    rules = {
        "documented": (2 * cpus + 1, f"{what}: 2 x {cpus} + 1"),
        "per_cpu": (cpus, f"{what}: one a CPU"),
        "balanced": (2 * cpus + 1, f"{what}: 2 x {cpus} + 1")
        if cpus <= SMALL_HOST_CPUS
        else (cpus + SMALL_HOST_CPUS + 1, f"{what}: {cpus} + {SMALL_HOST_CPUS + 1}"),
    }
    if policy not in rules:
        raise SizingError(f"forge_workers_policy: {policy!r} is none of {', '.join(sorted(rules))}.")
    count, reason = rules[policy]

    usable = int(host["memory_mb"] * MEMORY_SHARE)
    fit = max(1, usable // (memory_mb * generations))
    if fit < count:
        shared = f"{generations} generations of " if generations > 1 else ""
        count, reason = fit, f"{usable} MiB hold {shared}{fit} x {memory_mb} MiB"
    if memory_limit_mb and max(1, memory_limit_mb // memory_mb) < count:
        count = max(1, memory_limit_mb // memory_mb)
        reason = f"limit of {memory_limit_mb} MiB for a generation: {count} x {memory_mb} MiB"

    if connections and database_connections:
        fit = database_connections // (connections * GENERATIONS_IN_A_SWAP * max(1, hosts))
        if fit < 1:
            raise SizingError(
                f"The database gives {database_connections} connections, but one worker on each of {hosts} hosts "
                f"needs {connections * GENERATIONS_IN_A_SWAP * hosts} during a swap: allow more connections, "
                "or make the app's pool smaller."
            )
        if fit < count:
            count = fit
            reason = (
                f"{database_connections} database connections for {hosts} host{'s' if hosts != 1 else ''} x "
                f"{GENERATIONS_IN_A_SWAP} generations x {connections} a worker"
            )
    return {"count": count, "reason": reason}


def available_cpus(host: dict[str, Any]) -> tuple[int, str]:
    """Whole CPUs, and how to say it."""
    cpus, quota = int(host["cpus"]), float(host.get("cpu_quota") or 0)
    if quota and math.ceil(quota) < cpus:
        cpus = max(1, math.ceil(quota))
        return cpus, f"quota of {quota:g} CPUs"
    return cpus, f"{cpus} CPU{'s' if cpus != 1 else ''}"
