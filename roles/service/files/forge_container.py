# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container knows only when it starts: how many workers its limits allow. As a program, its health check."""

from __future__ import annotations

import http.client
import os
import sys

GENERATIONS = 1  # that share the memory of a container: the next one has a container of its own


def workers(count: int, policy: str, memory_mb: int) -> int:
    """How many workers to start. `WEB_CONCURRENCY`, which Gunicorn knows too, has the last word.

    :param count: a number that is given; 0 sizes from the container's limits.
    :param memory_mb: MiB of one worker.
    """
    from forge_limits import limits
    from forge_sizing import workers

    os.makedirs(os.environ["FORGE_WORKER_STATE"], exist_ok=True)
    given = int(os.environ.get("WEB_CONCURRENCY") or count)
    sized = workers(dict(limits()), count=given, policy=policy, memory_mb=memory_mb, generations=GENERATIONS)
    print(f"{sized['count']} workers ({sized['reason']})", file=sys.stderr, flush=True)
    return sized["count"]


def is_healthy(port: str, path: str, status: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=4)
    connection.request("GET", path)
    return connection.getresponse().status == int(status)


if __name__ == "__main__":
    try:
        sys.exit(0 if is_healthy(*sys.argv[1:]) else 1)
    except (OSError, http.client.HTTPException) as error:
        sys.exit(str(error))
