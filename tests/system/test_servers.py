# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What serves is a choice. What of the promise holds for each, seen by clients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY, Fleet
from tiny import WORKER, load, write_project

COMMON = {
    "forge_target": "shop.main:app",
    "forge_migrations": [],
    "forge_schema_version": "",
    "forge_environment": {},
    "forge_workers": 2,
    "forge_watch_seconds": 1,
    "forge_drain_seconds": 5,
}
WITH_GUNICORN = ("gunicorn", "uvicorn[standard]", "uvicorn-worker")


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("gunicorn") / "shop", *WITH_GUNICORN, worker=WORKER)


@pytest.fixture(scope="module")
def uvicorn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("uvicorn") / "shop", "uvicorn")


def record(box: Fleet) -> dict:
    return json.loads(box.on("box", "cat /srv/forge/current/release.json"))


def report(name: str, result: dict) -> None:
    """Figures for people."""
    path = REPOSITORY / "build" / "bench" / "servers.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    known[name] = {key: result[key] for key in ("total", "lost", "p99_ms")}
    path.write_text(json.dumps(known, indent=2) + "\n")


@pytest.mark.thorough
def test_one_uvicorn_process_loses_nothing(box: Fleet, uvicorn: Path) -> None:
    settings = {**COMMON, "forge_source": str(uvicorn), "forge_server": "uvicorn", "forge_workers": 0}
    run = box.play("site", **settings)
    assert "Uvicorn is one process" in run.said()
    first = box.live("box")
    layer = json.loads(box.on("box", "cat /srv/forge/current/release.json"))["layer"]  # there are others of other tests
    imported = box.on("box", f"/srv/forge/layers/{layer}/bin/python -c 'import gunicorn' 2>&1 | tail -1")
    assert imported.startswith("ModuleNot")
    with load(box.url("box", "")) as result:
        box.play("deploy", **settings, forge_keepalive=74)
        assert box.get("box", "/version").json()["generation"] == box.live("box") != first
        box.play("rollback", **settings)
        assert box.get("box", "/version").json()["generation"] == box.live("box") == first
    report("uvicorn", result)
    assert result["total"] > 300
    assert result["lost"] == {}
    assert box.play("deploy", **settings).changed("box") == 0


def test_candidate_of_one_process_serves_nobody_when_it_fails(box: Fleet, uvicorn: Path) -> None:
    settings = {**COMMON, "forge_source": str(uvicorn), "forge_server": "uvicorn", "forge_workers": 0}
    box.play("site", **settings)
    before = box.live("box")
    with load(box.url("box", "")) as result:
        bad = {"forge_environment_plain": {"HEALTH": 503}, "forge_health_deadline": 4}
        run = box.play("deploy", check=False, **settings, **bad)
    assert run.rc != 0
    assert "GET /healthz answered 503, not 200" in run.said()
    assert box.live("box") == before
    assert result["lost"] == {}


@pytest.mark.thorough
def test_worker_class_of_the_app_drains_and_keeps_its_overrides(box: Fleet, gunicorn: Path) -> None:
    settings = {**COMMON, "forge_source": str(gunicorn), "forge_worker_class": "shop.worker.ShopWorker"}
    box.play("deploy", **settings)
    assert record(box)["drains"] is True
    assert box.get("box", "/healthz").headers["x-worker"] == "shop"
    with load(box.url("box", "")) as result:
        box.play("deploy", **settings, forge_keepalive=74)
        box.play("rollback", **settings)
    report("own worker class", result)
    assert result["total"] > 300
    assert result["lost"] == {}


def test_worker_class_that_is_not_there_is_refused(box: Fleet, gunicorn: Path) -> None:
    settings = {**COMMON, "forge_source": str(gunicorn), "forge_worker_class": "shop.worker.Missing"}
    before = box.live("box")
    run = box.play("deploy", check=False, **settings)
    assert run.rc != 0
    assert "forge_worker_class: shop.worker.Missing cannot be loaded: AttributeError" in run.said()
    assert box.live("box") == before


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("gunicorn-asgi", {"forge_server": "gunicorn-asgi"}),
        ("other server", {"forge_worker_class": "shop.worker.OtherServer"}),
    ],
)
def test_server_that_cannot_drain_is_tried_before_it_serves(
    box: Fleet, gunicorn: Path, name: str, choice: dict[str, str]
) -> None:
    """A bad one never serves; a good one serves, and the plan says what a release may lose."""
    settings = {**COMMON, "forge_source": str(gunicorn), **choice}
    box.play("deploy", **{**COMMON, "forge_source": str(gunicorn), "forge_keepalive": 70})
    before = box.live("box")
    with load(box.url("box", "")) as result:
        bad = {"forge_environment_plain": {"HEALTH": 503}, "forge_health_deadline": 4}
        run = box.play("deploy", check=False, **settings, **bad)
    assert run.rc != 0
    assert box.live("box") == before
    assert result["lost"] == {}, "the one that failed was never public"
    assert box.on("box", "systemctl list-units --plain --no-legend 'forge@*.service' | wc -l") == "1"

    run = box.play("deploy", **settings)
    assert "can neither stand by nor drain" in run.said()
    assert "no drain: a release may cut requests" in run.said()
    assert record(box)["drains"] is False
    with load(box.url("box", "")) as result:
        box.play("deploy", **settings, forge_keepalive=74)
        live = box.live("box")
        box.play("rollback", **settings)
    assert box.get("box", "/version").json()["generation"] == box.live("box") != live
    report(name, result)
    assert result["total"] > 300
    assert sum(result["lost"].values()) <= 40, "what was open on the old one's connections, and no more"
    status = box.play("status", **settings)
    assert status.rc == 0
    assert box.play("deploy", **settings).changed("box") == 0
