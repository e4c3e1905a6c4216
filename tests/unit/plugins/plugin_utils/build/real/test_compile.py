# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller cannot build is compiled once, on one host of its platform."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.modules import compile as module
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.compile_bundle import write_bundle
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.wheel_builder import (
    CompileJob,
    NeedsCompiling,
    accept_wheel,
    build_directory,
    find_wheel,
    has_compiled_part,
    oldest_first,
    unpack_sdist,
)
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace
from building import build, layer_file, layer_names
from package_index import PackageIndex, served, wheel_files

HERE = Platform.of_controller()
OTHER = "3.13" if HERE.python_version != "3.13" else "3.12"
NEWER = Platform(f"{OTHER}.5", HERE.machine, "2.41", ("new1", "new2"))
OLDER = Platform(f"{OTHER}.2", HERE.machine, "2.36", ("old1",))
TAG = f"cp{OTHER.replace('.', '')}-cp{OTHER.replace('.', '')}-linux_{HERE.machine}"
WHEEL = f"native-1.0-{TAG}.whl"


class World:
    def __init__(self, root: Path, packages: PackageIndex, url: str) -> None:
        self.root, self.packages = root, packages
        self.index_url = f"{url}/simple"

    def source(self, *requirements: str) -> str:
        directory = self.root / "-".join(requirements)
        directory.mkdir(exist_ok=True)
        (directory / "main.py").write_text("async def app(scope, receive, send): ...\n")
        (directory / "requirements.txt").write_text("\n".join(requirements))
        return str(directory)

    def build(self, *requirements: str, platforms: list[Platform], cache: Path) -> dict[str, Any]:
        return build(self.source(*requirements), "main:app", platforms, Workspace(cache, self.index_url))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    packages = PackageIndex(root / "index")
    packages.wheel("gunicorn", "23.0")
    for name in ("uvicorn", "uvicorn-worker", "helper", "asked-for"):
        packages.wheel(name, "1.0")
    packages.sdist(
        "native", "1.0", TAG.replace(OTHER.replace(".", ""), HERE.python_version.replace(".", "")), asks=["asked-for"]
    )
    packages.sdist("broken", "1.0", builds=False)
    packages.sdist("pure", "1.0")
    packages.sdist("needy", "1.0", TAG, requires=["pure"])
    with served(root / "index") as url:
        yield World(root, packages, url)


def made(path: Path, name: str = WHEEL, wheel: bytes | None = None) -> Path:
    """What a host sends back."""
    if wheel is None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as opened:
            for inside, text in wheel_files("native", "1.0", [], TAG, {}).items():
                opened.writestr(inside, text)
        wheel = buffer.getvalue()
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(wheel)
        archive.addfile(entry, io.BytesIO(wheel))
    return path


def wanted(world: World, *requirements: str, platforms: list[Platform], cache: Path) -> list[CompileJob]:
    with pytest.raises(NeedsCompiling) as caught:
        world.build(*requirements, platforms=platforms, cache=cache)
    return caught.value.jobs


def test_compiled_once_on_the_oldest_and_used_by_all_that_are_newer(world: World, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (job,) = wanted(world, "native", "pure", platforms=[NEWER, OLDER], cache=cache)
    assert (job.requirement, job.platform.hosts) == ("native==1.0", ("old1",))
    assert str(job).startswith("There is no wheel of native==1.0 for ")
    assert "would not run there" in str(job)

    wheel = accept_wheel(made(tmp_path / "made.tar"), job.requirement, OLDER, job.wheel_dir)
    assert wheel == job.wheel_dir / "2.36" / WHEEL
    done = world.build("native", "pure", platforms=[NEWER, OLDER], cache=cache)
    for host in ("old1", "new1", "new2"):
        assert f"lib/python{OTHER}/site-packages/native.py" in layer_names(done, host)
        text = layer_file(done, "requirements.txt", host)
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() in text


def test_what_was_made_on_a_newer_glibc_is_not_for_an_older_one(tmp_path: Path) -> None:
    accept_wheel(made(tmp_path / "made.tar"), "native==1.0", NEWER, tmp_path / "wheels")
    assert find_wheel(tmp_path / "wheels", NEWER) == tmp_path / "wheels" / "2.41" / WHEEL
    assert find_wheel(tmp_path / "wheels", OLDER) is None
    oldest = Platform(OLDER.python, OLDER.machine, "2.9")
    accept_wheel(made(tmp_path / "made.tar"), "native==1.0", oldest, tmp_path / "wheels")
    assert find_wheel(tmp_path / "wheels", NEWER) == tmp_path / "wheels" / "2.9" / WHEEL


def test_the_same_build_has_the_same_path_unless_another_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilers note it in debug information, and so in the id of what they make."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with build_directory("key") as first, build_directory("key") as beside:
        (first / "file").touch()
        assert first != beside
    with build_directory("key") as again:
        assert (again, list(again.iterdir()), again.stat().st_mode & 0o777) == (first, [], 0o700)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_build_on_the_controller_is_tried_on_a_host(world: World, tmp_path: Path) -> None:
    here = Platform(HERE.python, HERE.machine, HERE.glibc, ("web1",))
    (job,) = wanted(world, "broken", platforms=[here], cache=tmp_path)
    assert "building it on the controller failed: " in str(job)
    assert "no compiler here" in str(job)
    assert job.platform.hosts == ("web1",)


def test_all_that_is_missing_is_said_at_once(world: World, tmp_path: Path) -> None:
    jobs = wanted(world, "native", "broken", platforms=[NEWER], cache=tmp_path)
    assert sorted(job.requirement for job in jobs) == ["broken==1.0", "native==1.0"]


def test_what_travels_is_source_and_a_layer_of_what_building_needs(world: World, tmp_path: Path) -> None:
    (job,) = wanted(world, "native", platforms=[OLDER], cache=tmp_path)
    with tarfile.open(write_bundle(job, Workspace(tmp_path, world.index_url))) as bundle:
        names = bundle.getnames()
        with tarfile.open(fileobj=bundle.extractfile("layer.tar.gz")) as layer:
            assert f"lib/python{OTHER}/site-packages/asked_for.py" in layer.getnames()
        assert json.load(bundle.extractfile("backend.json")) == ["backend", ["."]]  # type: ignore[arg-type]
    assert {"layer.tar.gz", "source/pyproject.toml", "source/backend.py"} <= set(names)
    assert "source/left-behind" not in names
    assert [path.name for path in (tmp_path / "sources").iterdir()] == [f"{job.wheel_dir.name}.tar"]


def test_machine_code_is_seen_whatever_the_tag_says(tmp_path: Path) -> None:
    for name, content in (("pure", b"x = 1"), ("native", b"\x7fELF\x02")):
        with zipfile.ZipFile(tmp_path / name, "w") as opened:
            opened.writestr("a/part", content)
    assert (has_compiled_part(tmp_path / "pure"), has_compiled_part(tmp_path / "native")) == (False, True)


def test_what_building_needs_must_be_there_as_a_wheel(world: World, tmp_path: Path) -> None:
    def source(scratch: Path) -> Path:
        (scratch / "x").mkdir()
        (scratch / "x" / "pyproject.toml").write_text('[build-system]\nrequires = ["pure"]\nbuild-backend = "b"\n')
        return scratch / "x"

    job = CompileJob("needy==1.0", OLDER, tmp_path / "wheels", source)
    with pytest.raises(BuildError, match=r"^What is needed to build needy==1\.0 \(pure\) could not be locked: .*pure"):
        write_bundle(job, Workspace(tmp_path, world.index_url))


def test_source_with_another_hash_does_not_travel(world: World, tmp_path: Path) -> None:
    (job,) = wanted(world, "native", platforms=[OLDER], cache=tmp_path)
    archive = world.root / "index" / "simple" / "native" / "native-1.0.tar.gz"
    before = archive.read_bytes()
    try:
        archive.write_bytes(before + b"x")
        with pytest.raises(
            BuildError, match=r"^The source of native==1\.0 has another hash than the lock says: not used"
        ):
            write_bundle(job, Workspace(tmp_path, world.index_url))
    finally:
        archive.write_bytes(before)
    assert not (tmp_path / "sources").exists()


def test_one_job_for_each_wheel() -> None:
    def job(wheel_dir: str, platform: Platform) -> CompileJob:
        return CompileJob("a==1", platform, Path(wheel_dir), lambda scratch: scratch)

    chosen = oldest_first([job("x", NEWER), job("y", NEWER), job("x", OLDER)])
    assert {(str(each.wheel_dir), each.platform.glibc) for each in chosen} == {("x", "2.36"), ("y", "2.41")}


@pytest.mark.parametrize(
    ("name", "wheel"),
    [
        (WHEEL.replace(TAG, "cp39-cp39-linux_x86_64"), None),
        (WHEEL.replace("1.0", "1.1"), None),
        (WHEEL.replace("native", "other"), None),
        (f"../{WHEEL}", None),
        ("x", None),
        (WHEEL, b"no zip"),
    ],
)
def test_what_does_not_fit_is_not_kept(tmp_path: Path, name: str, wheel: bytes | None) -> None:
    with pytest.raises(BuildError, match=r"building native==1\.0 there (gave|did not give)"):
        accept_wheel(made(tmp_path / "made.tar", name, wheel), "native==1.0", OLDER, tmp_path / "wheels")
    assert not (tmp_path / "wheels").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 2000])
def test_an_answer_that_is_no_archive_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "made.tar").write_bytes(content)
    with pytest.raises(BuildError, match="did not give one wheel"):
        accept_wheel(tmp_path / "made.tar", "native==1.0", OLDER, tmp_path / "wheels")


def test_an_sdist_that_leads_out_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x-1.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        opened.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(BuildError, match=r"x-1\.tar\.gz cannot be unpacked"):
        unpack_sdist(archive, tmp_path)


# -- where packages come from ----------------------------------------------------------------------


@pytest.fixture
def seen() -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """A server that redirects /moved to another name of itself, and what was asked of it."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(302 if self.path == "/moved" else 200)
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/there")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, asked
    server.shutdown()
    server.server_close()


def test_credentials_of_an_index_go_to_its_host_alone(seen: tuple[int, list[tuple[str, str]]]) -> None:
    port, asked = seen
    workspace = Workspace(Path("/nonexistent"), f"http://me:p%40ss@127.0.0.1:{port}/simple")
    for address in (f"http://127.0.0.1:{port}/moved", f"http://localhost:{port}/other"):
        workspace.open(address).close()
    basic = f"Basic {base64.b64encode(b'me:p@ss').decode()}"
    assert asked == [("/moved", basic), ("/there", ""), ("/other", "")]


# -- on the host -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("x.c:1:10: fatal error: libpq-fe.h: No such file or directory\n", "there is no libpq-fe.h:"),
        (
            "error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory",
            "there is no x86_64-linux-gnu-gcc:",
        ),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'cmake'", "there is no cmake:"),
        ("Error: pg_config executable not found.\n", "there is no pg_config:"),
        ("/bin/sh: 1: curl-config: not found\n", "there is no curl-config:"),
        ("/usr/bin/ld: cannot find -lpq: No such file", "there is no library pq:"),
    ],
)
def test_what_is_missing_is_named_with_the_variable_that_brings_it(words: str, sentence: str) -> None:
    assert module.explain(words, "a==1") == (
        f"a==1 does not compile, because {sentence} add the Debian package that has it to forge_build_packages."
    )


def test_first_error_of_another_failure() -> None:
    words = "word " * 500 + "\nx.c:3: error: expected ';'\n" + "make: x\n" * 500
    said = module.explain(words, "a==1")
    assert said.startswith("a==1 does not compile: x.c:3: error: expected ';'")
    assert len(said) < 650


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Commands that were run; systemd-run fails with the words in the file beside."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        commands.append(command)
        if command[0] == "systemd-run":
            words = tmp_path / "fails"
            if words.exists():
                return subprocess.CompletedProcess(command, 1, stderr=words.read_text(errors="replace"))
            options["stdout"].write(options["stdin"].read())
            return subprocess.CompletedProcess(command, 0, stderr="")
        there = command[-1] in ("gcc", "make")
        failed = command[0] == "apt-get" and "nonsense" in command
        return subprocess.CompletedProcess(
            command, int(failed), stdout="installed" if there else "",
            stderr="W: x\nE: Unable to locate package nonsense\n" if failed else "",
        )  # fmt: skip

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(module, "CACHES", (str(tmp_path / "private"), str(tmp_path / "cache")))
    return commands


def test_source_goes_in_and_the_wheel_comes_out_of_a_unit_without_network(
    runs: list[list[str]], tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(b"content")
    left = tmp_path / "private" / module.UNIT / "left"
    left.mkdir(parents=True)
    module.build(str(tmp_path / "source"), str(tmp_path / "made"), "/usr/bin/python3", "a==1", 60)
    assert (tmp_path / "made").read_bytes() == b"content"
    assert not left.parent.exists()
    stop, command = runs
    assert stop == ["systemctl", "stop", "forge-compile.service"]
    assert {"PrivateNetwork=yes", "DynamicUser=yes", "RuntimeMaxSec=60"} <= set(command)
    assert command[-2:] == ["/usr/bin/python3", module.BUILD]


def test_a_build_that_fails_leaves_nothing_and_says_why(runs: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"")
    (tmp_path / "fails").write_text("x.c: bad \udcff".encode("utf-8", "surrogateescape").decode("latin-1"))
    (tmp_path / "private" / module.UNIT).mkdir(parents=True)
    with pytest.raises(module.CompileError, match=r"^a==1 does not compile: x\.c: bad"):
        module.build(str(tmp_path / "source"), str(tmp_path / "made"), "/usr/bin/python3", "a==1", 60)
    with pytest.raises(module.CompileError, match=r"^a==1 was not compiled within 0 s, and was stopped\."):
        module.build(str(tmp_path / "source"), str(tmp_path / "made"), "/usr/bin/python3", "a==1", 0)
    assert not (tmp_path / "private" / module.UNIT).exists()
