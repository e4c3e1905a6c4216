# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Source in, artifact out: once, on the controller, cached by content."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from .errors import BuildError
from .lock import Index, Platform, export_lock, fetch_installer, fetch_wheels, requirements_for
from .source import Source, check_target, digest, list_files, make_archive, open_source

ID_LENGTH = 12


def build(
    source_directory: str, target: str, platforms: list[Platform], cache: Path, index: Index, exclude: list[str]
) -> dict[str, Any]:
    """Make, or find in the cache, the artifact of a source for each platform.

    :param platforms: what the hosts are; one layer is made for each.
    :param cache: directory that keeps what was made.
    :returns: ``release`` (id), ``commit``, ``dirty``, ``code`` (path, sha256), ``import_paths``,
        ``hosts`` (host to the artifact of its platform: layer id, layer and installer), ``made`` (what was not cached).
    :raises BuildError: one sentence.
    """
    source = open_source(source_directory)
    check_python(source, platforms)
    names = list_files(source, exclude)
    check_target(source, names, target)
    exported = export_lock(source, index)
    archive = make_archive(source, names)
    release = digest(archive, exported.encode())[:ID_LENGTH]
    made: list[str] = []
    code = keep(cache / "releases" / f"{release}.tar.gz", gzip.compress(archive, mtime=0), made)
    hosts = {}
    for platform in platforms:
        artifact = build_layer(exported, platform, cache, index, made)
        hosts.update(dict.fromkeys(platform.hosts, artifact))
    return {
        "release": release,
        "commit": source.commit,
        "dirty": source.dirty,
        "code": code,
        "import_paths": source.import_paths,
        "hosts": hosts,
        "made": made,
    }


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


def build_layer(exported: str, platform: Platform, cache: Path, index: Index, made: list[str]) -> dict[str, Any]:
    """The wheels of a lock for a platform, in one archive."""
    requirements = requirements_for(exported, platform)
    layer = f"{digest(requirements.encode(), platform.key.encode())[:ID_LENGTH]}-py{platform.minor}"
    path = cache / "layers" / f"{layer}.tar"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            listed = Path(scratch) / "requirements.txt"
            listed.write_text(requirements, encoding="utf-8")
            chosen = Path(scratch) / "wheels"
            chosen.mkdir()
            if requirements:
                fetch_wheels(listed, chosen, platform, index)
            keep(path, archive_layer(requirements, chosen), made)
    installer = fetch_installer(cache / "tools", platform, index)
    return {
        "layer": layer,
        "blob": {"path": str(path), "sha256": file_digest(path)},
        "installer": {"path": str(installer), "sha256": file_digest(installer)},
        "packages": sum(not line.startswith(" ") for line in requirements.splitlines()),
    }


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


def file_digest(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
