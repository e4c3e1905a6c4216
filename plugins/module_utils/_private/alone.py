# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""One at a time on a host. The lock of the fleet is the controller's; what it started may outlive a controller that died."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

PAUSE = 0.2


class Busy(Exception):
    """Another one is still at it."""


@contextmanager
def alone(path: str, seconds: float) -> Iterator[None]:
    """Hold ``path`` while the block runs; the kernel lets go of it with the process, however that ends.

    :param seconds: how long to wait for another holder.
    :raises Busy: when it still holds it then.
    """
    deadline = time.monotonic() + seconds
    with open(path, "w", encoding="ascii") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    raise Busy(os.path.basename(path)) from None
                time.sleep(PAUSE)
        yield
