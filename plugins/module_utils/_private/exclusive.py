# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""One at a time on a host. The deploy lock stands for the fleet, but what a controller started may outlive it."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PAUSE = 0.2  # seconds


class LockHeld(Exception):
    """Raised when another process still holds the lock at the end of the wait."""


@contextmanager
def exclusive_lock(path: str, seconds: float | None = 0) -> Iterator[None]:
    """Hold the lock ``path`` while the block runs. The kernel releases it with the process, however that ends.

    Who can open the file, if only to read, can hold it: its directory is made for locks, and entered by its owner alone.

    :param seconds: how long to wait for another holder; None for as long as it takes.
    :raises LockHeld: when it still holds it then.
    """
    make_private(os.path.dirname(path))
    remove_foreign(path)
    deadline = time.monotonic() + (seconds or 0)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii"):
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if seconds is None else fcntl.LOCK_NB))
                break
            except OSError:
                if time.monotonic() >= deadline:
                    raise LockHeld(os.path.basename(path)) from None
                time.sleep(PAUSE)
        yield


def make_private(directory: str) -> None:
    """Make a directory that only its owner enters; its parents are there. One that others could enter is closed to them."""
    if os.path.lexists(directory) and (os.path.islink(directory) or not os.path.isdir(directory)):
        os.unlink(directory)
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o700)
    if os.stat(directory).st_uid != os.geteuid():
        os.chown(directory, os.geteuid(), os.getegid())
    os.chmod(directory, 0o700)


def remove_foreign(path: str) -> None:
    """Remove what is in a lock's place and is no file, or another user's, who may hold it."""
    with suppress(FileNotFoundError):
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(path)
        elif not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            os.unlink(path)
