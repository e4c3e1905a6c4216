# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the app is asked about its settings again, and when what it accepted stands."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build import app_settings as settings
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.cache import digest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.app_settings import Checked, check_settings, is_accepted
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace

CODE = {"main.py": "app = print\n", "settings.py": "class Settings: ...\n", "other.py": "x = 1\n"}


def code_of(directory: Path, files: dict[str, str]) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    path = directory / "code.tar.gz"
    path.write_bytes(gzip.compress(buffer.getvalue()))
    return path


@pytest.fixture
def accepted(tmp_path: Path) -> Path:
    path = tmp_path / "accepted.json"
    path.write_text(json.dumps({name: digest(CODE[name].encode()) for name in ("main.py", "settings.py")}))
    return path


def test_code_that_says_nothing_of_settings_may_change(accepted: Path, tmp_path: Path) -> None:
    assert is_accepted(accepted, code_of(tmp_path, CODE))
    assert is_accepted(accepted, code_of(tmp_path, {**CODE, "other.py": "x = 2\n", "new.py": ""}))


@pytest.mark.parametrize("name", ["main.py", "settings.py"])
def test_the_target_and_the_settings_may_not(accepted: Path, tmp_path: Path, name: str) -> None:
    assert not is_accepted(accepted, code_of(tmp_path, {**CODE, name: "changed = True\n"}))
    assert not is_accepted(accepted, code_of(tmp_path, {k: v for k, v in CODE.items() if k != name}))


def test_what_was_never_accepted_is_asked(accepted: Path, tmp_path: Path) -> None:
    assert not is_accepted(tmp_path / "nothing", code_of(tmp_path, CODE))
    accepted.write_text("{")
    assert not is_accepted(accepted, code_of(tmp_path, CODE))


def test_other_settings_dependencies_or_targets_are_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, str]]] = []
    record = SimpleNamespace(
        requires_python="", layers={"x": SimpleNamespace(layer="one")}, import_paths=["."], code=str(code_of(tmp_path, CODE))
    )

    def load(_home: Path, _directory: Path, _paths: list[str], target: str, environment: dict[str, str]) -> tuple:
        asked.append((target, environment))
        return [], ["main.py", "settings.py"]

    monkeypatch.setattr(settings, "read_record", lambda _cache, _release: record)
    monkeypatch.setattr(settings, "environment_of", lambda *_arguments: tmp_path)
    monkeypatch.setattr(settings, "load", load)

    def check(target: str = "main:app", **environment: str) -> int:
        assert check_settings(target, "r", environment, Workspace(tmp_path / "cache")) == Checked()
        return len(asked)

    assert [check(), check(), check(A="1"), check(A="1"), check(A="2"), check("main:other")] == [1, 1, 2, 2, 3, 4]
    record.layers = {"x": SimpleNamespace(layer="two")}
    assert check() == 5
