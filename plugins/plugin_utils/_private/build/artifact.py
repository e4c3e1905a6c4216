# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""One file that holds what a deploy needs: made in one place, deployed in another, without index or source."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from .errors import BuildError
from .fetch import fetch
from .cache import digest, file_digest, keep, used
from .index import Index, without_secrets
from .lockfile import Pin, entries
from .target_platform import Platform

FORMAT = 2


def write_artifact(path: Path, release: str, cache: Path, index: Index, builder: str) -> None:
    """Write the artifact of a release that was built; the same release by the same builder gives the same bytes.

    Its time is therefore that of the commit.

    :raises BuildError: when it cannot be written.
    """
    record = read_record(cache, release)
    locks = without_secrets("".join(Path(lock).read_text(encoding="utf-8") for lock in record["locks"]))
    files: dict[str, Path | bytes] = {
        "code.tar.gz": Path(record["code"]["path"]),
        "lock.txt": locks.encode(),
        "sbom.cdx.json": bill_of_materials(with_names(locks, record["beside"]), cache, index),
    }
    layers = {}
    for key, layer in sorted(record["layers"].items()):
        blob, installer = f"layers/{layer['layer']}.tar", f"tools/{Path(layer['installer']['path']).name}"
        files[blob], files[installer] = Path(layer["blob"]["path"]), Path(layer["installer"]["path"])
        layers[key] = {**layer, "blob": blob, "installer": installer}
    contents = {name: each if isinstance(each, bytes) else each.read_bytes() for name, each in sorted(files.items())}
    manifest = {
        "format": FORMAT,
        **{
            name: record[name]
            for name in ("release", "commit", "dirty", "import_paths", "requires_python", "in_layer", "time")
        },
        "builder": builder,
        "layers": layers,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in {
            "manifest.json": (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode(),
            **contents,
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    content = buffer.getvalue()
    if path.is_file() and path.read_bytes() == content:
        return
    path.unlink(missing_ok=True)
    keep(path, content, [])


def with_names(locks: str, beside: list[str]) -> str:
    """A lock with names and versions in place of paths, whose projects a tool does not look into."""
    found = list(entries(locks))
    told = {entry.name for entry in found if not isinstance(entry, Pin)}
    known = [f"{each}\n" for each in beside if each.partition("==")[0] not in told]
    known += [str(entry) for entry in found if isinstance(entry, Pin)]
    known += [f"{entry.name} @ {entry.address}\n" for entry in found if not isinstance(entry, Pin) and entry.name]
    return "".join(known)


def bill_of_materials(locks: str, cache: Path, index: Index) -> bytes:
    """A CycloneDX SBOM of a lock, by the tool of the CycloneDX project.

    :raises BuildError: when the tool cannot be had.
    """
    path = cache / "locks" / f"{digest(locks.encode())[:16]}.cdx.json"
    if not path.is_file():
        done = index.uv(
            "run", "--quiet", "--no-project", "--isolated", "--with", "cyclonedx-bom", "cyclonedx-py", "requirements",
            "--output-reproducible", "--output-format", "JSON", "-", text=locks,
        )  # fmt: skip
        if done.returncode != 0:
            raise BuildError(f"The bill of materials could not be made (cyclonedx-bom): {done.stderr.strip()[-600:]}")
        keep(path, done.stdout.encode(), [])
    return path.read_bytes()


def write_record(cache: Path, record: dict[str, Any]) -> None:
    """What a later task of the same run needs to know of a release."""
    path = cache / "records" / f"{record['release']}.json"
    content = json.dumps(record, sort_keys=True).encode()
    if not path.is_file() or path.read_bytes() != content:
        path.unlink(missing_ok=True)
        keep(path, content, [])


def read_record(cache: Path, release: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((cache / "records" / f"{release}.json").read_text(encoding="utf-8"))
    except OSError:
        raise BuildError(f"Release {release} is not in the cache {cache}: build it again.") from None
    return record


def open_artifact(
    origin: str, sha256: str, target: str, platforms: list[Platform], cache: Path, index: Index
) -> dict[str, Any]:
    """What ``build`` returns, from an artifact; every file in it is checked against its manifest.

    :raises BuildError: one sentence.
    """
    shown = without_secrets(origin)
    path = download(origin, sha256, cache, index) if re.match(r"https?://", origin) else Path(origin).expanduser()
    if not path.is_file():
        raise BuildError(f"forge_source: there is no artifact {path}.")
    found = file_digest(path)
    if sha256 and found != sha256.lower():
        raise BuildError(f"forge_source: {shown} has the sha256 {found}, not that of forge_source_sha256: not used.")
    home = cache / "artifacts" / found[:32]
    made = [] if (home / "manifest.json").is_file() else [home.name]
    if made:
        unpack(path, home, shown)
    used(home)
    manifest = json.loads((home / "manifest.json").read_text(encoding="utf-8"))
    if manifest.get("format") != FORMAT:
        raise BuildError(f"forge_source: {shown} was made by another version of this collection: build it again.")
    layers = {
        key: {
            **layer,
            **{
                name: {"path": str(home / layer[name]), "sha256": manifest["files"][layer[name]]}
                for name in ("blob", "installer")
            },
        }
        for key, layer in manifest["layers"].items()
    }
    hosts: dict[str, Any] = {}
    for platform in platforms:
        fitting = [
            layer
            for layer in layers.values()
            if platform.runs(Platform(layer["python"], layer["machine"], layer["glibc"]))
        ]
        if not fitting:
            raise BuildError(
                f"forge_source: {shown} was not built for {platform}, but for {', '.join(sorted(layers))}: "
                "build it with those hosts in the inventory."
            )
        best = layers.get(platform.key) or max(fitting, key=lambda layer: [int(n) for n in layer["glibc"].split(".")])
        hosts |= {
            host: {name: best[name] for name in ("layer", "blob", "installer", "packages")} for host in platform.hosts
        }
    result = {name: manifest[name] for name in ("release", "commit", "dirty", "builder", "import_paths")}
    result |= {
        "code": {"path": str(home / "code.tar.gz"), "sha256": manifest["files"]["code.tar.gz"]},
        "hosts": hosts,
        "locks": [str(home / "lock.txt")],
        "made": made,
        "notes": [],
    }
    record = {name: result[name] for name in ("release", "commit", "dirty", "code", "import_paths", "locks")}
    record |= {name: manifest[name] for name in ("requires_python", "in_layer", "time")}
    write_record(cache, {**record, "layers": layers, "offline": True})
    return result


def download(origin: str, sha256: str, cache: Path, index: Index) -> Path:
    """An artifact at an address; its hash must be known.

    :raises BuildError: when it is not, or the artifact cannot be had.
    """
    shown = without_secrets(origin)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise BuildError(f"forge_source is an address ({shown}): set forge_source_sha256 to the artifact's sha256.")
    path = cache / "downloads" / f"{sha256.lower()}.tar"
    if path.is_file():
        return used(path)
    fetch(origin, path, [f"sha256:{sha256.lower()}"], index, f"forge_source: {shown}", "forge_source_sha256")
    return path


def unpack(path: Path, home: Path, shown: str) -> None:
    """Unpack an artifact into the cache.

    :raises BuildError: when it is not whole.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=home.parent))
    try:
        with tarfile.open(path) as archive:
            archive.extractall(staging, filter="data")
        manifest = json.loads((staging / "manifest.json").read_text(encoding="utf-8"))
        for name, wanted in manifest["files"].items():
            if file_digest(staging / name) != wanted:
                raise BuildError(f"forge_source: {name} in {shown} is not what its manifest says: not used.")
        shutil.rmtree(home, ignore_errors=True)
        staging.rename(home)
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"forge_source: {shown} is not an artifact of this collection: {error}.") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
