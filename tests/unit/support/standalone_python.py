# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Python of this machine in the form of python-build-standalone, and a list of it as uv has one: what stands in for a download."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

LAYOUT = "import sys, sysconfig, platform; print(platform.python_version(), sysconfig.get_path('stdlib'), platform.machine())"


def standalone(python: str, directory: Path, build: str = "20261101") -> Path:
    """Pack the Python of this machine, and list it.

    :param python: path of its interpreter, such as /usr/bin/python3.11.
    :returns: path of the list, for UV_PYTHON_DOWNLOADS_JSON_URL.
    """
    shown = subprocess.run([python, "-Ic", LAYOUT], check=True, capture_output=True, text=True).stdout.split()
    return pack(shown[0], Path(python).resolve(), Path(shown[1]), shown[2], directory, build)


def pack(version: str, python: Path, stdlib: Path, machine: str, directory: Path, build: str = "20261101") -> Path:
    """Pack a Python that was found somewhere, and list it.

    :param stdlib: its standard library.
    :param build: names another build of the same version.
    :returns: path of the list.
    """
    major, minor, patch = (int(part) for part in version.split("."))
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / f"cpython-{version}-{build}.tar.gz"

    def packed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        left_out = ("__pycache__", "/test", "/dist-packages", "/site-packages")
        return None if any(each in member.name for each in left_out) else member

    with tarfile.open(archive, "w:gz", dereference=True, compresslevel=1) as output:
        output.add(python, f"python/bin/python3.{minor}")
        for name in ("python", "python3"):
            link = tarfile.TarInfo(f"python/bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, f"python3.{minor}"
            output.addfile(link)
        output.add(stdlib, f"python/lib/python3.{minor}", filter=packed)
        note = tarfile.TarInfo("python/share-of-build")
        note.size = len(build)
        output.addfile(note, io.BytesIO(build.encode()))
    listed = directory / "downloads.json"
    known = json.loads(listed.read_text()) if listed.exists() else {}
    known[f"cpython-{version}-linux-{machine}-gnu"] = {
        "name": "cpython", "arch": {"family": machine, "variant": None}, "os": "linux", "libc": "gnu",
        "major": major, "minor": minor, "patch": patch, "prerelease": "", "url": archive.as_uri(),
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(), "variant": None, "build": build,
    }  # fmt: skip
    listed.write_text(json.dumps(known))
    return listed
