"""What the controller cannot build is compiled once, on one host of its platform."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import debian
from ansible_collections.thecodeforge.fastapi.plugins.modules import compile as module
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.release import build
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.bundle import pack
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.compiled import (
    Job,
    NotHere,
    accept,
    find_wheel,
    oldest_first,
    unpack,
)
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.index import Index, find_uv
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform
from package_index import PackageIndex, served, wheel_files

HERE = Platform.here()
OTHER = "3.13" if HERE.minor != "3.13" else "3.12"
NEWER = Platform(f"{OTHER}.5", HERE.machine, "2.41", ("new1", "new2"))
OLDER = Platform(f"{OTHER}.2", HERE.machine, "2.36", ("old1",))
TAG = f"cp{OTHER.replace('.', '')}-cp{OTHER.replace('.', '')}-linux_{HERE.machine}"
WHEEL = f"native-1.0-{TAG}.whl"


class World:
    def __init__(self, root: Path, packages: PackageIndex, url: str) -> None:
        self.root, self.packages = root, packages
        self.index = Index(url=f"{url}/simple")

    def source(self, *requirements: str) -> str:
        directory = self.root / "-".join(requirements)
        directory.mkdir(exist_ok=True)
        (directory / "main.py").write_text("async def app(scope, receive, send): ...\n")
        (directory / "requirements.txt").write_text("\n".join(requirements))
        return str(directory)

    def build(self, *requirements: str, platforms: list[Platform], cache: Path) -> dict[str, Any]:
        return build(self.source(*requirements), "main:app", platforms, cache, self.index, [])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    packages = PackageIndex(root / "index")
    for name in ("gunicorn", "uvicorn", "uvicorn-worker", "helper", "asked-for"):
        packages.wheel(name, "1.0")
    packages.sdist(
        "native", "1.0", TAG.replace(OTHER.replace(".", ""), HERE.minor.replace(".", "")), asks=["asked-for"]
    )
    packages.sdist("broken", "1.0", builds=False)
    packages.sdist("pure", "1.0")
    packages.sdist("needy", "1.0", TAG, requires=["pure"])
    version = subprocess.run([find_uv(), "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    packages.wheel(
        "uv", version, tag=f"py3-none-manylinux_2_17_{HERE.machine}", **{f"uv-{version}.data/scripts/uv": "uv"}
    )
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


def wanted(world: World, *requirements: str, platforms: list[Platform], cache: Path) -> list[Job]:
    with pytest.raises(NotHere) as caught:
        world.build(*requirements, platforms=platforms, cache=cache)
    return caught.value.jobs


def test_compiled_once_on_the_oldest_and_used_by_all_that_are_newer(world: World, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (job,) = wanted(world, "native", "pure", platforms=[NEWER, OLDER], cache=cache)
    assert (job.requirement, job.platform.hosts) == ("native==1.0", ("old1",))
    assert str(job).startswith("There is no wheel of native==1.0 for ")
    assert "would not run there" in str(job)

    wheel = accept(made(tmp_path / "made.tar"), job.requirement, OLDER, job.shelf)
    assert wheel == job.shelf / "2.36" / WHEEL
    done = world.build("native", "pure", platforms=[NEWER, OLDER], cache=cache)
    for host in ("old1", "new1", "new2"):
        with tarfile.open(done["hosts"][host]["blob"]["path"]) as layer:
            assert f"wheels/{WHEEL}" in layer.getnames()
            text = layer.extractfile("requirements.txt").read().decode()  # type: ignore[union-attr]
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() in text


def test_what_was_made_on_a_newer_glibc_is_not_for_an_older_one(tmp_path: Path) -> None:
    accept(made(tmp_path / "made.tar"), "native==1.0", NEWER, tmp_path / "shelf")
    assert find_wheel(tmp_path / "shelf", NEWER) == tmp_path / "shelf" / "2.41" / WHEEL
    assert find_wheel(tmp_path / "shelf", OLDER) is None
    oldest = Platform(OLDER.python, OLDER.machine, "2.9")
    accept(made(tmp_path / "made.tar"), "native==1.0", oldest, tmp_path / "shelf")
    assert find_wheel(tmp_path / "shelf", NEWER) == tmp_path / "shelf" / "2.9" / WHEEL


def test_what_does_not_build_on_the_controller_is_tried_on_a_host(world: World, tmp_path: Path) -> None:
    here = Platform(HERE.python, HERE.machine, HERE.glibc, ("web1",))
    (job,) = wanted(world, "broken", platforms=[here], cache=tmp_path)
    assert "building it on the controller failed: " in str(job)
    assert "no compiler here" in str(job)
    assert job.platform.hosts == ("web1",)


def test_all_that_is_missing_is_said_at_once(world: World, tmp_path: Path) -> None:
    jobs = wanted(world, "native", "broken", platforms=[NEWER], cache=tmp_path)
    assert sorted(job.requirement for job in jobs) == ["broken==1.0", "native==1.0"]


def test_what_travels_is_source_uv_and_wheels_of_what_building_needs(world: World, tmp_path: Path) -> None:
    (job,) = wanted(world, "native", platforms=[OLDER], cache=tmp_path)
    with tarfile.open(pack(job, tmp_path, world.index)) as bundle:
        names = bundle.getnames()
    assert {"uv.whl", "source/pyproject.toml", "source/backend.py", "wheels/asked_for-1.0-py3-none-any.whl"} <= set(
        names
    )
    assert "source/left-behind" not in names
    assert [path.name for path in (tmp_path / "sources").iterdir()] == [f"{job.shelf.name}.tar"]


def test_what_building_needs_must_be_there_as_a_wheel(world: World, tmp_path: Path) -> None:
    def source(scratch: Path) -> Path:
        (scratch / "x").mkdir()
        (scratch / "x" / "pyproject.toml").write_text('[build-system]\nrequires = ["pure"]\nbuild-backend = "b"\n')
        return scratch / "x"

    job = Job("needy==1.0", OLDER, tmp_path / "shelf", source)
    with pytest.raises(BuildError, match=r"^What is needed to build needy==1\.0 \(pure\) is not there as wheels: "):
        pack(job, tmp_path, world.index)


def test_source_with_another_hash_does_not_travel(world: World, tmp_path: Path) -> None:
    (job,) = wanted(world, "native", platforms=[OLDER], cache=tmp_path)
    archive = world.root / "index" / "simple" / "native" / "native-1.0.tar.gz"
    before = archive.read_bytes()
    try:
        archive.write_bytes(before + b"x")
        with pytest.raises(
            BuildError, match=r"^The source of native==1\.0 has another hash than the lock says: not used"
        ):
            pack(job, tmp_path, world.index)
    finally:
        archive.write_bytes(before)
    assert not (tmp_path / "sources").exists()


def test_one_job_for_each_wheel() -> None:
    def job(shelf: str, platform: Platform) -> Job:
        return Job("a==1", platform, Path(shelf), lambda scratch: scratch)

    chosen = oldest_first([job("x", NEWER), job("y", NEWER), job("x", OLDER)])
    assert {(str(each.shelf), each.platform.glibc) for each in chosen} == {("x", "2.36"), ("y", "2.41")}


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
        accept(made(tmp_path / "made.tar", name, wheel), "native==1.0", OLDER, tmp_path / "shelf")
    assert not (tmp_path / "shelf").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 2000])
def test_an_answer_that_is_no_archive_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "made.tar").write_bytes(content)
    with pytest.raises(BuildError, match="did not give one wheel"):
        accept(tmp_path / "made.tar", "native==1.0", OLDER, tmp_path / "shelf")


def test_an_sdist_that_leads_out_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x-1.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        opened.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(BuildError, match=r"x-1\.tar\.gz cannot be unpacked"):
        unpack(archive, tmp_path)


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
    index = Index(url=f"http://me:p%40ss@127.0.0.1:{port}/simple")
    for address in (f"http://127.0.0.1:{port}/moved", f"http://localhost:{port}/other"):
        index.open(address).close()
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


def test_last_words_of_another_failure() -> None:
    words = "word " * 500 + "\nx.c:3: error: expected ';'\nerror: Failed to build `/x`\n  cause: long story\n"
    said = module.explain(words, "a==1")
    assert said.startswith("a==1 does not compile: …word ")
    assert said.endswith("x.c:3: error: expected ';'")
    assert len(said) < 650
    assert module.explain("error: Failed to build `/x`: why", "a==1").endswith("Failed to build `/x`: why")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Commands that were run; systemd-run fails with the words in the file beside."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        commands.append(command)
        if command[0] == "systemd-run":
            words = tmp_path / "fails"
            if words.exists():
                return subprocess.CompletedProcess(command, 1, stderr=words.read_bytes())
            options["stdout"].write(options["stdin"].read())
            return subprocess.CompletedProcess(command, 0, stderr=b"")
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
    assert command[-1] == "/usr/bin/python3"


def test_a_build_that_fails_leaves_nothing_and_says_why(runs: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"")
    (tmp_path / "fails").write_text("x.c: bad \udcff".encode("utf-8", "surrogateescape").decode("latin-1"))
    (tmp_path / "private" / module.UNIT).mkdir(parents=True)
    with pytest.raises(module.CompileError, match=r"^a==1 does not compile: x\.c: bad"):
        module.build(str(tmp_path / "source"), str(tmp_path / "made"), "/usr/bin/python3", "a==1", 60)
    with pytest.raises(module.CompileError, match=r"^a==1 was not compiled within 0 s, and was stopped\."):
        module.build(str(tmp_path / "source"), str(tmp_path / "made"), "/usr/bin/python3", "a==1", 0)
    assert not (tmp_path / "private" / module.UNIT).exists()


def test_packages_that_are_missing_are_installed_and_apt_is_quoted(runs: list[list[str]]) -> None:
    assert debian.missing_packages(["gcc", "cmake", "make"]) == ["cmake"]
    debian.install(["cmake"])
    assert [command[-1] for command in runs[-2:]] == ["update", "cmake"]
    with pytest.raises(debian.AptError, match=r"^Unable to locate package nonsense$"):
        debian.install(["nonsense"])
