# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any source, built once; hosts that reach nothing but the controller's SSH."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import HOSTS, NODES, REPOSITORY, SET, Fleet

APPS = REPOSITORY / "tests" / "fixtures" / "apps"
COMMON: dict[str, Any] = {
    "forge_migrations": [],
    "forge_schema_version": "",
    "forge_environment": {},
    "forge_preload": [],
    "forge_workers": 1,
    "forge_watch_seconds": 0,
    "forge_health_path": "/health",
}


@pytest.fixture(scope="module")
def monorepo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with the app in a sub-directory."""
    root = tmp_path_factory.mktemp("monorepo") / "shop.git"
    shutil.copytree(APPS / "monorepo", root)
    (root / "gitignore").rename(root / ".gitignore")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", "-C", str(root)]
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "one"], ["tag", "v1.5"]):
        subprocess.run([*git, *command], check=True)
    return root


@pytest.fixture(scope="module")
def cut(box: Fleet) -> Fleet:
    """A prepared node that reaches nothing but the controller's SSH."""
    # Its release has a package dotenv, which does not hide the library from the library's command: as in a virtual environment.
    options = {**COMMON, "forge_migrations": ["dotenv --version"], "forge_migrations_paths": []}
    box.play("site", **options, forge_source=str(APPS / "requirements"), forge_target="main:app")
    assert answer(box)["kind"] == "requirements"
    box.lab("cut", "box")
    assert box.on("box", "timeout 3 getent ahosts pypi.org || echo cut") == "cut"
    yield box
    box.lab("join", "box")


def answer(box: Fleet) -> dict[str, Any]:
    """What the app says, asked on the node, as it may be cut off."""
    return dict(json.loads(box.on("box", "curl -fsS --max-time 5 http://127.0.0.1:8000/health")))


def record(box: Fleet) -> dict[str, Any]:
    return dict(json.loads(box.on("box", "cat /srv/forge/current/release.json")))


@pytest.fixture
def over_ssh(box: Fleet, monorepo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The repository on a node, behind its SSH server; the key is ours alone."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    box.on("box", "command -v git || { apt-get -qq update && apt-get -qq install --yes git; }")
    box.on("box", "id git || useradd --create-home --shell /usr/bin/git-shell git")
    public = key.with_suffix(".pub").read_text().strip()
    box.on("box", f"install -d -m 700 -o git ~git/.ssh && echo '{public}' > ~git/.ssh/authorized_keys")
    bare = tmp_path / "shop.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", monorepo, bare], check=True)
    packed = subprocess.run(["tar", "-C", tmp_path, "-cz", "shop.git"], check=True, capture_output=True).stdout
    box.on("box", f"echo {base64.b64encode(packed).decode()} | base64 -d | tar -C ~git -xz && chown -R git: ~git")
    monkeypatch.setenv(
        "GIT_SSH_COMMAND",
        f"ssh -i {key} -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=accept-new "
        f"-o UserKnownHostsFile={tmp_path}/known_hosts",
    )
    return f"git+ssh://git@{box.address('box')}/home/git/shop.git"


@pytest.mark.thorough
def test_a_repository_behind_ssh_is_a_source(
    box: Fleet, over_ssh: str, monorepo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"forge_source_directory": "backend", "forge_target": "shop.main:app"}
    cache = {"forge_build_cache": str(tmp_path / "cache")}
    box.play("site", **COMMON, **given, **cache, forge_source=f"{over_ssh}@v1.5")
    assert record(box)["commit"] == git_head(monorepo)
    assert answer(box)["version"] == "1.5"
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -i /nonexistent -o IdentitiesOnly=yes -o BatchMode=yes")
    run = box.play(
        "build", check=False, **COMMON, **given, forge_source=over_ssh, forge_build_cache=str(tmp_path / "x")
    )
    assert run.rc != 0
    assert "shop.git cannot be fetched: " in run.said()


def test_commits_and_directories_of_a_lock_are_installed_by_hash(box: Fleet, tmp_path: Path) -> None:
    """With the real tool for the bill of materials, and a build backend from the index."""
    build_system = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    about = '[project]\nname = "{}"\nversion = "1.0"\nrequires-python = ">=3.11"\n'
    for root, name in ((tmp_path / "kept", "kept"), (tmp_path / "app" / "libs" / "near", "near")):
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text(f"name = {name!r}\n")
        (root / "pyproject.toml").write_text(about.format(name) + build_system)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, "-C", tmp_path / "kept", *command], check=True)
    main = (
        "import json\nimport kept\nimport near\n\n\nasync def app(scope, receive, send):\n"
        "    body = json.dumps([kept.name, near.name]).encode()\n"
        "    headers = [(b'content-length', str(len(body)).encode())]\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': headers})\n"
        "    await send({'type': 'http.response.body', 'body': body})\n"
    )
    app = tmp_path / "app"
    (app / "main.py").write_text(main)
    (app / "pyproject.toml").write_text(
        about.format("shop") + 'dependencies = ["kept", "near", "uvicorn"]\n[tool.uv.sources]\n'
        f'kept = {{ git = "file://{tmp_path}/kept" }}\nnear = {{ path = "libs/near" }}\n'
    )
    subprocess.run(["uv", "lock", "--quiet"], cwd=app, check=True)
    given = {**COMMON, "forge_server": "uvicorn", "forge_source": str(app), "forge_target": "main:app"}
    box.play("build", **given, forge_artifact=str(tmp_path / "shop.tar"))
    with tarfile.open(tmp_path / "shop.tar") as opened:
        bill = json.load(opened.extractfile("sbom.cdx.json"))  # type: ignore[arg-type]
    assert {"kept", "near", "uvicorn"} <= {each["name"] for each in bill["components"]}
    box.play("site", **given)
    assert json.loads(box.on("box", "curl -fsS --max-time 5 http://127.0.0.1:8000/health")) == ["kept", "near"]
    assert box.play("deploy", **given).changed("box") == 0
    assert box.play("status", **given).rc == 0
    layer = record(box)["layer"]
    (app / "libs" / "near" / "near" / "__init__.py").write_text("name = 'nearer'\n")
    box.play("deploy", **given)
    assert json.loads(box.on("box", "curl -fsS --max-time 5 http://127.0.0.1:8000/health")) == ["kept", "nearer"]
    assert record(box)["layer"] != layer


@pytest.mark.thorough
def test_a_poetry_project_is_locked_installed_and_deployed_offline(cut: Fleet) -> None:
    cut.play("deploy", **COMMON, forge_source=str(APPS / "poetry"), forge_target="shop.main:app")
    assert answer(cut) == {
        "kind": "poetry", "version": "3.1", "command": True, "data": "data of the package", "idna": "3.7",
    }  # fmt: skip
    again = cut.play("deploy", **COMMON, forge_source=str(APPS / "poetry"), forge_target="shop.main:app")
    assert again.changed("box") == 0


def test_an_artifact_is_made_in_one_place_and_deployed_in_another(cut: Fleet, monorepo: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "shop.tar"
    source = {"forge_source": f"git+file://{monorepo}@v1.5", "forge_source_directory": "backend"}
    target = {"forge_target": "shop.main:app"}
    cut.play("build", **COMMON, **source, **target, forge_artifact=str(artifact))
    first = hashlib.sha256(artifact.read_bytes()).hexdigest()
    cut.play(
        "build", **COMMON, **source, **target, forge_artifact=str(artifact), forge_build_cache=str(tmp_path / "two")
    )
    assert hashlib.sha256(artifact.read_bytes()).hexdigest() == first
    with tarfile.open(artifact) as opened:
        manifest = json.load(opened.extractfile("manifest.json"))  # type: ignore[arg-type]
        bill = json.load(opened.extractfile("sbom.cdx.json"))  # type: ignore[arg-type]
    assert {"idna", "gunicorn"} <= {each["name"] for each in bill["components"]}

    # Neither source nor index nor anything built before.
    nowhere = {
        "forge_build_cache": str(tmp_path / "three"),
        "forge_build_index_url": "https://nowhere.invalid/simple",
        "forge_source": str(artifact),
        "forge_source_sha256": first,
    }
    cut.play("deploy", **COMMON, **target, **nowhere)
    assert answer(cut) == {"kind": "monorepo", "version": "1.5", "idna": "3.7"}
    found = record(cut)
    assert found["commit"] == manifest["commit"] == git_head(monorepo)
    assert found["builder"] == manifest["builder"] != ""
    assert cut.play("deploy", **COMMON, **target, **nowhere).changed("box") == 0

    before = cut.fingerprint("box")
    artifact.write_bytes(artifact.read_bytes()[:-1000])
    run = cut.play("deploy", check=False, **COMMON, **target, **nowhere)
    assert run.rc != 0
    assert "not that of forge_source_sha256: not used" in run.said()
    assert cut.fingerprint("box") == before


def git_head(root: Path) -> str:
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_wheel_is_a_source(cut: Fleet, tmp_path: Path) -> None:
    uv = REPOSITORY / ".venv" / "bin" / "uv"
    copy = tmp_path / "poetry"
    shutil.copytree(APPS / "poetry", copy)
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path, copy], check=True, env={**os.environ})
    wheel = tmp_path / "shop-3.1-py3-none-any.whl"
    cut.play("deploy", **COMMON, forge_source=str(wheel), forge_target="shop.main:app")
    assert answer(cut)["version"] == "3.1"
    assert cut.on("box", "cat /srv/forge/releases/*/requirement.txt") == "shop==3.1"


ERRORS = {
    "ref": ({"forge_source": "git+file://{monorepo}@nothing"}, "has no branch, tag or commit nothing"),
    "requirement": (
        {"forge_source": "forge-no-such-package==1"},
        "forge-no-such-package was not found in the package registry",
    ),
    "artifact": ({"forge_source": "/nowhere/shop.tar"}, "there is no artifact /nowhere/shop.tar"),
    "index": (
        {"forge_source": "idna==3.6", "forge_build_index_url": "https://user:hunter2-secret@nowhere.invalid/simple"},
        "(Package index: https://***@nowhere.invalid/simple. See forge_build_index_url",
    ),
    "target": (
        {"forge_source": "idna==3.7", "forge_target": "idna.nothing:app"},
        "No module named 'idna.nothing'",
    ),
    "asgi": (
        {"forge_source": "idna==3.7", "forge_target": "wsgiref.simple_server:demo_app"},
        "is a WSGI app (environ, start_response), not an ASGI app",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_one_sentence_and_a_host_that_was_not_touched(cut: Fleet, monorepo: Path, name: str) -> None:
    extra, sentence = ERRORS[name]
    before = cut.fingerprint("box")
    given = {key: value.format(monorepo=monorepo) for key, value in extra.items()}
    run = cut.play("deploy", check=False, **{**COMMON, "forge_target": "idna:app", **given})
    assert run.rc != 0
    assert sentence in run.said()
    assert "hunter2-secret" not in run.output
    assert cut.fingerprint("box") == before


def test_a_dirty_tree_is_refused_where_that_is_asked_and_the_cache_is_emptied(
    cut: Fleet, monorepo: Path, tmp_path: Path
) -> None:
    (monorepo / "backend" / "new.txt").write_text("x")
    run = cut.play(
        "build", check=False, **COMMON, forge_source=str(monorepo), forge_source_directory="backend",
        forge_target="shop.main:app", forge_source_dirty=False, forge_build_cache=str(tmp_path / "cache"),
    )  # fmt: skip
    assert run.rc != 0
    assert "has changes that are not committed" in run.said()
    (tmp_path / "cache" / "layers" / "x").mkdir(parents=True)
    (tmp_path / "cache" / "of somebody else").mkdir()
    cut.play("clean_cache", forge_build_cache=str(tmp_path / "cache"))
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["of somebody else"]


# -- compiled on one host ----------------------------------------------------------------------------

NATIVE = {
    "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n',
    # A controller that has a compiler would build it itself.
    "setup.py": """
import os, sys
from setuptools import Extension, setup
if "FORGE_NO_COMPILER" in os.environ:
    sys.exit("no compiler here")
setup(name="forge-native", version="{version}", ext_modules=[Extension("forge_native", ["native.c"])])
""",
    "native.c": """
#include <Python.h>
static PyObject *value(PyObject *self, PyObject *none) {{ return PyUnicode_FromString("{version}"){semicolon} }}
static PyMethodDef methods[] = {{{{"value", value, METH_NOARGS, ""}}, {{0}}}};
static struct PyModuleDef module = {{PyModuleDef_HEAD_INIT, "forge_native", "", -1, methods}};
PyMODINIT_FUNC PyInit_forge_native(void) {{ return PyModule_Create(&module); }}
""",
    "PKG-INFO": "Metadata-Version: 2.2\nName: forge-native\nVersion: {version}\n",
}


@pytest.fixture
def native_index(tmp_path: Path) -> Iterator[str]:
    """An index with the sources of a compiled package; those of 1.2 are wrong."""
    directory = tmp_path / "simple" / "forge-native"
    directory.mkdir(parents=True)
    links = []
    for version in ("1.0", "1.1", "1.2"):
        name = f"forge_native-{version}"
        with tarfile.open(directory / f"{name}.tar.gz", "w:gz") as archive:
            for path, text in NATIVE.items():
                content = text.format(version=version, semicolon="" if version == "1.2" else ";").encode()
                entry = tarfile.TarInfo(f"{name}/{path}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        digest = hashlib.sha256((directory / f"{name}.tar.gz").read_bytes()).hexdigest()
        links.append(f'<a href="{name}.tar.gz#sha256={digest}">{name}.tar.gz</a>')
    (directory / "index.html").write_text(f"<!DOCTYPE html><html><body>{' '.join(links)}</body></html>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


@pytest.mark.thorough
def test_a_source_that_the_controller_cannot_build_is_compiled_on_one_host_without_network(
    cut: Fleet, native_index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_NO_COMPILER", "1")
    source = tmp_path / "native"
    shutil.copytree(APPS / "requirements", source)
    main = (source / "main.py").read_text().replace("import idna", "import forge_native")
    (source / "main.py").write_text(main.replace("idna.__version__", "forge_native.value()"))
    given = {
        **COMMON, "forge_source": str(source), "forge_target": "main:app", "forge_packages": ["libonig5"],
        "forge_build_extra_index_urls": [native_index], "forge_build_cache": str(tmp_path / "cache"),
    }  # fmt: skip

    def deploy(version: str, playbook: str = "deploy", **options: Any) -> Any:
        (source / "requirements.txt").write_text(f"forge-native=={version}\n")
        return cut.play(playbook, **{**given, **options})

    before = cut.fingerprint("box")
    run = deploy("1.0", check=False, flags=("--check",))
    assert "A run without check mode would compile forge-native==1.0 on box." in run.said()
    assert cut.fingerprint("box") == before

    cut.lab("join", "box")
    try:
        run = deploy("1.0", check=False, forge_build_packages=["forge-no-such-package"])
        assert "forge_build_packages: apt could not install forge-no-such-package on" in run.said()
        assert cut.fingerprint("box") == before
        deploy("1.0", playbook="site")
        assert answer(cut)["idna"] == "1.0"
        assert cut.on("box", "dpkg-query -W -f '${db:Status-Status}' libonig5") == "installed"
        assert deploy("1.0", playbook="site").changed("box") == 0
    finally:
        cut.lab("cut", "box")

    first = next((tmp_path / "cache" / "built").rglob("*.whl"))
    content = first.read_bytes()
    first.unlink()
    for layer in (tmp_path / "cache" / "layers").iterdir():
        layer.unlink()
    deploy("1.0", playbook="build")
    assert first.read_bytes() == content  # the same source, the same bytes
    deploy("1.1")
    assert answer(cut)["idna"] == "1.1"
    before = cut.fingerprint("box")
    run = deploy("1.2", check=False)
    assert "forge-native==1.2 does not compile: " in run.said()
    assert "native.c:3:" in run.said()
    assert cut.fingerprint("box") == before
    assert answer(cut)["idna"] == "1.1"
    left = "ls -d /var/cache/forge-compile /var/cache/private/forge-compile 2>/dev/null; systemctl list-units --all 'forge-compile*' -q"
    assert cut.on("box", f"{left}; ls -A /home/admin/.ansible/tmp") == ""


# -- compiled parts of the app itself ----------------------------------------------------------------

PROJECT = {
    "pyproject.toml": NATIVE["pyproject.toml"]
    + '[project]\nname = "shop"\nversion = "1.0"\ndependencies = ["uvicorn"]\n',
    "setup.py": """
import os, sys
from setuptools import Extension, setup
if "FORGE_NO_COMPILER" in os.environ and "bdist_wheel" in sys.argv:
    sys.exit("no compiler here")
setup(ext_modules=[Extension("shop.fast", ["native.c"])])
""",
    "native.c": NATIVE["native.c"].format(version="1.0", semicolon=";").replace("forge_native", "fast"),
    "src/shop/__init__.py": """
import json
from shop import fast


async def app(scope, receive, send):
    body = json.dumps([fast.value(), fast.__file__.rpartition("/")[2]]).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
""",
}


@pytest.fixture
def pair() -> Iterator[Fleet]:
    """Two nodes with another Python and another glibc."""
    with Fleet(lab_set=f"{SET}pair", without_database=True).with_nodes(*NODES[:2]) as fleet:
        yield fleet


@pytest.mark.thorough
def test_the_compiled_parts_of_an_app_are_made_on_a_host_of_each_platform_and_serve(
    pair: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_NO_COMPILER", "1")
    source = tmp_path / "shop"
    for name, text in PROJECT.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    given = {
        **COMMON, "forge_server": "uvicorn", "forge_source": str(source), "forge_target": "shop:app",
        "forge_build_cache": str(tmp_path / "cache"),
    }  # fmt: skip

    def served(version: str) -> set[str]:
        """What each node answers, and the releases that it serves."""
        for node, python in (("app12", "311"), ("app13", "313")):
            value, module = pair.get(node, "/health").json()
            assert (value, module.startswith(f"fast.cpython-{python}-")) == (version, True)
        return {json.loads(pair.on(node, "cat /srv/forge/current/release.json"))["release"] for node in HOSTS}

    pair.play("site", **given)
    (first,) = served("1.0")
    again = pair.play("deploy", **given)
    assert [again.changed(node) for node in HOSTS] == [0, 0]
    (source / "native.c").write_text(PROJECT["native.c"].replace('"1.0"', '"1.1"'))
    pair.play("deploy", **given)
    (second,) = served("1.1")
    assert first != second
