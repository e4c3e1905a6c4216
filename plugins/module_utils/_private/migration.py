# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that migrate a database, and what decides whether they have to run."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from .cause import explain
from .generations import Generations
from .layout import Layout
from .serving import serving_generation
from .settings import read_settings
from .transient import Transient, TransientError, argv_of


def version_in(output: str) -> str:
    """First word of the last line: alembic prints ``0001 (head)`` below its log."""
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].split()[0] if lines else "none"


def fingerprint(layout: Layout, generation: str, commands: list[str], paths: list[str]) -> str:
    """Hash of what decides the outcome of migrations: commands, their files, dependencies and settings.

    :raises TransientError: when the release has no such path.
    """
    record = layout.read_record(generation)
    release = layout.release(record.release)
    digest = hashlib.sha256(repr((commands, record.layer)).encode())
    digest.update(repr(("", read_settings(layout.generation(generation)).encode())).encode())
    for path in files_below(release, paths):
        with open(path, "rb") as handle:
            digest.update(repr((os.path.relpath(path, release), handle.read())).encode())
    return digest.hexdigest()


def files_below(release: str, paths: list[str]) -> list[str]:
    """Files of a release, in and below some of its paths, sorted; no byte code.

    :raises TransientError: when the release has no such path.
    """
    found = []
    for path in paths:
        top = os.path.normpath(os.path.join(release, path))
        if not top.startswith(release + os.sep) or not os.path.lexists(top):
            raise TransientError(f"the release has no {path}, which forge_migrations_paths names.")
        found += [top] if os.path.isfile(top) else []
        found += [os.path.join(parent, name) for parent, _directories, names in os.walk(top) for name in names]
    return sorted(path for path in found if f"{os.sep}__pycache__{os.sep}" not in path and os.path.isfile(path))


def is_migrated(layout: Layout, mark: str) -> bool:
    """Was the live generation migrated with this? Not after a rollback: the database may be ahead of what is live."""
    if not mark:
        return False
    live = layout.read_record(serving_generation(layout))
    return live.migrated_with == mark and not Generations(layout).was_rolled_back()


def run(
    transient: Transient, command: str, timeout: int, result: dict[str, Any], environment: dict[str, str] | None = None
) -> str:
    """Run one command.

    :returns: what it printed.
    :raises TransientError: naming it, when it fails.
    """
    try:
        rc, output, seconds = transient.run(argv_of(command), timeout, environment=environment)
    except TransientError as error:
        result["lines"] = [f"$ {command}", *error.lines] if error.lines else []
        raise TransientError(f"{command!r}: {error}") from None
    result["seconds"] = round(result["seconds"] + seconds, 2)
    if rc:
        sentence, shown = explain(f"{command!r} failed with exit code {rc}", output.splitlines())
        result["lines"] = [f"$ {command}", *shown]
        raise TransientError(sentence)
    result["lines"] += [f"$ {command}", *output.splitlines()]
    return output
