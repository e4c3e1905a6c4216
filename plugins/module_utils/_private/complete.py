# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a layer or a release on a host is complete: it was finished, and nobody has changed it since."""

from __future__ import annotations

import hashlib
import os

from .layout import write_atomically

COMPLETE = ".complete"


def fingerprint(directory: str) -> str:
    """Hash of names, sizes, times, modes and owners below a directory: cheap, and sees any edit by hand.

    Byte code is left out, as Python may rewrite it.
    """
    digest = hashlib.sha256()
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        for name in sorted(names):
            if parent == directory and name == COMPLETE:
                continue
            found = os.lstat(os.path.join(parent, name))
            seen = (os.path.join(parent, name), found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid)
            digest.update(repr(seen).encode())
    return digest.hexdigest()


def is_complete(directory: str) -> bool:
    """Is a layer or a release complete and as it was left?"""
    try:
        with open(os.path.join(directory, COMPLETE), encoding="ascii") as handle:
            return handle.read() == fingerprint(directory)
    except (OSError, UnicodeDecodeError):
        return False


def mark_complete(directory: str) -> None:
    """Let a layer or a release count. Comes last, after all that it vouches for is on the disk."""
    os.sync()
    write_atomically(os.path.join(directory, COMPLETE), fingerprint(directory).encode(), 0o644)
