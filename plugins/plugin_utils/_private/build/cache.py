# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""The cache on the controller: files named after what they were made of."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from .errors import BuildError


def digest(*parts: bytes) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.hexdigest()


def file_digest(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def keep(path: Path, content: bytes, made: list[str]) -> dict[str, str]:
    """Put into the cache what is not there; a killed build leaves no half of a file."""
    if not path.is_file():
        temporary = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as handle:
                temporary = handle.name
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            os.rename(temporary, path)
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise BuildError(f"Could not write {path}: {error.strerror}.") from None
        made.append(path.name)
    return {"path": str(path), "sha256": file_digest(path)}


def used(path: Path) -> Path:
    """Say that something of the cache is in use."""
    os.utime(path)
    return path


def bound(cache: Path, most: int, began: float) -> None:
    """Take out of the cache what was not used for longest, until it is small enough.

    :param most: bytes.
    :param began: what was used since then stays in any case.
    """
    # Locks are small, and without them the next build would choose other versions.
    found = (entry for entry in cache.glob("*/*") if entry.parent.name not in ("locks", "records"))
    entries = [(entry.lstat().st_mtime, entry) for entry in found]
    total = sum(size_of(entry) for _time, entry in entries)
    for time, entry in sorted(entries):
        if total <= most or time >= began:
            return
        total -= size_of(entry)
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def size_of(entry: Path) -> int:
    if entry.is_dir():
        return sum(
            os.lstat(os.path.join(parent, name)).st_size
            for parent, _directories, names in os.walk(entry)
            for name in names
        )
    return os.lstat(entry).st_size
