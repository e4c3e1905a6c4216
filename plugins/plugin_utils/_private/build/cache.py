# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache on the controller: files named after what they were made of."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import BuildError


def digest(*parts: bytes) -> str:
    """SHA-256 of parts, which also tells where one part ends."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.hexdigest()


def file_digest(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write. It is at its path once the block has ended well; a killed build leaves no half of it.

    :raises BuildError: when it cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as handle:
            temporary = handle.name
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.rename(temporary, path)
    except OSError as error:
        raise BuildError(f"Could not write {path}: {error.strerror}.") from None
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def put(path: Path, content: bytes) -> bool:
    """Write a file unless it has this content already. Returns whether it was written."""
    if path.is_file() and path.read_bytes() == content:
        return False
    with new_file(path) as handle:
        handle.write(content)
    return True


def touch(path: Path) -> Path:
    """Mark an entry as used now."""
    os.utime(path)
    return path


def evict(cache: Path, limit: int, since: float) -> None:
    """Remove the entries that were not used for longest, until the cache is small enough.

    Other builds may make and remove entries meanwhile.

    :param limit: bytes.
    :param since: entries used since then stay in any case (seconds since the epoch).
    """
    # Locks are small, and without them the next build would choose other versions.
    found = (entry for entry in cache.glob("*/*") if entry.parent.name not in ("locks", "records"))
    entries = []
    for entry in found:
        with suppress(FileNotFoundError):
            entries.append((entry.lstat().st_mtime, entry))
    total = sum(size_of(entry) for _time, entry in entries)
    for time, entry in sorted(entries):
        if total <= limit or time >= since:
            return
        total -= size_of(entry)
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def size_of(entry: Path) -> int:
    """Bytes of a file, or of all files below a directory; none of what has gone meanwhile."""
    files = (Path(parent) / name for parent, _directories, names in os.walk(entry) for name in names)
    total = 0
    for file in files if entry.is_dir() else [entry]:
        with suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total
