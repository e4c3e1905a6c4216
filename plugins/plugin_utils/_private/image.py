# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is made of: the code and the layer that hosts get, and nothing that is secret."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from ...module_utils._private.masking import secrets_of

PRIVATE = Path(__file__).parents[2] / "module_utils" / "_private"
# Modules of ours that work in an image too, by what they are called there.
IN_BUILD = ("layer", "command")
IN_SERVER = ("sizing", "limits")
# Host in the URL of a database that was not looked at: roles/environment/tasks/without_hosts.yml.
UNKNOWN_DATABASE = "not-known-here"
# A shorter value is likely to stand in code by chance.
SHORTEST_LOOKED_FOR = 8


class ImageError(Exception):
    """An image cannot be made of this. The text is a whole sentence."""


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
    for path in directory.rglob("*"):  # whatever this machine's umask is: the image's user reads them
        path.chmod(0o755 if path.is_dir() else 0o644)


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


def pointing_to_the_host(settings: Mapping[str, str]) -> list[str]:
    """Names of settings with a URL whose host is the one where it is used: in a container, that is the container itself."""
    found = []
    for name, value in settings.items():
        try:
            host = urlsplit(value).hostname if "://" in value else ""
        except ValueError:
            continue
        if host == "localhost" or host in ("::1", "0.0.0.0") or re.match(r"127\.", host or ""):  # noqa: S104
            found.append(name)
    return found


def env_file(settings: Mapping[str, str]) -> str:
    """Text of a file for ``--env-file`` of podman and docker, which take each line as it is.

    :raises ImageError: for a setting that such a file cannot hold.
    """
    lines = {name: f"{name}={value}\n" for name, value in settings.items()}
    broken = [name for name, line in lines.items() if len(line.splitlines()) > 1]
    if broken:
        raise ImageError(
            f"forge_image_env_file: {', '.join(broken)} has several lines, which a file for --env-file cannot hold: put it into "
            "forge_files, and mount that. No image was made."
        )
    unknown = [name for name, value in settings.items() if UNKNOWN_DATABASE in value]
    if unknown:
        raise ImageError(
            f"forge_image_env_file: {', '.join(unknown)} has the address of the inventory's database, which is known when its host "
            "is looked at: give the one that containers reach it by, in forge_database_url. No image was made."
        )
    return "".join(lines.values())


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, from its first byte on.

    :raises ImageError: when it cannot be written.
    """
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
            os.fchmod(handle.fileno(), 0o600)  # of one that was there
            handle.write(text)
    except OSError as error:
        raise ImageError(
            f"forge_image_env_file: {path} cannot be written ({error.strerror}). No image was made."
        ) from None


def seconds_of(time: str) -> int:
    """Seconds since 1970 of an ISO 8601 time; 0 for an empty one."""
    return int(datetime.fromisoformat(time).timestamp()) if time else 0
