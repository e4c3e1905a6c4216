# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Dependencies that are no release of an index: of a git commit, at an address, or in a directory beside the app."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import parse_wheel_filename

from ....module_utils._private.reproducible import EPOCH
from .compiled import Job, NotHere, find_wheel, keep_wheel, unpack
from .errors import BuildError
from .fetch import fetch
from .cache import digest, file_digest, used
from .index import Index, without_secrets
from .lockfile import Direct
from .origin import fetch_git, split_git
from .target_platform import Platform
from .source import list_files, make_archive, open_source
from .wheels import builder_for


def wheel_of(direct: Direct, base: Path, platform: Platform, cache: Path, index: Index) -> Path:
    """The wheel of such a dependency: found, or built once and kept in the cache.

    :param base: directory that a path starts from.
    :raises NotHere: when it has to be compiled on a host of the platform.
    :raises BuildError: one sentence.
    """
    address = re.sub(r"\$\{([A-Z0-9_]+)\}", lambda name: os.environ.get(name[1], name[0]), direct.address)
    address, _hash, fragment = address.partition("#")
    sub = re.search(r"(?:^|&)subdirectory=([^&]+)", fragment)
    below = sub[1] if sub else "."
    if address.startswith("git+"):
        commit = split_git(address)[1]
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise BuildError(
                f"{direct} is taken from git at {commit or 'its default branch'}, which moves: lock a commit."
            )
        return build(direct, [without_secrets(address), below], partial(check_out, direct, address, below, cache, index),
                     platform, cache, index)  # fmt: skip
    path = download(direct, address, cache, index) if re.match(r"https?://", address) else local(address, base)
    if path.is_dir():
        source = open_source(str(path))
        archive = make_archive(source, list_files(source, []))
        return build(direct, [digest(archive)], partial(extract, archive), platform, cache, index)
    if path.suffix == ".whl":
        if not platform.takes(path.name):
            raise BuildError(f"{direct}: {path.name} does not run on {platform}.")
        return path
    return build(direct, [file_digest(path), below], partial(open_archive, path, below), platform, cache, index)


def is_path_of(address: str, base: Path, directory: Path) -> bool:
    return not re.match(r"git\+|https?:", address) and path_of(address, base) == directory.resolve()


def path_of(address: str, base: Path) -> Path:
    return (base / (unquote(urlsplit(address).path) if address.startswith("file:") else address)).resolve()


def local(address: str, base: Path) -> Path:
    """:raises BuildError: when there is nothing at a path."""
    path = path_of(address, base)
    if not path.exists():
        raise BuildError(f"The lock names {address}, without a hash, and there is no {path}.")
    return path


def download(direct: Direct, address: str, cache: Path, index: Index) -> Path:
    """What lies at an address, checked by its hash.

    :raises BuildError: when it has no hash, cannot be had, or is something else.
    """
    if not direct.hashes:
        raise BuildError(f"The lock has no hash for {direct}: only what is hashed is installed.")
    name = unquote(urlsplit(address).path).rpartition("/")[2]
    path = cache / "downloads" / digest("".join(sorted(direct.hashes)).encode())[:16] / name
    if not path.is_file():
        fetch(address, path, direct.hashes, index, str(direct))
    used(path.parent)
    return path


def check_out(direct: Direct, address: str, below: str, cache: Path, index: Index, scratch: Path) -> Path:
    checkout, _commit = fetch_git(address, cache, index, f"The dependency {direct}")
    shutil.copytree(checkout, scratch / "source", symlinks=True)
    return inside(scratch / "source", below)


def extract(archive: bytes, scratch: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(scratch / "source", filter="data")
    return scratch / "source"


def open_archive(path: Path, below: str, scratch: Path) -> Path:
    return inside(unpack(path, scratch), below)


def inside(directory: Path, below: str) -> Path:
    """:raises BuildError: when a directory has no such one in it."""
    path = (directory / below).resolve()
    if not path.is_dir() or not path.is_relative_to(directory.resolve()):
        raise BuildError(f"There is no directory {below} in the source of a dependency.")
    return path


def build(
    direct: Direct, key: list[str], source: Callable[[Path], Path], platform: Platform, cache: Path, index: Index
) -> Path:
    """Build a wheel on the controller.

    :param key: what the wheel is made of.
    :param source: puts the source below a directory, and says where.
    """
    shelf = cache / "built" / digest(*map(str.encode, [*key, platform.minor, platform.machine]))[:16]
    kept = find_wheel(shelf, platform)
    if kept:
        return kept
    interpreter, builder = builder_for(platform, index)
    with tempfile.TemporaryDirectory() as scratch:
        done = index.uv(
            "build", "--quiet", "--wheel", "--no-sources", "--no-create-gitignore", "--python", interpreter,
            "--out-dir", f"{scratch}/out", str(source(Path(scratch))),
            SOURCE_DATE_EPOCH=EPOCH,
        )  # fmt: skip
        made = next(Path(scratch, "out").glob("*.whl"), None)
        if made and platform.takes(made.name, builder):
            return keep_wheel(shelf, made, builder)
        name = direct.name or (str(parse_wheel_filename(made.name)[0]) if made else "")
        why = " ".join(done.stderr.split())[-600:]
        if not name:
            raise BuildError(f"{direct} does not build: {why}")
        why = f"one built on the controller ({builder}) would not run there." if made else f"building it failed: {why}"
    raise NotHere([Job(name, platform, shelf, source, f"and {why}")])
