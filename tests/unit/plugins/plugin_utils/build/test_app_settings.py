# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the app is asked about its settings again, and when what it accepted stands."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.archive import Entry, tar_bytes
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
        requires_python="", layers={"x": SimpleNamespace(layer="one")}, import_paths=["."], code=str(code_of(tmp_path, CODE)),
        project="",
    )  # fmt: skip

    def load(_home: Path, _code: Path, _paths: list[str], target: str, environment: dict[str, str], *_more: object) -> tuple:
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


LOADS = "main:app does not load: "


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        ("RuntimeError: Directory 'web/dist' does not exist (x.py:1).", "web/dist"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '{release}/web/dist/index.html' (x.py:1).", "web/dist/index.html"),
        ('OSError: "./web/dist/index.html" not found.', "web/dist/index.html"),
        ("ModuleNotFoundError: No module named 'tests' (x.py:1).", "tests"),
        ("ModuleNotFoundError: No module named 'tests.fakes' (x.py:1).", "tests/fakes.py"),
        ("ModuleNotFoundError: No module named 'local' (x.py:1).", "src/local.py"),
        ("ModuleNotFoundError: No module named 'redis' (x.py:1).", ""),
        ("KeyError: 'tests' (x.py:1).", ""),  # only happens to be a name
        ("FileNotFoundError: [Errno 2] No such file or directory: '/etc/passwd' (x.py:1).", ""),
        ("FileNotFoundError: [Errno 2] No such file or directory: '../secret' (x.py:1).", ""),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'gone.txt' (x.py:1).", ""),
        ("ValueError: 'main.py' not found (x.py:1).", ""),  # it is in the release
    ],
)
def test_what_the_source_has_and_the_release_has_not_is_found_in_an_error(tmp_path: Path, problem: str, name: str) -> None:
    source, release = tmp_path / "source", tmp_path / "release"
    for path in ("main.py", "web/dist/index.html", "tests/fakes.py", "src/local.py"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text("")
    (tmp_path / "secret").write_text("")
    release.mkdir()
    (release / "main.py").write_text("")
    told = LOADS + problem.format(release=release)
    assert settings.left_out_path(told, release, ["src", "."], source) == name
    assert settings.left_out_path(told, release, ["src", "."], Path("")) == "", "an artifact has no source"


def test_what_a_host_makes_is_not_missed(tmp_path: Path) -> None:
    """Though the developer's own directory has it."""
    source, release = tmp_path / "source", tmp_path / "release"
    (source / "static").mkdir(parents=True)
    (source / "static" / "a.css").touch()
    release.mkdir()
    told = LOADS + "FileNotFoundError: [Errno 2] No such file or directory: 'static/a.css'"
    assert settings.left_out_path(told, release, ["."], source) == "static/a.css"
    assert settings.left_out_path(told, release, ["."], source, ["static"]) == ""
    assert settings.left_out_path(told, release, ["."], source, ["sta"]) == "static/a.css"


def test_builds_at_the_same_time_make_one_environment(tmp_path: Path) -> None:
    """Two deploys of one controller, whose cache is empty: none meets what the other has half made."""
    archive = tmp_path / "layer.tar.gz"
    archive.write_bytes(gzip.compress(tar_bytes([Entry("bin/tool", b"#!python\n", 0o755)])))
    layer = SimpleNamespace(layer="l", path=str(archive), platform=None)
    record = SimpleNamespace(layers={"one": layer})
    controller = SimpleNamespace(runs=lambda _platform: True)
    workspace = Workspace(tmp_path / "cache")
    with ThreadPoolExecutor(8) as pool:
        homes = set(pool.map(lambda _number: settings.environment_of(record, controller, sys.executable, workspace), range(8)))  # type: ignore[arg-type]
    (home,) = homes
    assert (home / "bin" / "tool").read_text() == f"#!{home}/bin/python\n"
    assert (home / "bin" / "python").exists()
    assert [entry.name for entry in home.parent.iterdir()] == [home.name]


def test_an_app_for_another_python_is_asked_with_the_one_that_its_hosts_get(tmp_path: Path) -> None:
    script = f"#!/bin/sh\nexec {sys.executable} \"$@\"\n".encode()
    archive = tmp_path / "python.tar.gz"
    archive.write_bytes(gzip.compress(tar_bytes([Entry("bin/python3.99", script, 0o755)])))
    own = settings.Platform.of_controller()
    brought = SimpleNamespace(id="3.99.1-0", version="3.99.1", minor="3.99", machine=own.machine, path=str(archive))
    workspace = Workspace(tmp_path / "cache")

    def chosen(requires: str, **pythons: SimpleNamespace) -> tuple[str, str]:
        record = SimpleNamespace(requires_python=requires, pythons=pythons)
        platform, python = settings.python_of_controller(record, workspace)  # type: ignore[arg-type]
        return platform.python, python

    assert chosen("") == chosen(">=3.9") == (own.python, sys.executable)
    assert chosen(">=3.99") == (own.python, "")
    version, python = chosen(">=3.99", one=brought)
    assert (version, Path(python).name) == ("3.99.1", "python3.99")
    archive.write_bytes(gzip.compress(tar_bytes([Entry("bin/python3.99", b"#!/bin/sh\nexit 1\n", 0o755)])))
    brought.id = "3.99.1-1"
    assert chosen(">=3.99", one=brought) == (own.python, ""), "it does not run here"
