# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A layer: the installed dependencies of one lock for one platform, in one archive that a host only has to unpack.

uv installs them on the controller, also for another platform. What depends on the host is left to it: the interpreter in
the first line of scripts (``#!python`` stands for it, as in a wheel), pyvenv.cfg, and bytecode.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import IO, Any

from .packaging_library import Requirement, canonicalize_name, parse_wheel_filename
from ....module_utils._private.archive import Entry, write_tar
from .cache import digest, file_digest, new_file, touch
from .errors import BuildError
from .lockfile import Pin
from .source import in_words
from .target_platform import Platform
from .wheel_builder import CompileJob, NeedsCompiling
from .wheels import source_only, wheel_of_release
from .workspace import Workspace, one_line

ID_LENGTH = 12
# Where a wheel's scripts and data go in an environment, next to lib. uv puts them among the packages: --target has no other place.
DATA_DIRECTORIES = ("bin", "etc", "include", "share")
# What uv notes of itself and of paths on the controller.
LEFT_OUT = ("direct_url.json", "uv_build.json", "uv_cache.json")
# The interpreter of the controller in a script that an installer has written (also as sh, where its path is long).
INTERPRETER = re.compile(rb"\A#!(?:/\S*/python[0-9.]*|/bin/sh\n'''exec' .*python.*\n' ''')(?=\n)")
NEVER_LOCKED = {"setuptools", "pip", "wheel"}  # pip-compile leaves them out
CHUNK = 4 << 20


@dataclass(frozen=True)
class Layer:
    """The archive of a layer, and what it is for."""

    layer: str  # id
    path: str
    sha256: str
    packages: int
    python: str
    machine: str
    glibc: str
    interpreter: str = ""  # id of a standalone Python

    @property
    def platform(self) -> Platform:
        return Platform(self.python, self.machine, self.glibc, interpreter=self.interpreter)

    def for_host(self) -> dict[str, Any]:
        """As the role release takes it."""
        return {
            "layer": self.layer,
            "blob": {"path": self.path, "sha256": self.sha256},
            "packages": self.packages,
        }


def build_layer(
    pins: Sequence[Pin], extra_wheels: Sequence[Path], platform: Platform, workspace: Workspace, written: Path | None = None
) -> tuple[Layer, bool]:
    """The layer of a lock for a platform: from the cache, or installed and packed now.

    :param pins: releases of an index.
    :param extra_wheels: wheels that no index has.
    :param written: file with the lock, when that was not resolved by anyone and so may lack something.
    :returns: the layer, and whether it was made now.
    :raises NeedsCompiling: for releases that have to be compiled on a host first, all of them.
    :raises BuildError: when a wheel cannot be had, or has another hash than the lock says.
    """
    built = [(wheel, requirement_of(wheel)) for wheel in extra_wheels]
    listed = requirements_text([*pins, *(pin for _wheel, pin in built)])
    layer = f"{digest(listed.encode(), platform.key.encode())[:ID_LENGTH]}-py{platform.python_version}"
    path = workspace.cache / "layers" / f"{layer}.tar.gz"
    created = not path.is_file()
    if created:
        workspace.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=workspace.cache) as scratch:
            target = Path(scratch) / "target"
            installed = install(list(pins), built, target, platform, workspace)
            if written:
                check_whole(target, platform, written)
            pack_layer(target, requirements_text(installed), platform.python_version, path)
    sha256 = file_digest(touch(path))
    count = len(pins) + len(built)
    return Layer(
        layer, str(path), sha256, count, platform.python, platform.machine, platform.glibc, platform.interpreter
    ), created


def check_whole(target: Path, platform: Platform, written: Path) -> None:
    """:raises BuildError: when what was installed needs something that a lock lacks: the app would not load on a host."""
    metadata = [HeaderParser().parsestr(path.read_text("utf-8", "replace")) for path in target.glob("*.dist-info/METADATA")]
    names = {canonicalize_name(each["Name"]) for each in metadata} | NEVER_LOCKED
    absent = [
        f"{needed.name}, which {each['Name']} needs"
        for each in metadata
        for needed in map(Requirement, each.get_all("Requires-Dist", []))
        if canonicalize_name(needed.name) not in names
        and (needed.marker is None or needed.marker.evaluate(platform.markers()))
    ]
    if absent:
        raise BuildError(
            f"forge_source: each line of {written} has a hash, so it is the whole lock, and it lacks {in_words(sorted(absent))}: "
            "lock them too (uv pip compile --generate-hashes), or leave out the hashes."
        )


def requirement_of(wheel: Path) -> Pin:
    """A wheel as a line of a lock."""
    name, version = parse_wheel_filename(wheel.name)[:2]
    return Pin(Requirement(f"{name}=={version}"), (f"sha256:{file_digest(wheel)}",))


def requirements_text(pins: Sequence[Pin]) -> str:
    return "".join(sorted(map(str, pins), key=str.lower))


def install(
    pins: list[Pin], built: Sequence[tuple[Path, Pin]], target: Path, platform: Platform, workspace: Workspace
) -> list[Pin]:
    """Install wheels into a directory; a release that has only its source is built once.

    :param built: wheels on the controller, each with its line of the lock.
    :returns: what was installed, with the hash of each wheel that was built.
    :raises NeedsCompiling: for what has to be compiled on a host first.
    :raises BuildError: with uv's own reason.
    """
    error = run_install(pins, built, target, platform, workspace)
    if not error:
        return [*pins, *(pin for _wheel, pin in built)]
    jobs, wheels = list[CompileJob](), list[tuple[Path, Pin]]()
    sources = source_only(pins, platform, workspace)
    for pin, sdist in sources:
        try:
            wheel = wheel_of_release(pin, sdist, platform, workspace)
            wheels.append((wheel, requirement_of(wheel)))
        except NeedsCompiling as needed:
            jobs += needed.jobs
    if jobs:
        raise NeedsCompiling(jobs)
    if not sources:
        raise BuildError(f"The dependencies for {platform} could not be installed: {error} {workspace.index_hint()}")
    from_sources = [pin for pin, _sdist in sources]
    return install([pin for pin in pins if pin not in from_sources], [*built, *wheels], target, platform, workspace)


def run_install(
    pins: Sequence[Pin], built: Sequence[tuple[Path, Pin]], target: Path, platform: Platform, workspace: Workspace
) -> str:
    """Let uv install. Returns its reason when it could not."""
    lines = [*map(str, pins), *(f"{pin.name} @ {wheel.as_uri()} --hash={pin.hashes[0]}\n" for wheel, pin in built)]
    target.mkdir(exist_ok=True)
    if not lines:
        return ""
    requirements = target.parent / "requirements.txt"
    requirements.write_text("".join(lines), encoding="utf-8")
    done = workspace.uv(
        "pip", "install", "--quiet", "--target", str(target), "--python", sys.executable, *platform.uv_options(),
        "--no-deps", "--require-hashes", "--only-binary", ":all:", "--index-strategy", "unsafe-best-match",
        "--requirements", str(requirements),
        cwd=target.parent, extra={"UV_INDEX": workspace.extra_indexes(), "UV_COMPILE_BYTECODE": "false"},
    )  # fmt: skip
    return "" if done.returncode == 0 else one_line(done.stderr) or "uv failed."


def pack_layer(target: Path, requirements: str, python_version: str, path: Path) -> None:
    """Write what was installed to an archive, as it lies on a host. The same files give the same bytes."""
    packages = f"lib/python{python_version}/site-packages"
    entries = sorted([*layer_entries(target, packages), Entry("requirements.txt", requirements.encode())], key=lambda entry: entry.name)
    with tempfile.TemporaryFile(dir=target.parent) as archive, new_file(path) as output:
        write_tar(entries, archive)
        archive.seek(0)
        compress(archive, output)


def layer_entries(target: Path, packages: str) -> Iterator[Entry]:
    """Installed files as entries of an archive.

    :param packages: where packages lie in the archive.
    """
    data = [name for name in DATA_DIRECTORIES if (target / name).is_dir() and not (target / name / "__init__.py").exists()]
    for parent, directories, names in os.walk(target):
        directory = Path(parent).relative_to(target)
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        top = directory.parts[0] if directory.parts else ""
        for name in sorted(names):
            file = Path(parent) / name
            if name in LEFT_OUT and top.endswith(".dist-info") or (not top and name == ".lock"):
                continue
            content = file.read_bytes()
            if top == "bin" and top in data:
                content = INTERPRETER.sub(b"#!python", content, count=1)
            elif name == "RECORD" and top.endswith(".dist-info"):
                content = record_of(content.decode(), target, data).encode()
            place = str(directory / name)
            mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
            yield Entry(place if top in data else f"{packages}/{place}", content, mode)


def record_of(text: str, target: Path, data: Sequence[str]) -> str:
    """A RECORD (PEP 376) with what lies next to lib at its place, and without what is left out."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    for path, checksum, size in csv.reader(io.StringIO(text)):
        top, _slash, _rest = path.partition("/")
        if path.rpartition("/")[2] in LEFT_OUT and top.endswith(".dist-info"):
            continue
        if top == "bin" and top in data:
            content = INTERPRETER.sub(b"#!python", (target / path).read_bytes(), count=1)
            encoded = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            checksum, size = f"sha256={encoded}", str(len(content))
        writer.writerow([f"../../../{path}" if top in data else path, checksum, size])
    return output.getvalue()


def compress(source: IO[bytes], output: IO[bytes]) -> None:
    """Compress with gzip on all cores: a file of several members is one (RFC 1952, 2.2). The fastest level: sending 22 MB
    instead of 20 costs less than compressing harder."""
    with ThreadPoolExecutor() as pool:
        workers = os.cpu_count() or 1
        while chunks := [chunk for chunk in (source.read(CHUNK) for _worker in range(workers)) if chunk]:
            output.writelines(pool.map(gzip_member, chunks))


def gzip_member(chunk: bytes) -> bytes:
    """A gzip member without a time, so that the same content gives the same bytes."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return compressor.compress(chunk) + compressor.flush()
