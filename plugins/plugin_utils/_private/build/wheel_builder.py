# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wheels that are built of sources: on the controller where what comes out runs on the platform, else on a host of it."""

from __future__ import annotations

import io
import re
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .packaging_library import InvalidWheelFilename, Requirement, canonicalize_name, parse_wheel_filename
from ....module_utils._private.archive import ArchiveError, unpack
from ....module_utils._private.reproducible import EPOCH
from ....module_utils._private.cause import tool_cause
from .cache import put, touch
from .errors import BuildError
from .target_platform import Platform, version_tuple
from .workspace import Workspace, one_line

ELF = b"\x7fELF"
First = TypeVar("First")
Second = TypeVar("Second")


@dataclass(frozen=True)
class CompileJob:
    """A wheel that the controller cannot build."""

    requirement: str  # for people, such as psycopg2==2.9.10
    platform: Platform
    wheel_dir: Path  # of the cache, where it belongs; one for each source, Python and machine
    source: Callable[[Path], Path]  # puts its source below a directory, and returns where
    reason: str = ""  # ends the sentence
    advice: str = ""  # what to do instead, a sentence
    failure: str = ""  # why its backend failed on the controller, if it did

    def __str__(self) -> str:
        return f"There is no wheel of {self.requirement} for {self.platform}, {self.reason} {self.advice}".rstrip()


class NeedsCompiling(BuildError):
    """Dependencies have neither a wheel nor can the controller build one: they are compiled on hosts first."""

    def __init__(self, jobs: list[CompileJob]) -> None:
        super().__init__(" ".join(map(str, jobs)))
        self.jobs = jobs


def oldest_first(jobs: list[CompileJob]) -> list[CompileJob]:
    """One job for each wheel, on the oldest glibc that needs it: what is made there also runs on newer ones."""
    chosen: dict[Path, CompileJob] = {}
    for job in sorted(jobs, key=lambda job: version_tuple(job.platform.glibc)):
        chosen.setdefault(job.wheel_dir, job)
    return list(chosen.values())


def together(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """What two steps of a build return. What hosts have to compile for either of them is said at once.

    :raises NeedsCompiling: for what has to be compiled on hosts first.
    """
    jobs: list[CompileJob] = []
    try:
        one = first()
    except NeedsCompiling as needed:
        jobs = needed.jobs
    try:
        other = second()
    except NeedsCompiling as needed:
        jobs = [*jobs, *needed.jobs]
    if jobs:
        raise NeedsCompiling(oldest_first(jobs))
    return one, other


def find_wheel(wheel_dir: Path, platform: Platform) -> Path | None:
    """A cached wheel that runs on a platform. It lies below the glibc that it was built on."""
    for wheel in sorted(wheel_dir.glob("*/*.whl"), key=lambda wheel: version_tuple(wheel.parent.name)):
        if platform.takes(wheel.name, Platform(platform.python, platform.machine, wheel.parent.name)):
            touch(wheel_dir)
            return wheel
    return None


def store_wheel(wheel_dir: Path, wheel: Path, built_on: Platform) -> Path:
    path = wheel_dir / built_on.glibc / wheel.name
    put(path, wheel.read_bytes())
    return path


def run_build(
    project: Path, output: Path, workspace: Workspace, *options: str, kind: str = "wheel"
) -> tuple[Path | None, str]:
    """Build a project with its own backend.

    :param kind: ``wheel`` or ``sdist``.
    :returns: its file, or why there is none.
    """
    done = workspace.uv(
        "build", f"--{kind}", *options, "--out-dir", str(output), str(project),
        extra={"UV_INDEX": workspace.extra_indexes(), "SOURCE_DATE_EPOCH": EPOCH},
    )  # fmt: skip
    if done.returncode != 0 and "No interpreter found" in done.stderr and "--python" not in options:
        # The project is for another Python than the controller's: what its backend packs does not depend on that, or is compiled on a host.
        return run_build(project, output, workspace, *options, "--python", sys.executable, kind=kind)
    built = next(output.glob("*.whl" if kind == "wheel" else "*.tar.gz"), None) if done.returncode == 0 else None
    # What the backend printed says more than what uv makes of it, which comes last. Without a backend uv says why.
    backend, _error, why = done.stderr.rpartition("\nerror: ")
    if why and "backend returned an error" not in why:
        return built, one_line(re.sub(r"^Failed to build .*\n", "", why), 600)
    return built, tool_cause(backend or done.stderr).replace(str(project), "the source")


@contextmanager
def build_directory(key: str) -> Iterator[Path]:
    """A scratch directory at the same path for the same build, as compilers note it in what they make; where it is in use, another."""
    path = Path(tempfile.gettempdir()) / f"forge-build-{key}"
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        with tempfile.TemporaryDirectory() as other:
            yield Path(other)
        return
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def build_wheel(
    name: str, source: Callable[[Path], Path], wheel_dir: Path, platform: Platform, workspace: Workspace,
    options: Sequence[str] = ("--no-sources",), given: Collection[bytes] = (),
) -> Path:  # fmt: skip
    """The wheel of a source for a platform: from the cache, or built on the controller.

    :param name: of the requirement, for people; when empty, that of the wheel.
    :param options: of ``uv build``.
    :param given: machine code that the source itself has.
    :raises NeedsCompiling: when the controller cannot build it, or what it builds would not run there.
    :raises BuildError: when it does not build and nothing says its name.
    """
    cached = find_wheel(wheel_dir, platform)
    if cached:
        return cached
    python, builder = builder_for(platform, workspace)
    with build_directory(wheel_dir.name) as scratch:
        wheel, error = run_build(source(scratch), scratch / "out", workspace, *options, *python)
        fits = wheel and platform.takes(wheel.name, builder)
        if wheel and fits and (platform.runs(builder) or not has_compiled_part(wheel, given)):
            return store_wheel(wheel_dir, wheel, builder)
        name = name or (str(parse_wheel_filename(wheel.name)[0]) if wheel else "")
        if not name:
            raise BuildError(f"A dependency does not build: {error}")
    failed = f"building it on the controller failed: {error.rstrip('.… ')}."
    reason = f"one built on the controller ({builder}) would not run there." if wheel else failed
    job = CompileJob(name, platform, wheel_dir, source, f"and {reason}", failure="" if wheel else error)
    raise NeedsCompiling([job])


def builder_for(platform: Platform, workspace: Workspace) -> tuple[list[str], Platform]:
    """What makes uv build with the Python of a platform where the controller has it, and what the controller is with it."""
    controller = Platform.of_controller()
    found = workspace.uv("python", "find", "--no-project", platform.python_version)
    if found.returncode == 0:
        return ["--python", found.stdout.strip()], Platform(platform.python, controller.machine, controller.glibc)
    # uv does not look where Ansible runs; for another Python it knows best which one the source accepts.
    own = platform.python_version == controller.python_version
    return ["--python", sys.executable] if own else [], controller


def has_compiled_part(wheel: Path, given: Collection[bytes] = ()) -> bool:
    """Whether a wheel holds machine code, whatever its tag says.

    :param given: machine code that its source has, so that building has not made it.
    """
    with zipfile.ZipFile(wheel) as opened:
        members = (member for member in opened.infolist() if not member.is_dir())
        found = (member for member in members if opened.open(member).read(len(ELF)) == ELF)
        return any(opened.read(member) not in given for member in found)


def accept_wheel(archive: Path, requirement: str, platform: Platform, wheel_dir: Path) -> Path:
    """Keep what a host has compiled.

    :param archive: tar archive of one wheel.
    :raises BuildError: when it is something else, or does not run on the platform.
    """
    wanted = Requirement(requirement)
    try:
        with tarfile.open(archive) as opened:
            (member,) = opened.getmembers()
            content = opened.extractfile(member).read()  # type: ignore[union-attr]
        name, version = parse_wheel_filename(member.name)[:2]
        good = zipfile.is_zipfile(io.BytesIO(content)) and name == canonicalize_name(wanted.name)
    except (tarfile.TarError, ValueError, AttributeError, InvalidWheelFilename):
        raise BuildError(f"{platform}: building {requirement} there did not give one wheel.") from None
    good = good and wanted.specifier.contains(version, prereleases=True)
    if not good or not platform.takes(member.name, platform):
        raise BuildError(f"{platform}: building {requirement} there gave {member.name}, which does not fit.")
    path = wheel_dir / platform.glibc / member.name
    put(path, content)
    return path


def unpack_sdist(archive: Path, scratch: Path) -> Path:
    """Unpack an sdist into a new directory, and return the one that it holds.

    :raises BuildError: when it is none.
    """
    into = scratch / "unpacked"
    try:
        if archive.name.endswith(".zip"):
            shutil.unpack_archive(archive, into)
        else:
            unpack(archive, into)
        (top,) = into.iterdir()
    except (OSError, ValueError, ArchiveError, shutil.ReadError) as error:
        raise BuildError(f"{archive.name} cannot be unpacked: {error}.") from None
    return top
