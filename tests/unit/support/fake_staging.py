# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A staging of which the app loads or does not, without root and without systemd."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import (
    complete,
    staging,
    systemd,
    validation,
)
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import layout as layout_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.archive import Entry, tar_bytes
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.staging import Staging

GENERATION = "0123456789ab-01234567"
RELEASE, LAYER = "0123456789ab", "aaaaaaaaaaaa-py3.11"
SECRET = "hunter22-hunter22"
SITE_PACKAGES = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


class FakeOs:
    """``os``, with owners kept in memory: without root nobody may give a file away."""

    def __init__(self) -> None:
        self.owners: dict[int, tuple[int, int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def sync(self) -> None:
        """Waits for every disk of the machine: too slow here."""

    def fchown(self, descriptor: int, uid: int, gid: int) -> None:
        self.owners[os.fstat(descriptor).st_ino] = (uid, gid)

    def fstat(self, descriptor: int) -> SimpleNamespace:
        found = os.fstat(descriptor)
        uid, gid = self.owners.get(found.st_ino, (12345, 12345))
        return SimpleNamespace(st_mode=found.st_mode, st_uid=uid, st_gid=gid)


class FakeTransient:
    """Loads the app, or does not."""

    answer = (0, '{"problems": [], "settings": false, "drains": true}\n')
    asked: list[list[str]] = []

    def __init__(self, layout: Layout, generation: str) -> None:
        assert layout.read_record(generation).state

    def run(self, argv: list[str], timeout: int, script: str = "") -> tuple[int, str, float]:
        self.asked.append(argv)
        return (*self.answer, 0.1)


def without_root(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Let a staging run here.

    :returns: what systemctl is asked to do.
    """
    calls: list[tuple[str, ...]] = []
    fake = FakeOs()
    for module in (staging, complete, layout_module):
        monkeypatch.setattr(module, "os", fake)
    monkeypatch.setattr(systemd, "systemctl", lambda *arguments, timeout=0: calls.append(arguments) or "")
    monkeypatch.setattr(systemd, "instances", lambda _app: [])
    monkeypatch.setattr(staging, "is_converged", lambda *_arguments: False)
    monkeypatch.setattr(validation, "Transient", FakeTransient)
    monkeypatch.setattr(FakeTransient, "asked", [])
    return calls


def blob(*entries: Entry) -> dict[str, Any]:
    content = tar_bytes(entries)
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "inline": base64.b64encode(content).decode(),
    }


LAYER_ENTRIES = (
    Entry("bin/tool", b"#!python\nimport sys, dependency; print(sys.prefix, dependency.WHERE)\n", 0o755),
    Entry("bin/native", b"#!python is not all of this line\n", 0o755),
    Entry(f"{SITE_PACKAGES}/dependency.py", b"WHERE = (lambda: 0).__code__.co_filename\n"),
    Entry(f"{SITE_PACKAGES}/template.py", b"{% not Python %}\n"),
    Entry("requirements.txt", b"dependency==1\n"),
)


def make_staging(tmp_path: Path, **changes: Any) -> Staging:
    """A staging below ``tmp_path``; ``changes`` are parameters of the module."""
    params = {
        "app": "forge",
        "root": str(tmp_path / "srv"),
        "group": "no-such-group",
        "python": sys.executable,
        "interpreter": {},
        "target": "shop.main:app",
        "load_seconds": 60,
        "generation": GENERATION,
        "release": RELEASE,
        "layer": LAYER,
        "project": {"origin": "git.example.org/shop"},
        "record": {"release": RELEASE, "workers": 3},
        "environment": f'FORGE_SECRET_KEY="{SECRET}"\n',
        "files": {"gunicorn.conf.py": "workers = 3\n"},
        "secret_files": {},
        "units": {"forge@.service": "[Service]\n", "forge.socket": "[Socket]\n"},
        "blobs": {"release": blob(Entry("shop/main.py", b"app = None\n")), "layer": blob(*LAYER_ENTRIES)},
        **changes,
    }
    made = Staging(params)
    directories = [str(tmp_path / name) for name in ("units", "run", "needrestart")]
    made.layout = Layout(params["root"], "forge", *directories)
    (tmp_path / "units").mkdir(exist_ok=True)
    return made
