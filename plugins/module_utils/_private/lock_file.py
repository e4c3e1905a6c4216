# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds the deploy lock, and for how long yet: ``lock.json`` of a host."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress

from .layout import read_file
from .records import LockHolder

OLDER_SECONDS = 120  # that earlier versions of the collection took a lock for


def since_boot() -> float:
    """Seconds since the host was booted, sleep included. Nobody sets this clock, unlike that of :func:`time.time`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Names this boot of the host."""
    with suppress(OSError):
        return read_file("/proc/sys/kernel/random/boot_id").decode().strip()
    return ""


def seconds_left(holder: LockHolder) -> float:
    """How long a lock holds yet, as the host itself has counted it; 0 or less when it has expired.

    One of an earlier boot holds as long as it could from this boot on: its holder may still refresh it.
    """
    if not holder.boot:  # of an earlier version, by the wall clock
        left = holder.expires - time.time()
        return left if left <= OLDER_SECONDS else 0.0
    return holder.seconds - since_boot() + (holder.refreshed if holder.boot == boot_id() else 0.0)


def read_lock(path: str) -> tuple[LockHolder | None, str]:
    """Return who holds the lock, None when nobody does or it has expired; and what is wrong with its file."""
    try:
        holder = LockHolder.from_dict(json.loads(read_file(path)))
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, RecursionError):
        return None, f"{path} cannot be read as a lock: it holds nobody up."
    until = holder.seconds if holder.boot else holder.expires
    if not holder.token or not until or not math.isfinite(holder.seconds + holder.expires + holder.refreshed):
        return None, f"{path} does not say who holds the lock and until when: it holds nobody up."
    if holder.refreshed > since_boot() and holder.boot == boot_id():
        return None, f"{path} says that it was taken later than now: it holds nobody up."
    return (holder if seconds_left(holder) > 0 else None), ""
