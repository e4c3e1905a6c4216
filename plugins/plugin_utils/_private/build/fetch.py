# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Where an index has its files, and what lies at an address, checked by its hash."""

from __future__ import annotations

import shutil
import sys
import tempfile
import tomllib
from collections.abc import Collection, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .errors import BuildError
from .cache import file_digest
from .index import Index, Session, without_secrets
from .lockfile import Pin

CONNECTIONS = "8"  # of uv's 50 each asks the resolver for the same name, and some answers are lost on the way


def fetch(
    address: str, path: Path, hashes: Collection[str], index: Index | Session, what: str, said: str = "the lock says"
) -> None:
    """Fetch a file. It is whole, or it is not there.

    :param address: also that of a file here.
    :param hashes: ``sha256:…``, each of which is right.
    :param what: begins the sentence of an error.
    :raises BuildError: when it cannot be had, or is something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as scratch:
        part = Path(scratch) / path.name
        try:
            with index.open(address) if "://" in address else open(address, "rb") as opened, open(part, "wb") as handle:
                shutil.copyfileobj(opened, handle)
        except (OSError, ValueError, HTTPException) as error:
            raise BuildError(f"{what} cannot be downloaded: {without_secrets(str(error))}.") from None
        if f"sha256:{file_digest(part)}" not in hashes:
            raise BuildError(f"{what} has another hash than {said}: not used.")
        part.rename(path)


def listing(pins: Sequence[Pin], minor: str, index: Index) -> tuple[dict[str, dict[str, Any]], str]:
    """What an index has of releases, without building anything.

    :param minor: of Python.
    :returns: name to the ``sdist`` and the ``wheels`` of a release, as in a pylock.toml (PEP 751); and uv's words when
        there is nothing.
    """
    done = index.uv(
        "pip", "compile", "--quiet", "--no-deps", "--universal", "--no-header", "--no-annotate",
        "--format", "pylock.toml", "--python", sys.executable, "--python-version", minor, "--index-strategy", "unsafe-best-match", "-",
        text="".join(f"{pin.requirement.name}{pin.requirement.specifier}\n" for pin in pins),
        UV_INDEX=index.others(), UV_CONCURRENT_DOWNLOADS=CONNECTIONS,
    )  # fmt: skip
    if done.returncode != 0:
        return {}, done.stderr
    return {each["name"]: each for each in tomllib.loads(done.stdout).get("packages", [])}, ""


def address_of(entry: dict[str, Any]) -> str:
    return str(entry.get("url") or entry.get("path") or "")


def name_of(entry: dict[str, Any]) -> str:
    return str(entry.get("name") or unquote(urlsplit(address_of(entry)).path).rpartition("/")[2])
