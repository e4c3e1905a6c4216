# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Source in, artifact out, once."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.cache import new_file, put
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.layer import INTERPRETER, gzip_member, pack_layer
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.lockfile import Wanted, lock_of
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.release import check_pythons, check_source
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.source import Source, open_source
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace, find_uv
from building import build, installed, layer_file, layer_names


PLATFORMS = [
    Platform("3.11.2", "x86_64", "2.36", ("web1", "web2")),
    Platform("3.13.5", "x86_64", "2.41", ("web3", "web4")),
]


def needs_python(specifier: str) -> Source:
    return Source(Path("/app"), {"project": {"requires-python": specifier}}, "", False)


def test_hosts_whose_python_is_too_old_are_named() -> None:
    with pytest.raises(BuildError) as caught:
        check_pythons(needs_python(">=3.12"), PLATFORMS)
    assert str(caught.value).startswith(
        "The app needs Python >=3.12, but web1 has 3.11.2, web2 has 3.11.2: set forge_python"
    )
    assert "web3" not in str(caught.value)


@pytest.mark.parametrize("specifier", ["", ">=3.11", ">=3.11.2,<3.14", "==3.*"])
def test_hosts_whose_python_will_do_pass(specifier: str) -> None:
    check_pythons(needs_python(specifier), [*PLATFORMS, Platform("3.13.0rc1", "x86_64", "2.41", ("web5",))])


def test_requires_python_that_is_no_range_is_said() -> None:
    with pytest.raises(BuildError, match="/app: requires-python 'three' is not a version range"):
        check_source(needs_python("three"), True)


def test_cache_has_a_file_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "releases" / "x.tar"
    assert [put(path, b"one"), put(path, b"one"), put(path, b"two")] == [True, False, True]
    assert path.read_bytes() == b"two"

    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_room)
    with pytest.raises(BuildError, match=r"Could not write .*/y\.tar: No space left on device\."):
        put(tmp_path / "releases" / "y.tar", b"two")
    with pytest.raises(ValueError, match="the caller's own"), new_file(tmp_path / "releases" / "z.tar"):
        raise ValueError("the caller's own")
    assert [entry.name for entry in path.parent.iterdir()] == ["x.tar"]


def test_cache_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"Could not write .*/file/x\.tar: (File exists|Not a directory)\."):
        put(tmp_path / "file" / "x.tar", b"")


RECORD = """\
bin/tool,sha256=old,1
bin/raw,sha256=raw,2
share/doc.txt,sha256=doc,3
a/__init__.py,sha256=a,4
a-1.dist-info/direct_url.json,sha256=x,5
a-1.dist-info/RECORD,,
"""
INSTALLED = {
    "bin/tool": "#!/home/me/venv/bin/python3.11\nimport a\n", "bin/raw": "#!/bin/sh\n", "share/doc.txt": "doc",
    "a/__init__.py": "", "a-1.dist-info/direct_url.json": "{}", "a-1.dist-info/RECORD": RECORD, ".lock": "",
    "__pycache__/x.pyc": "",
}  # fmt: skip


def install(root: Path, names: list[str]) -> Path:
    """What uv installs with --target, written in some order."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(INSTALLED[name])
        path.chmod(0o755 if name.startswith("bin/") else 0o600)
    return root


def test_a_layer_lies_as_on_a_host_and_depends_on_its_contents_alone(tmp_path: Path) -> None:
    for number, names in enumerate((list(INSTALLED), list(INSTALLED)[::-1])):
        pack_layer(install(tmp_path / f"target{number}", names), "a==1\n", "3.13", tmp_path / f"{number}.tar.gz")
    assert (tmp_path / "0.tar.gz").read_bytes() == (tmp_path / "1.tar.gz").read_bytes()
    packages = "lib/python3.13/site-packages"
    with tarfile.open(tmp_path / "0.tar.gz") as layer:
        modes = {entry.name: entry.mode for entry in layer}
        tool = layer.extractfile("bin/tool").read()  # type: ignore[union-attr]
        record = layer.extractfile(f"{packages}/a-1.dist-info/RECORD").read().decode()  # type: ignore[union-attr]
    assert modes == {
        "bin/tool": 0o755, "bin/raw": 0o755, "share/doc.txt": 0o644, "requirements.txt": 0o644,
        f"{packages}/a/__init__.py": 0o644, f"{packages}/a-1.dist-info/RECORD": 0o644,
    }  # fmt: skip
    assert tool == b"#!python\nimport a\n"
    values = [
        base64.urlsafe_b64encode(hashlib.sha256(text).digest()).decode().rstrip("=") for text in (tool, b"#!/bin/sh\n")
    ]
    assert record.splitlines() == [
        f"../../../bin/tool,sha256={values[0]},{len(tool)}", f"../../../bin/raw,sha256={values[1]},10",
        "../../../share/doc.txt,sha256=doc,3", "a/__init__.py,sha256=a,4", "a-1.dist-info/RECORD,,",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "replaced"),
    [
        (b"#!/home/me/.venv/bin/python", True),
        (b"#!/usr/bin/python3.13", True),
        (b"#!/bin/sh\n'''exec' '/home/me and you/bin/python3' \"$0\" \"$@\"\n' '''", True),
        (b"#!/usr/bin/env python3", False),
        (b"#!/bin/sh", False),
        (b"\x7fELF", False),
    ],
)
def test_only_the_interpreter_of_an_installer_is_replaced(first: bytes, replaced: bool) -> None:
    text = first + b"\nimport a\n"
    assert INTERPRETER.sub(b"#!python", text) == (b"#!python\nimport a\n" if replaced else text)


def test_members_of_gzip_are_one_file() -> None:
    assert gzip.decompress(gzip_member(b"one") + gzip_member(b"two")) == b"onetwo"
    assert gzip_member(b"one") == gzip_member(b"one")


def write_project(root: Path, dependencies: list[str]) -> Path:
    (root / "shop").mkdir(parents=True)
    (root / "shop" / "__init__.py").write_text("")
    (root / "shop" / "main.py").write_text("app = None\n")
    (root / "pyproject.toml").write_text(
        f'[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = {dependencies!r}\n'
    )
    return root


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('tool = "x"', "tool must be a table"),
        ('[tool]\npoetry = "x"', "tool.poetry must be a table"),
        ('[tool.uv]\nindex = "x"', "tool.uv.index must be a list"),
        ('[tool.poetry]\nsource = ["x"]', "tool.poetry.source has what is not a table"),
        ('[tool.pdm]\ndev-dependencies = "x"', "tool.pdm.dev-dependencies must be a table"),
        ('dependency-groups = "x"', "dependency-groups must be a table"),
        ('[dependency-groups]\na = "x"', "dependency-groups has what is not a list"),
        ('[project]\ndependencies = "x"', "project.dependencies must be a list"),
        ("[project]\ndependencies = [1]", "project.dependencies has what is not a text"),
        ("[project.optional-dependencies]\na = [1]", "project.optional-dependencies has what is not a text"),
    ],
)
def test_a_pyproject_of_another_shape_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(BuildError, match=rf"^forge_source: \S+/pyproject\.toml cannot be read: {re.escape(said)}\.$"):
        open_source(str(tmp_path))


def test_a_directory_that_says_nothing_of_its_dependencies_is_refused(tmp_path: Path) -> None:
    source = open_source(str(tmp_path))
    with pytest.raises(BuildError, match=r"has no uv\.lock, pylock\.toml, requirements\.txt or pyproject\.toml"):
        lock_of(source, Wanted(), PLATFORMS, Workspace(tmp_path / "cache"))


class Shop:
    """A locked project and the artifact built of it."""

    def __init__(self, root: Path) -> None:
        self.cache = root / "cache"
        self.source = write_project(
            root / "shop", ["idna==3.7", "markupsafe==3.0.2", "colorama; sys_platform == 'win32'"]
        )
        command = [find_uv(), "lock", "--quiet", "--project", str(self.source)]
        subprocess.run(command, check=True, env=Workspace(root).environment())
        self.first = self.build()

    def build(self) -> dict[str, Any]:
        # Not the controller's own Python, so that nothing of the controller can slip in.
        return build(str(self.source), "shop.main:app", PLATFORMS[1:], Workspace(self.cache))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.mark.network
def test_artifact_has_the_code_and_the_platforms_wheels(shop: Shop) -> None:
    with tarfile.open(shop.first["code"]["path"]) as code:
        assert code.getnames() == ["pyproject.toml", "shop/__init__.py", "shop/main.py", "uv.lock"]
    artifact = shop.first["hosts"]["web3"]
    assert shop.first["hosts"] == {"web3": artifact, "web4": artifact}
    assert re.fullmatch(r"[0-9a-f]{12}-py3\.13", artifact["layer"])
    names = [name.lower() for name in layer_names(shop.first, "web3")]
    packages = "lib/python3.13/site-packages"
    speedups = rf"{packages}/markupsafe/_speedups\.cpython-313-x86_64-linux-gnu\.so"
    assert {f"{packages}/idna/core.py", f"{packages}/idna-3.7.dist-info/metadata", "bin/gunicorn"} <= set(names)
    assert any(re.fullmatch(speedups, name) for name in names)
    assert not [name for name in names if name.endswith((".pyc", "direct_url.json", "uv_cache.json"))]
    assert layer_file(shop.first, "bin/gunicorn", "web3").startswith("#!python\n")
    assert {"idna", "markupsafe", "gunicorn", "uvicorn", "uvicorn-worker"} <= set(installed(shop.first, "web3"))
    assert artifact["packages"] == len(installed(shop.first, "web3"))
    requirements = layer_file(shop.first, "requirements.txt", "web3")
    assert "--hash=sha256:82fee1fc78add43492d3a1898bfa6d8a904cc97d8427f683ed8e798d07761aa0" in requirements
    for blob in (artifact["blob"], shop.first["code"]):
        assert hashlib.sha256(Path(blob["path"]).read_bytes()).hexdigest() == blob["sha256"]


@pytest.mark.network
def test_same_input_makes_nothing_and_needs_no_network(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(shop.first["created"]) == 2
    monkeypatch.setenv("UV_OFFLINE", "1")
    assert shop.build() == {**shop.first, "created": []}


@pytest.mark.network
def test_other_code_is_another_release_on_the_same_layers(shop: Shop) -> None:
    main = shop.source / "shop" / "main.py"
    before = main.read_text()
    try:
        main.write_text("app = True\n")
        other = shop.build()
    finally:
        main.write_text(before)
    assert other["release"] != shop.first["release"]
    assert other["hosts"] == shop.first["hosts"]
    assert other["created"] == [Path(other["code"]["path"]).name]


@pytest.mark.network
def test_lock_that_is_out_of_date_is_one_sentence(shop: Shop) -> None:
    project = shop.source / "pyproject.toml"
    before = project.read_text()
    try:
        project.write_text(before.replace("idna==3.7", "idna==3.6"))
        with pytest.raises(BuildError) as caught:
            shop.build()
    finally:
        project.write_text(before)
    assert str(caught.value) == f"{shop.source}/uv.lock is out of date: run 'uv lock' there and commit it."


@pytest.mark.network
def test_wheel_with_another_hash_than_the_lock_is_not_used(shop: Shop) -> None:
    locked = shop.source / "uv.lock"
    before = locked.read_text()
    layers = set((shop.cache / "layers").iterdir())
    hashes = re.findall(r'idna-3\.7[^"]*", hash = "sha256:([0-9a-f]{64})"', before)
    assert len(hashes) == 2
    try:
        changed = before
        for value in hashes:
            changed = changed.replace(value, "0" * 63 + value[-1])
        locked.write_text(changed)
        with pytest.raises(BuildError) as caught:
            shop.build()
    finally:
        locked.write_text(before)
    assert re.search(r"could not be installed: .*Hash mismatch for `idna==3\.7`", str(caught.value))
    assert set((shop.cache / "layers").iterdir()) == layers
