# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python a host gets that has none the app accepts, and that the same build of one gives the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.archive import unpack
from ansible_collections.thecodeforge.fastapi.plugins.modules import host_info
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build import interpreter as module
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.interpreter import (
    Download,
    Interpreter,
    candidates,
    choices,
    fetch,
)
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform, platforms_of
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.wheel_builder import run_build
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace
from standalone_python import standalone

PYTHON = "/usr/bin/python3"
MACHINE = os.uname().machine
KNOWN = ["3.16.0a2", "3.15.1", "3.14.10", "3.14.2", "3.13.9", "3.9.20"]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A uv that knows some Pythons, and gets them at once."""
    found = [Download(f"cpython-{each}-linux-x86_64-gnu", each, f"https://x/{each}") for each in KNOWN[1:]]
    monkeypatch.setattr(module, "downloads", lambda machine, _workspace: found if machine == "x86_64" else [])
    monkeypatch.setattr(
        module, "fetch", lambda each, machine, _workspace: Interpreter(f"{each.version}-0", each.version, machine, "", "")
    )
    monkeypatch.setattr(module, "provide_for_the_controller", lambda *_args: None)


@pytest.mark.parametrize(
    ("specifier", "versions"),
    [
        ("3.14", ["3.14.10"]),
        ("3.14.2", ["3.14.2"]),
        (">=3.14", ["3.15.1", "3.14.10"]),
        (">=3.13,<3.15", ["3.14.10", "3.13.9"]),
        (">=3.9", ["3.15.1", "3.14.10", "3.13.9", "3.9.20"]),
        ("~=3.14.0", ["3.14.10"]),
    ],
)
def test_the_newest_of_each_minor_version_is_a_choice(
    known: None, tmp_path: Path, specifier: str, versions: list[str]
) -> None:
    assert [each.version for each in candidates(specifier, "x86_64", Workspace(tmp_path))] == versions


@pytest.mark.parametrize(
    ("specifier", "machine", "sentence"),
    [
        ("3.99", "x86_64", r"uv can get no Python 3\.99 for x86_64 \(the newest is 3\.15\.1\)"),
        (">=4", "x86_64", r"no Python >=4 for x86_64"),
        ("3.14", "armv7l", r"no Python 3\.14 for armv7l \(it knows none\)"),
    ],
)
def test_what_is_not_to_be_had_is_said(known: None, tmp_path: Path, specifier: str, machine: str, sentence: str) -> None:
    with pytest.raises(BuildError, match=sentence):
        candidates(specifier, machine, Workspace(tmp_path))


def host(version: str, **python: Any) -> dict[str, Any]:
    return {"python": {"version": version, **python}, "machine": "x86_64", "glibc": "2.36"}


@pytest.mark.parametrize(
    ("python", "requires", "chosen"),
    [
        (host("3.11.2", automatic=True), "", ["3.11.2"]),
        (host("3.11.2", automatic=True), ">=3.11", ["3.11.2"]),
        (host("3.11.2", automatic=True), ">=3.14", ["3.15.1", "3.14.10"]),
        (host("3.11.2"), ">=3.14", ["3.11.2"]),  # named in forge_python: refused later
        (host("3.14", standalone="3.14"), ">=3.10", ["3.14.10"]),
        (host("3.14.2", standalone="3.14.2"), "", ["3.14.2"]),
    ],
)
def test_the_hosts_own_is_preferred_where_the_app_accepts_it(
    known: None, tmp_path: Path, python: dict[str, Any], requires: str, chosen: list[str]
) -> None:
    platforms = platforms_of({"web1": python})
    found = list(choices(requires, platforms, Workspace(tmp_path)))
    assert [platform.python for platforms, _pythons in found for platform in platforms] == chosen
    for platforms, pythons in found:
        for platform in platforms:
            assert platform.hosts == ("web1",)
            assert set(pythons) == ({platform.interpreter} if platform.interpreter else set())


def test_hosts_may_have_different_ones(known: None, tmp_path: Path) -> None:
    hosts = {"web1": host("3.11.2", automatic=True), "web2": {**host("3.14.2", automatic=True), "glibc": "2.41"}}
    [platforms, pythons], *_others = choices(">=3.14", platforms_of(hosts), Workspace(tmp_path))
    assert {platform.hosts: platform.python for platform in platforms} == {("web1",): "3.15.1", ("web2",): "3.14.2"}
    assert list(pythons) == ["3.15.1-0"]


def test_a_host_with_a_python_of_its_own_by_name_is_not_lost_beside_others(known: None, tmp_path: Path) -> None:
    hosts = {
        "web1": host("3.11.2"), "web2": host("3.11.2", automatic=True), "web3": host("3.14", standalone="3.14"),
    }  # fmt: skip
    [platforms, _pythons], *_others = choices(">=3.11", platforms_of(hosts), Workspace(tmp_path))
    assert sorted(host for platform in platforms for host in platform.hosts) == ["web1", "web2", "web3"]


def test_another_build_of_a_python_is_another_platform() -> None:
    own = Platform("3.14.2", "x86_64", "2.36")
    one, other = (Platform("3.14.2", "x86_64", "2.36", interpreter=f"3.14.2-{name}") for name in "ab")
    assert len({own.key, one.key, other.key}) == 3
    assert not own.runs(one)
    assert not one.runs(other)
    wanted = Platform("3.14", "x86_64", "2.41", standalone="3.14")
    assert wanted.runs(one)
    assert not wanted.runs(own), "an artifact's layer for the host's own Python"
    assert not Platform("3.1", "x86_64", "2.41", standalone="3.1").runs(one)


@pytest.mark.skipif(not os.path.exists(PYTHON), reason="no Python of a distribution here")
def test_the_same_build_gives_the_same_bytes_wherever_it_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = standalone(PYTHON, tmp_path / "mirror")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", listed.as_uri())
    version = next(iter(json.loads(listed.read_text()).values()))
    minor = f"{version['major']}.{version['minor']}"
    found = []
    for name in ("one", "another/place"):
        workspace = Workspace(tmp_path / name)
        workspace.cache.mkdir(parents=True)
        found.append(fetch(candidates(minor, MACHINE, workspace)[0], MACHINE, workspace))
    assert found[0].sha256 == found[1].sha256
    assert found[0].id.startswith(f"{minor}.")
    with tarfile.open(found[0].path) as archive:
        names = archive.getnames()
        assert f"bin/python{minor}" in names
        assert not [name for name in names if "__pycache__" in name or name.startswith("/")]
    unpack(found[0].path, tmp_path / "host")
    shown = subprocess.run(
        [tmp_path / "host" / "bin" / f"python{minor}", "-Ic", "import sys, json; print(sys.prefix)"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.stdout.strip() == str(tmp_path / "host")

    listed.write_text(listed.read_text().replace(version["sha256"], "0" * 64))
    workspace = Workspace(tmp_path / "third")
    workspace.cache.mkdir()
    with pytest.raises(BuildError, match=rf"Python {minor}\.\d+ for {MACHINE} could not be had: .*[Hh]ash"):
        fetch(candidates(minor, MACHINE, workspace)[0], MACHINE, workspace)


@pytest.mark.parametrize(
    ("python", "present", "packages", "expected"),
    [
        ("", {"python3": "3.11.2"}, [], ("3.11.2", True, "", True)),
        ("python3", {"python3": "3.11.2"}, [], ("3.11.2", True, "", False)),
        ("3.11", {"python3.11": "3.11.2"}, [], ("3.11.2", True, "", False)),
        ("3.11.9", {"python3.11": "3.11.2"}, [], ("3.11.9", True, "3.11.9", False)),
        ("3.14", {}, ["python3.14"], ("3.14.0", False, "", False)),
        ("3.14", {}, [], ("3.14", True, "3.14", False)),
        ("python3.14", {}, [], ("3.14.0", False, "", False)),
    ],
)
def test_a_host_says_whether_it_has_one(
    monkeypatch: pytest.MonkeyPatch, python: str, present: dict[str, str], packages: list[str], expected: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(host_info.shutil, "which", lambda name, path: f"/usr/bin/{name}" if name in present else None)
    monkeypatch.setattr(host_info, "unavailable_packages", lambda names: [name for name in names if name not in packages])

    def run(argv: list[str]) -> Any:
        version = present[os.path.basename(argv[0])]
        return type("Done", (), {"returncode": 0, "stdout": f"{version}\n{argv[0]}\n"})()

    monkeypatch.setattr(host_info, "run", run)
    found = host_info.interpreter(python)
    assert (found["version"], found["installed"], found["standalone"], found["automatic"]) == expected


def test_the_path_of_the_controller_is_no_part_of_a_python(tmp_path: Path) -> None:
    home = tmp_path / "cpython"
    (home / "lib" / "__pycache__").mkdir(parents=True)
    (home / "lib" / "__pycache__" / "x.pyc").touch()
    (home / "lib" / "_sysconfigdata.py").write_text(f"prefix = '{home}/lib'\n")
    (home / "lib" / "x.so").write_bytes(b"\0ELF " + str(home).encode())
    found = {entry.name: entry.content for entry in module.entries(home)}
    assert found == {
        "lib/_sysconfigdata.py": b"prefix = '/install/lib'\n",
        "lib/x.so": b"\0ELF " + str(home).encode(),  # as long as it was
    }


def test_a_project_for_another_python_is_packed_with_the_controllers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def uv(_self: Workspace, *arguments: str, **_options: Any) -> Any:
        asked.append(arguments)
        if "--python" not in arguments:
            return subprocess.CompletedProcess(arguments, 2, "", "error: No interpreter found for Python 3.14 in search path")
        (tmp_path / "shop-1-py3-none-any.whl").touch()
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(Workspace, "uv", uv)
    wheel, _why = run_build(tmp_path, tmp_path, Workspace(tmp_path))
    assert wheel
    assert asked[1][-4:] != asked[0][-4:]
    assert ("--python", sys.executable) in zip(asked[1], asked[1][1:], strict=False)
