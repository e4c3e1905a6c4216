# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""One file that holds what a deploy needs: made in one place, deployed in another, without index or source."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from ....module_utils._private.archive import ArchiveError, Entry, tar_bytes, unpack
from .cache import digest, file_digest, put, touch
from .errors import BuildError
from .lockfile import Pin, entries
from .records import BuildRecord, write_record
from .workspace import Workspace, one_line, without_secrets

FORMAT = 3
MANIFEST = "manifest.json"


def write_artifact(path: Path, record: BuildRecord, workspace: Workspace) -> None:
    """Write the artifact of a release that was built; the same release by the same builder gives the same bytes.

    Its time is therefore that of the commit.

    :raises BuildError: when it cannot be written.
    """
    lock = without_secrets("".join(Path(each).read_text(encoding="utf-8") for each in record.locks))
    layers = {key: replace(layer, path=f"layers/{layer.layer}.tar.gz") for key, layer in sorted(record.layers.items())}
    pythons = {key: replace(python, path=f"pythons/{key}.tar.gz") for key, python in sorted(record.pythons.items())}
    contents = {
        "code.tar.gz": Path(record.code).read_bytes(),
        "lock.txt": lock.encode(),
        "sbom.cdx.json": bill_of_materials(with_names(lock, record.extra_wheels), workspace),
        **{layers[key].path: Path(layer.path).read_bytes() for key, layer in record.layers.items()},
        **{pythons[key].path: Path(python.path).read_bytes() for key, python in record.pythons.items()},
    }
    manifest = replace(
        record, code="code.tar.gz", locks=["lock.txt"], base="", project="", layers=layers, pythons=pythons,
        format=FORMAT,
        files={name: file_hash(content) for name, content in contents.items()},
    )  # fmt: skip
    put(path, tar_bytes([Entry(MANIFEST, manifest.to_json()), *(Entry(*each) for each in sorted(contents.items()))]))


def file_hash(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def with_names(lock: str, extra_wheels: list[str]) -> str:
    """A lock with names and versions in place of paths, whose projects a tool does not look into."""
    found = list(entries(lock))
    named = {entry.name for entry in found if not isinstance(entry, Pin)}
    lines = [f"{each}\n" for each in extra_wheels if each.partition("==")[0] not in named]
    lines += [str(entry) for entry in found if isinstance(entry, Pin)]
    lines += [f"{entry.name} @ {entry.address}\n" for entry in found if not isinstance(entry, Pin) and entry.name]
    return "".join(lines)


def bill_of_materials(lock: str, workspace: Workspace) -> bytes:
    """A CycloneDX SBOM of a lock, by the tool of the CycloneDX project.

    :raises BuildError: when the tool cannot be had.
    """
    path = workspace.cache / "locks" / f"{digest(lock.encode())[:16]}.cdx.json"
    if not path.is_file():
        done = workspace.uv(
            "run", "--quiet", "--no-project", "--isolated", "--with", "cyclonedx-bom", "cyclonedx-py", "requirements",
            "--output-reproducible", "--output-format", "JSON", "-", text=lock,
        )  # fmt: skip
        if done.returncode != 0:
            raise BuildError(f"The bill of materials could not be made (cyclonedx-bom): {one_line(done.stderr, 600)}")
        put(path, done.stdout.encode())
    return path.read_bytes()


def open_artifact(origin: str, sha256: str, workspace: Workspace) -> tuple[BuildRecord, list[str]]:
    """The record of an artifact, unpacked into the cache; every file in it is checked against its manifest.

    :returns: the record, and what was unpacked now.
    :raises BuildError: when it is not there, not whole, not the one that was meant, or of another version.
    """
    shown = without_secrets(origin)
    path = download(origin, sha256, workspace) if re.match(r"https?://", origin) else Path(origin).expanduser()
    if not path.is_file():
        raise BuildError(f"forge_source: there is no artifact {path}.")
    found = file_digest(path)
    if sha256 and found != sha256.lower():
        raise BuildError(f"forge_source: {shown} has the sha256 {found}, not that of forge_source_sha256: not used.")
    home = workspace.cache / "artifacts" / found[:32]
    created = not (home / MANIFEST).is_file()
    if created:
        unpack_artifact(path, home, shown)
    manifest = read_manifest(touch(home), shown)
    layers = {key: replace(layer, path=str(home / layer.path)) for key, layer in manifest.layers.items()}
    pythons = {key: replace(python, path=str(home / python.path)) for key, python in manifest.pythons.items()}
    record = replace(
        manifest, code=str(home / manifest.code), locks=[str(home / lock) for lock in manifest.locks], layers=layers,
        pythons=pythons,
        from_artifact=shown,
    )  # fmt: skip
    write_record(workspace.cache, record)
    return record, [home.name] if created else []


def read_manifest(home: Path, shown: str) -> BuildRecord:
    """:raises BuildError: when there is none, or it is of another version."""
    try:
        text = (home / MANIFEST).read_text(encoding="utf-8")
        if json.loads(text).get("format") != FORMAT:
            raise BuildError(f"forge_source: {shown} was made by another version of this collection: build it again.")
        return BuildRecord.from_json(text)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"forge_source: {shown} is not an artifact of this collection: {error}.") from None


def download(origin: str, sha256: str, workspace: Workspace) -> Path:
    """An artifact at a URL; its hash must be known.

    :raises BuildError: when it is not, or the artifact cannot be had.
    """
    shown = without_secrets(origin)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise BuildError(f"forge_source is an address ({shown}): set forge_source_sha256 to the artifact's sha256.")
    path = workspace.cache / "downloads" / f"{sha256.lower()}.tar"
    if not path.is_file():
        workspace.fetch(origin, path, [f"sha256:{sha256.lower()}"], f"forge_source: {shown}", "forge_source_sha256")
    return touch(path)


def unpack_artifact(path: Path, home: Path, shown: str) -> None:
    """Unpack an artifact into the cache.

    :raises BuildError: when it is not whole.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=home.parent))
    try:
        unpack(path, staging)
        for name, expected in read_manifest(staging, shown).files.items():
            if file_digest(staging / name) != expected:
                raise BuildError(f"forge_source: {name} in {shown} is not what its manifest says: not used.")
        shutil.rmtree(home, ignore_errors=True)
        staging.rename(home)
    except (OSError, ArchiveError) as error:
        raise BuildError(f"forge_source: {shown} is not an artifact of this collection: {error}.") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
