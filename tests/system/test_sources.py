"""Any source, built once; hosts that reach nothing but the controller's SSH."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Fleet

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
    box.play("site", **COMMON, forge_source=str(APPS / "requirements"), forge_target="main:app")
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
    "requirement": ({"forge_source": "forge-no-such-package==1"}, "forge_source: the package index has no"),
    "artifact": ({"forge_source": "/nowhere/shop.tar"}, "there is no artifact /nowhere/shop.tar"),
    "index": (
        {"forge_source": "idna==3.6", "forge_build_index_url": "https://user:hunter2-secret@nowhere.invalid/simple"},
        "The package index cannot be reached",
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
