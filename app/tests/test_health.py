"""Health, readiness and version, with the database there, away and at other schemas."""

import os
import time
from collections.abc import Callable

import pytest
from cluster import Cluster, Server
from fastapi.testclient import TestClient

AWAY = {"status": "unavailable", "reason": "The database does not answer."}


def test_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "schema": ["0001"]})


def test_version(no_database: None, new_client: Callable[[], TestClient], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_RELEASE", "r7")
    monkeypatch.setenv("FORGE_GENERATION", "r7-e2")
    answer = new_client().get("/version").json()
    assert answer == {"release": "r7", "generation": "r7-e2", "pid": os.getpid()}


@pytest.mark.parametrize("debug", [False, True])
def test_documentation_is_for_debugging(
    no_database: None, new_client: Callable[[], TestClient], monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    monkeypatch.setenv("FORGE_DEBUG", str(debug))
    client = new_client()
    assert [client.get(path).status_code for path in ("/docs", "/openapi.json")] == [200 if debug else 404] * 2


def test_no_schema(empty_database: str, new_client: Callable[[], TestClient]) -> None:
    with new_client() as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["reason"] == "The schema is empty; this release needs 0001."
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(("applied", "status"), [("0000", 503), ("0002", 200), ("0001", 200)])
def test_schema_behind_and_ahead(client: TestClient, server: Server, database: str, applied: str, status: int) -> None:
    """Ahead is ready: migrations run before the old code is replaced."""
    from thecodeforge.schema import Schema

    known = Schema(frozenset({"0000", "0001"}), frozenset({"0001"}))
    client.app.state.schema = known  # type: ignore[attr-defined]
    server.execute(f"UPDATE alembic_version SET version_num = '{applied}'", database)
    answer = client.get("/readyz")
    assert answer.status_code == status
    if status == 503:
        assert answer.json()["reason"] == "The schema is 0000; this release needs 0001."


def test_database_stops_and_returns(cluster: Cluster, client: TestClient, capfd: pytest.CaptureFixture[str]) -> None:
    part = {"serial": "before", "name": "n"}
    assert client.post("/parts", json=part).status_code == 201
    cluster.stop()
    for _ in range(3):
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, AWAY)
        answers = [client.get("/parts"), client.post("/parts", json=part), client.get("/parts/1")]
        assert [answer.status_code for answer in answers] == [503] * 3
        assert answers[0].json() == {"detail": "The database does not answer."}
        assert answers[0].headers["retry-after"] == "1"
    cluster.start()
    assert client.post("/parts", json=part).status_code == 409
    assert client.get("/readyz").status_code == 200


def test_restart_between_requests_is_not_seen(cluster: Cluster, client: TestClient) -> None:
    assert client.get("/parts").status_code == 200
    cluster.stop()
    cluster.start()
    assert client.get("/parts").status_code == 200


def test_starts_while_the_database_is_away(
    cluster: Cluster, database: str, new_client: Callable[[], TestClient]
) -> None:
    cluster.stop()
    with new_client() as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json() == AWAY
        cluster.start()
        assert client.get("/readyz").status_code == 200


def test_a_frozen_database_does_not_hold_readiness(
    cluster: Cluster, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thecodeforge.health.READY_SECONDS", 0.5)
    assert client.get("/readyz").status_code == 200
    cluster.freeze()
    for _ in range(2):  # with a connection that was open, and with a new one
        began = time.monotonic()
        assert client.get("/readyz").json() == AWAY
        assert time.monotonic() - began < 2
        assert client.get("/healthz").status_code == 200
    cluster.thaw()
    assert client.get("/readyz").status_code == 200


def test_wrong_password_is_not_shown(
    database: str,
    new_client: Callable[[], TestClient],
    monkeypatch: pytest.MonkeyPatch,
    server: Server,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORGE_DATABASE_URL", server.url(database).replace("forge:", "forge:hunter2", 1))
    with new_client() as client:
        answer = client.get("/readyz")
    assert answer.json() == AWAY
    log = "".join(capfd.readouterr())
    assert '"database away"' in log
    assert "hunter2" not in log
