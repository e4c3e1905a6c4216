"""Source in, artifact out, once."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build import index as tools
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.release import (
    archive_layer,
    build,
    check_python,
)
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.cache import keep
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.index import Index
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.lockfile import lock_of
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.source import Source, open_source

PLATFORMS = [
    Platform("3.11.2", "x86_64", "2.36", ("web1", "web2")),
    Platform("3.13.5", "x86_64", "2.41", ("web3", "web4")),
]


def needs_python(specifier: str) -> Source:
    return Source(Path("/app"), {"project": {"requires-python": specifier}}, "", False)


def test_hosts_whose_python_is_too_old_are_named() -> None:
    with pytest.raises(BuildError) as caught:
        check_python(needs_python(">=3.12"), PLATFORMS)
    assert str(caught.value).startswith(
        "The app needs Python >=3.12, but web1 has 3.11.2, web2 has 3.11.2: set forge_python"
    )
    assert "web3" not in str(caught.value)


@pytest.mark.parametrize("specifier", ["", ">=3.11", ">=3.11.2,<3.14", "==3.*"])
def test_hosts_whose_python_will_do_pass(specifier: str) -> None:
    check_python(needs_python(specifier), [*PLATFORMS, Platform("3.13.0rc1", "x86_64", "2.41", ("web5",))])


def test_requires_python_that_is_no_range_is_said() -> None:
    with pytest.raises(BuildError, match="/app: requires-python 'three' is not a version range"):
        check_python(needs_python("three"), PLATFORMS)


def test_cache_keeps_what_is_there_and_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    path = tmp_path / "releases" / "x.tar"
    kept = keep(path, b"one", made)
    assert kept == {"path": str(path), "sha256": hashlib.sha256(b"one").hexdigest()}
    assert keep(path, b"two", made) == kept
    assert made == ["x.tar"]

    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_room)
    with pytest.raises(BuildError, match=r"Could not write .*/y\.tar: No space left on device\."):
        keep(tmp_path / "releases" / "y.tar", b"two", made)
    assert [entry.name for entry in path.parent.iterdir()] == ["x.tar"]


def test_cache_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"Could not write .*/file/x\.tar: (File exists|Not a directory)\."):
        keep(tmp_path / "file" / "x.tar", b"", [])


def test_archive_of_a_layer_depends_on_its_contents_alone(tmp_path: Path) -> None:
    archives = []
    for number, order in enumerate((["a.whl", "b.whl"], ["b.whl", "a.whl"])):
        wheels = tmp_path / str(number)
        wheels.mkdir(mode=0o700 + number)
        for name in order:
            (wheels / name).write_text(name)
        archives.append(archive_layer("a==1\n", wheels))
    assert archives[0] == archives[1]


def write_project(root: Path, dependencies: list[str]) -> Path:
    (root / "shop").mkdir(parents=True)
    (root / "shop" / "__init__.py").write_text("")
    (root / "shop" / "main.py").write_text("app = None\n")
    (root / "pyproject.toml").write_text(
        f'[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = {dependencies!r}\n'
    )
    return root


def test_a_directory_that_says_nothing_of_its_dependencies_is_refused(tmp_path: Path) -> None:
    source = open_source(str(tmp_path))
    with pytest.raises(BuildError, match=r"has no uv\.lock, pylock\.toml, requirements\.txt or pyproject\.toml"):
        lock_of(source, [], PLATFORMS, tmp_path / "cache", Index())


class Shop:
    """A locked project and the artifact built of it."""

    def __init__(self, root: Path) -> None:
        self.cache = root / "cache"
        self.source = write_project(
            root / "shop", ["idna==3.7", "markupsafe==3.0.2", "colorama; sys_platform == 'win32'"]
        )
        command = [tools.find_uv(), "lock", "--quiet", "--project", str(self.source)]
        subprocess.run(command, check=True, env=Index().environment())
        self.first = self.build()

    def build(self) -> dict[str, Any]:
        # Not the controller's own Python, so that nothing of the controller can slip in.
        return build(str(self.source), "shop.main:app", PLATFORMS[1:], self.cache, Index(), [])


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
    with tarfile.open(artifact["blob"]["path"]) as layer:
        names = sorted(name.lower() for name in layer.getnames())
        requirements = layer.extractfile("requirements.txt").read().decode()  # type: ignore[union-attr]
    assert names[0] == "requirements.txt"
    assert re.search(r"^wheels/idna-3\.7-", "\n".join(names), re.MULTILINE)
    assert re.search(r"^wheels/markupsafe-3\.0\.2-cp313-cp313-manylinux.*x86_64\.whl", "\n".join(names), re.MULTILINE)
    locked = [each.split("==")[0] for each in re.findall(r"^\S+", requirements, re.MULTILINE)]
    assert {"idna", "markupsafe", "gunicorn", "uvicorn", "uvicorn-worker"} <= set(locked)
    assert artifact["packages"] == len(locked) == len(names) - 1
    assert "--hash=sha256:82fee1fc78add43492d3a1898bfa6d8a904cc97d8427f683ed8e798d07761aa0" in requirements
    with zipfile.ZipFile(artifact["installer"]["path"]) as installer:
        (uv,) = (name for name in installer.namelist() if name.endswith(".data/scripts/uv"))
        assert installer.read(uv)[:4] == b"\x7fELF"
    for blob in (artifact["blob"], artifact["installer"], shop.first["code"]):
        assert hashlib.sha256(Path(blob["path"]).read_bytes()).hexdigest() == blob["sha256"]


@pytest.mark.network
def test_same_input_makes_nothing_and_needs_no_network(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(shop.first["made"]) == 2
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert shop.build() == {**shop.first, "made": []}


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
    assert other["made"] == [Path(other["code"]["path"]).name]


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
    assert str(caught.value) == "The index serves idna==3.7 with another hash than the lock: not used."
    assert set((shop.cache / "layers").iterdir()) == layers
