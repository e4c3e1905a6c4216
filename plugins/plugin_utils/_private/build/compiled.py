# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Wheels that were built of sources: where they are kept, and which have to be compiled on a host."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from .errors import BuildError
from .fetch import address_of, fetch, listing, name_of
from .cache import keep, used
from .index import Index
from .lockfile import Pin
from .target_platform import Platform, release


@dataclass(frozen=True)
class Job:
    """A wheel that the controller cannot build."""

    requirement: str  # for people, such as psycopg2==2.9.10
    platform: Platform
    shelf: Path  # of the cache, where it belongs; one for each source, minor and machine
    source: Callable[[Path], Path]  # puts its source below a directory, and says where
    why: str = ""  # half a sentence

    def __str__(self) -> str:
        return f"There is no wheel of {self.requirement} for {self.platform}, {self.why}"


class NotHere(BuildError):
    """What has to be compiled on hosts."""

    def __init__(self, jobs: list[Job]) -> None:
        super().__init__(" ".join(map(str, jobs)))
        self.jobs = jobs


def oldest_first(jobs: list[Job]) -> list[Job]:
    """One job for each wheel, on the oldest glibc that needs it: what is made there also runs on newer ones."""
    chosen: dict[Path, Job] = {}
    for job in sorted(jobs, key=lambda job: release(job.platform.glibc)):
        chosen.setdefault(job.shelf, job)
    return list(chosen.values())


def find_wheel(shelf: Path, platform: Platform) -> Path | None:
    """A wheel of a shelf that runs on a platform. It lies below the glibc that it was made on."""
    for wheel in sorted(shelf.glob("*/*.whl"), key=lambda wheel: release(wheel.parent.name)):
        if platform.takes(wheel.name, Platform(platform.python, platform.machine, wheel.parent.name)):
            used(shelf)
            return wheel
    return None


def keep_wheel(shelf: Path, wheel: Path, made_on: Platform) -> Path:
    path = shelf / made_on.glibc / wheel.name
    keep(path, wheel.read_bytes(), [])
    return path


def accept(archive: Path, requirement: str, platform: Platform, shelf: Path) -> Path:
    """Keep what a host has made.

    :param archive: tar archive of one wheel.
    :raises BuildError: when it is something else, or does not run on the platform.
    """
    wanted = Requirement(requirement)
    try:
        with tarfile.open(archive) as opened:
            (entry,) = opened.getmembers()
            content = opened.extractfile(entry).read()  # type: ignore[union-attr]
        found = parse_wheel_filename(entry.name)
        good = zipfile.is_zipfile(io.BytesIO(content)) and found[0] == canonicalize_name(wanted.name)
    except (tarfile.TarError, ValueError, AttributeError, InvalidWheelFilename):
        raise BuildError(f"{platform}: building {requirement} there did not give one wheel.") from None
    good = good and wanted.specifier.contains(found[1], prereleases=True)
    if not good or not platform.takes(entry.name, platform):
        raise BuildError(f"{platform}: building {requirement} there gave {entry.name}, which does not fit.")
    with tempfile.TemporaryDirectory() as scratch:
        wheel = Path(scratch) / entry.name
        wheel.write_bytes(content)
        return keep_wheel(shelf, wheel, platform)


def fetch_sdist(pin: Pin, platform: Platform, index: Index, scratch: Path) -> Path:
    """The source of a release, checked by its hash. pip would build it to know its name, so it is asked of uv.

    :raises BuildError: when it cannot be had.
    """
    found, words = listing([pin], platform.minor, index)
    sdist = found.get(pin.name, {}).get("sdist", {})
    if not sdist:
        raise BuildError(f"The package index does not say where the source of {pin.requirement} is: {words[-300:]}")
    archive = scratch / name_of(sdist)
    fetch(address_of(sdist), archive, pin.hashes, index, f"The source of {pin.requirement}")
    return unpack(archive, scratch)


def unpack(archive: Path, scratch: Path) -> Path:
    """Unpack an sdist into a new directory.

    :raises BuildError: when it is none.
    """
    into = scratch / "unpacked"
    try:
        if archive.name.endswith(".zip"):
            shutil.unpack_archive(archive, into)
        else:
            with tarfile.open(archive) as opened:
                opened.extractall(into, filter="data")
        (top,) = into.iterdir()
    except (OSError, ValueError, tarfile.TarError, shutil.ReadError) as error:
        raise BuildError(f"{archive.name} cannot be unpacked: {error}.") from None
    return top
