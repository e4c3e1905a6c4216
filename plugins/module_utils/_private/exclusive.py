# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""One at a time on a host. The deploy lock stands for the fleet, but what a controller started may outlive it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

PAUSE = 0.2  # seconds


class LockHeld(Exception):
    """Raised when another process still holds the lock at the end of the wait."""


@contextmanager
def exclusive_lock(path: str, seconds: float = 0) -> Iterator[None]:
    """Hold the lock ``path`` while the block runs. The kernel releases it with the process, however that ends.

    :param seconds: how long to wait for another holder.
    :raises LockHeld: when it still holds it then.
    """
    deadline = time.monotonic() + seconds
    with open(path, "w", encoding="ascii") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    raise LockHeld(os.path.basename(path)) from None
                time.sleep(PAUSE)
        yield
