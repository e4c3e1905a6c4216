# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tar archives: one writer, so that the same content gives the same bytes, and one unpacker, which trusts no archive."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any


class ArchiveError(Exception):
    """An archive that is damaged, or has a member that would leave the directory it is unpacked to."""


@dataclass(frozen=True)
class Entry:
    """A file, or with ``link`` a symbolic link, of an archive."""

    name: str
    content: bytes = b""
    mode: int = 0o644
    link: str = ""


def write_tar(entries: Iterable[Entry], output: IO[bytes]) -> None:
    """Write entries in their order. Owner and times are 0, so that names, contents and modes decide the bytes."""
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            member = tarfile.TarInfo(entry.name)
            member.mode = entry.mode
            if entry.link:
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.link, 0o777
                archive.addfile(member)
                continue
            member.size = len(entry.content)
            archive.addfile(member, io.BytesIO(entry.content))


def tar_bytes(entries: Iterable[Entry]) -> bytes:
    """As :func:`write_tar`, in memory."""
    buffer = io.BytesIO()
    write_tar(entries, buffer)
    return buffer.getvalue()


def unpack(source: str | os.PathLike[str] | IO[bytes], into: str | os.PathLike[str]) -> None:
    """Unpack an archive, compressed or not, into a directory. Its owners are not taken over.

    :param source: path, or an open file.
    :raises ArchiveError: for an archive that is damaged, and for absolute names, ``..``, links that lead out, devices.
    """
    check: Any = getattr(tarfile, "data_filter", data_filter)  # Debian 12's Python 3.11.2 and Python 3.9 have none
    try:
        with open_tar(source) as archive:
            for member in archive:
                checked = check(member, os.fspath(into))
                archive.extract(checked, into, numeric_owner=True, **trusting(archive))
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # of the disk, not of the archive
        raise ArchiveError(str(error)) from None


def open_tar(source: str | os.PathLike[str] | IO[bytes]) -> tarfile.TarFile:
    if isinstance(source, (str, os.PathLike)):
        return tarfile.open(source)
    return tarfile.open(fileobj=source)


def trusting(archive: tarfile.TarFile) -> dict[str, Any]:
    """Where Python filters by itself, it need not do so again."""
    return {"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}


def data_filter(member: tarfile.TarInfo, into: str) -> tarfile.TarInfo:
    """What newer Pythons call ``tarfile.data_filter`` (PEP 706), for those that lack it.

    :raises tarfile.ExtractError: for what they refuse.
    """
    top = os.path.realpath(into)
    path = os.path.realpath(os.path.join(top, member.name))
    # The name itself may be a link that an earlier member made: where it leads to is what counts.
    if os.path.isabs(member.name) or not is_inside(path, top):
        raise tarfile.ExtractError(f"{member.name!r} would be outside of the archive's directory")
    if member.islnk() or member.issym():
        base = top if member.islnk() else os.path.dirname(os.path.join(top, member.name))
        if os.path.isabs(member.linkname) or not is_inside(os.path.realpath(os.path.join(base, member.linkname)), top):
            raise tarfile.ExtractError(f"{member.name!r} is a link that leads out of the archive")
    elif not (member.isreg() or member.isdir()):
        raise tarfile.ExtractError(f"{member.name!r} is neither a file, a directory nor a link")
    member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
    member.mode = member.mode & 0o755 if member.isreg() else 0o755
    return member


def is_inside(path: str, top: str) -> bool:
    return path == top or path.startswith(os.path.join(top, ""))
