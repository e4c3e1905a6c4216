# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is made of: the code and the layer that hosts get, and nothing that is secret."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from ...module_utils._private.masking import secrets_of

PRIVATE = Path(__file__).parents[2] / "module_utils" / "_private"
# Modules of ours that work in an image too, by what they are called there.
IN_BUILD = ("layer", "command")
IN_SERVER = ("sizing", "limits")
# A shorter value is likely to stand in code by chance.
SHORTEST_LOOKED_FOR = 8


def write_context(directory: Path, code: Path, layer: Path, bill_of_materials: bytes, files: Mapping[str, str]) -> None:
    """Write what a build needs.

    :param directory: an empty one.
    :param files: others, name to text: the Containerfile, and what runs the server.
    """
    shutil.copy(code, directory / "release.tar.gz")
    shutil.copy(layer, directory / "layer.tar.gz")
    (directory / "sbom.cdx.json").write_bytes(bill_of_materials)
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for package, names in (("build/forge_layer", IN_BUILD), ("server", IN_SERVER)):
        (directory / package).mkdir(parents=True, exist_ok=True)
        for name in names:
            prefix = "forge_" if package == "server" else ""
            shutil.copy(PRIVATE / f"{name}.py", directory / package / f"{prefix}{name}.py")
    (directory / "build" / "forge_layer" / "__init__.py").touch()


def leaks(
    code: Path, files: Mapping[str, str], settings: Mapping[str, str], secret_files: Iterable[str]
) -> Iterator[str]:
    """Yield, for each secret that an image would hold, where it is and which setting's it is; never its value.

    :param code: archive of the release.
    :param settings: of the app, name to value.
    :param secret_files: texts of settings files.
    """
    looked_for = {
        secret.encode(): name
        for name, value in settings.items()
        for secret in secrets_of({name: value})
        if len(secret) >= SHORTEST_LOOKED_FOR
    }
    looked_for.update(
        {
            secret.encode(): "a settings file"
            for secret in secrets_of({}, secret_files)
            if len(secret) >= SHORTEST_LOOKED_FOR
        }
    )
    for place, content in contents(code, files):
        for name in sorted({name for secret, name in looked_for.items() if secret in content}):
            yield f"{place} has the value of {name}"


def contents(code: Path, files: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file that comes from the project or is written for the image."""
    with tarfile.open(code) as archive:
        for member in archive:
            handle = archive.extractfile(member) if member.isfile() else None
            if handle:
                yield member.name, handle.read()
    for name, text in files.items():
        yield name, text.encode()


def seconds_of(time: str) -> int:
    """Seconds since 1970 of an ISO 8601 time; 0 for an empty one."""
    return int(datetime.fromisoformat(time).timestamp()) if time else 0
