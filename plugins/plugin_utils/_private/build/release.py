# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Source in, artifact out: once, on the controller, cached by content."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import parse_wheel_filename

from .artifact import open_artifact, write_artifact, write_record
from .compiled import Job, NotHere, oldest_first
from .direct import is_path_of, wheel_of
from .errors import BuildError
from .cache import bound, digest, file_digest, keep, used
from .index import Index
from .lockfile import Lock, Pin, add_server, directs_for, lock_of, pins_for
from .origin import kind_of, open_origin
from .project_wheel import INSTALLED, complete
from .target_platform import Platform
from .source import Source, check_target, git, list_files, make_archive
from .wheels import fetch_installer, gather_wheels

ID_LENGTH = 12


def build(
    origin: str, target: str, platforms: list[Platform], cache: Path, index: Index, exclude: list[str], *,
    directory: str = "", sha256: str = "", extras: Sequence[str] = (), dirty: bool = True, server: str = "gunicorn",
    server_requirements: Sequence[str] = (), cache_mb: int = 0, builder: str = "",
    artifact_path: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Make, or find in the cache, the artifact of a source for each platform.

    :param origin: what ``forge_source`` names.
    :param platforms: what the hosts are; one layer is made for each.
    :param cache: directory that keeps what was made.
    :param dirty: may the source have changes that are not committed?
    :returns: ``release`` (id), ``commit``, ``dirty``, ``builder``, ``code`` (path, sha256), ``import_paths``,
        ``hosts`` (host to the artifact of its platform: layer id, layer and installer), ``made`` (what was not cached),
        ``locks`` (paths), ``notes`` (for the user).
    :raises NotHere: for what has to be compiled on hosts first.
    :raises BuildError: one sentence.
    """
    began = time.time()
    if kind_of(origin) == "artifact":
        if artifact_path:
            raise BuildError("forge_artifact: forge_source is an artifact already.")
        return open_artifact(origin, sha256, target, platforms, cache, index)
    source = open_origin(origin, directory, cache, index)
    if source.dirty and not dirty:
        raise BuildError(
            f"forge_source: {source.directory} has changes that are not committed: commit them, or set "
            "forge_source_dirty to true."
        )
    requirements = source.find("requirements.txt")
    index = index.with_project(source.project, requirements.read_text(encoding="utf-8") if requirements else "")
    check_python(source, platforms)
    names = [] if source.requirement else list_files(source, exclude)
    lock = lock_of(source, extras, platforms, cache, index)
    added, server_path = add_server(lock.text, server, server_requirements, platforms, cache, index)
    archive, import_paths = pack(source, names, exclude, target, cache, index)
    release = digest(archive, lock.text.encode())[:ID_LENGTH]
    made: list[str] = []
    code = keep(cache / "releases" / f"{release}.tar.gz", gzip.compress(archive, mtime=0), made)
    used(Path(code["path"]))
    hosts = {}
    layers = {}
    jobs: list[Job] = []
    beside: list[Path] = []
    with ThreadPoolExecutor() as pool:  # the installers come while the wheels do
        one_each = {platform.machine: platform for platform in platforms}
        installers = {name: pool.submit(fetch_installer, cache, one, index) for name, one in one_each.items()}
        for platform in platforms:
            chosen = pins_for(lock.text, platform)
            have = {pin.name for pin in chosen}
            chosen += [pin for pin in pins_for(added, platform) if pin.name not in have]
            try:
                own = own_wheels(source, lock, platform, cache, index)
                beside += own
                artifact = build_layer(chosen, platform, cache, index, made, own)
            except NotHere as wanted:
                jobs += wanted.jobs
                continue
            installer = installers[platform.machine].result()
            artifact["installer"] = {"path": str(installer), "sha256": file_digest(installer)}
            hosts.update(dict.fromkeys(platform.hosts, artifact))
            layers[platform.key] = {
                **artifact,
                "python": platform.python,
                "machine": platform.machine,
                "glibc": platform.glibc,
            }
    if jobs:
        raise NotHere(oldest_first(jobs))
    result = {
        "release": release,
        "commit": source.commit,
        "dirty": source.dirty,
        "builder": builder,
        "code": code,
        "import_paths": import_paths,
        "hosts": hosts,
        "locks": [str(lock.path), *([server_path] if server_path else [])],
        "made": made,
        "notes": [lock.note] if lock.note else [],
    }
    record = {
        **{name: result[name] for name in ("release", "commit", "dirty", "code", "import_paths", "locks")},
        "requires_python": source.requires_python,
        "in_layer": bool(source.requirement),
        "beside": sorted({named(wheel) for wheel in beside}),
        "layers": layers,
        "time": git(source.directory, "show", "--no-patch", "--format=%cI", source.commit).strip()
        if source.commit
        else "",
    }
    write_record(cache, record)
    if artifact_path:
        write_artifact(artifact_path, release, cache, index, builder)
    if made and cache_mb:
        bound(cache, cache_mb << 20, began)
    return result


def pack(
    source: Source, names: list[str], exclude: list[str], target: str, cache: Path, index: Index
) -> tuple[bytes, list[str]]:
    """The code of a release, uncompressed, and the directories of it that belong on ``sys.path``."""
    if source.requirement:
        check_target(source, [], ["."], target)
        note = f"{source.requirement}\n".encode()
        return make_archive(source, [], {"requirement.txt": (note, 0o644)}), ["."]
    archive = make_archive(source, names)
    added = complete(source, names, exclude, archive, cache, index)
    beside = any(name.startswith(f"{INSTALLED}/") for name in added)
    import_paths = [*source.import_paths, *([INSTALLED] if beside else [])]
    check_target(source, [*names, *added], import_paths, target)
    return (make_archive(source, names, added) if added else archive), import_paths


def check_python(source: Source, platforms: list[Platform]) -> None:
    """Does every host's Python meet the project's ``requires-python``?"""
    if not source.requires_python:
        return
    try:
        accepted = SpecifierSet(source.requires_python)
    except InvalidSpecifier:
        raise BuildError(
            f"{source.directory}: requires-python {source.requires_python!r} is not a version range."
        ) from None
    short = [
        f"{host} has {platform.python}"
        for platform in platforms
        if not accepted.contains(platform.python, prereleases=True)
        for host in platform.hosts or (platform.key,)
    ]
    if short:
        raise BuildError(
            f"The app needs Python {source.requires_python}, but {', '.join(short)}: "
            "set forge_python to an interpreter those hosts have, or use a newer release of the operating system."
        )


def own_wheels(source: Source, lock: Lock, platform: Platform, cache: Path, index: Index) -> list[Path]:
    """Wheels that no index has: the app itself, when that is the source, and what the lock takes from elsewhere.

    :raises NotHere: for those that have to be compiled on a host of the platform, all of them.
    :raises BuildError: one sentence.
    """
    found, jobs = [], list[Job]()
    if source.wheel:
        if not platform.takes(source.wheel.name):
            raise BuildError(f"forge_source: {source.wheel.name} does not run on {platform}.")
        found.append(source.wheel)
    for direct in directs_for(lock.text, platform):
        if is_path_of(direct.address, lock.base, source.directory):
            continue  # the app itself: its code is the release
        try:
            found.append(wheel_of(direct, lock.base, platform, cache, index))
        except NotHere as wanted:
            jobs += wanted.jobs
    if jobs:
        raise NotHere(jobs)
    return found


def named(wheel: Path) -> str:
    """Its name and version as a requirement."""
    name, version = parse_wheel_filename(wheel.name)[:2]
    return f"{name}=={version}"


def build_layer(
    chosen: list[Pin], platform: Platform, cache: Path, index: Index, made: list[str], own: Sequence[Path] = ()
) -> dict[str, Any]:
    """The wheels of a lock for a platform, in one archive.

    :param own: wheels that no index has.
    """
    beside = [Pin(Requirement(named(wheel)), (f"sha256:{file_digest(wheel)}",)) for wheel in own]
    requirements = lines_of([*chosen, *beside])
    layer = f"{digest(requirements.encode(), platform.key.encode())[:ID_LENGTH]}-py{platform.minor}"
    path = cache / "layers" / f"{layer}.tar"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            wheels = Path(scratch) / "wheels"
            wheels.mkdir()
            for wheel in own:
                shutil.copy(wheel, wheels)
            gathered = gather_wheels(chosen, wheels, platform, cache, index)
            keep(path, archive_layer(lines_of([*gathered, *beside]), wheels), made)
    return {
        "layer": layer,
        "blob": {"path": str(used(path)), "sha256": file_digest(path)},
        "packages": len(chosen) + len(beside),
    }


def lines_of(pins: list[Pin]) -> str:
    return "".join(sorted(map(str, pins), key=str.lower))


def archive_layer(requirements: str, wheels: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entries = [("requirements.txt", requirements.encode())]
        entries += [(f"wheels/{wheel.name}", wheel.read_bytes()) for wheel in sorted(wheels.iterdir())]
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
