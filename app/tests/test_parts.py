"""The resource: writes, reads, paging, validation, conflicts."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cluster import Server
from fastapi.testclient import TestClient

PART = {"serial": "A-1", "name": "Bolt ☃", "quantity": 3}


def test_create_read_delete(client: TestClient) -> None:
    created = client.post("/parts", json=PART)
    assert created.status_code == 201
    part = created.json()
    assert {name: part[name] for name in PART} == PART
    assert created.headers["location"] == f"/parts/{part['id']}"
    assert client.get(created.headers["location"]).json() == part
    assert client.delete(created.headers["location"]).status_code == 204
    assert client.delete(created.headers["location"]).status_code == 404
    assert client.get(created.headers["location"]).status_code == 404


def test_a_serial_number_exists_once(client: TestClient, server: Server, database: str) -> None:
    assert client.post("/parts", json=PART).status_code == 201
    again = client.post("/parts", json={**PART, "name": "Other"})
    assert (again.status_code, again.json()) == (409, {"detail": "A part with this serial number exists."})
    assert server.execute("SELECT serial, name FROM parts", database) == [("A-1", "Bolt ☃")]


def test_concurrent_writes_of_one_serial_number(client: TestClient, server: Server, database: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: client.post("/parts", json=PART).status_code, range(24)))
    assert sorted(codes) == [201] + [409] * 23
    assert server.execute("SELECT count(*) FROM parts", database) == [(1,)]


def test_paging(client: TestClient) -> None:
    serials = [f"s{number}" for number in range(7)]
    for serial in serials:
        client.post("/parts", json={"serial": serial, "name": "n"})
    pages, query = [], {"limit": "3"}
    while True:
        page = client.get("/parts", params=query).json()
        pages.append([part["serial"] for part in page["items"]])
        if page["next"] is None:
            break
        query["after"] = page["next"]
        # Neither a new part nor one that is gone moves what comes next.
        client.delete(f"/parts/{page['items'][-1]['id']}")
    assert pages == [serials[:3], serials[3:6], serials[6:]]


def test_last_page_is_full(client: TestClient) -> None:
    for serial in ("a", "b"):
        client.post("/parts", json={"serial": serial, "name": "n"})
    page = client.get("/parts?limit=2").json()
    assert (len(page["items"]), page["next"]) == (2, None)
    assert client.get("/parts?limit=1").json()["next"] is not None


def test_no_parts(client: TestClient) -> None:
    assert client.get("/parts").json() == {"items": [], "next": None}


def test_a_cursor_is_good_with_the_same_key_only(
    client: TestClient, new_client: Callable[[], TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    for serial in ("a", "b"):
        client.post("/parts", json={"serial": serial, "name": "n"})
    query = {"after": client.get("/parts?limit=1").json()["next"]}
    with new_client() as other_process:
        assert [part["serial"] for part in other_process.get("/parts", params=query).json()["items"]] == ["b"]
    monkeypatch.setenv("FORGE_SECRET_KEY", "another" * 8)
    with new_client() as other_key:
        answer = other_key.get("/parts", params=query)
    assert (answer.status_code, answer.json()) == (422, {"detail": "after is not a cursor of this service."})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"serial": ""}, "serial"),
        ({"serial": "with space"}, "serial"),
        ({"serial": "line\n"}, "serial"),
        ({"serial": "x" * 65}, "serial"),
        ({"serial": None}, "serial"),
        ({"serial": "\ud800"}, "serial"),
        ({"name": ""}, "name"),
        ({"name": "nul\x00"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"quantity": -1}, "quantity"),
        ({"quantity": 2**31}, "quantity"),
        ({"quantity": float("nan")}, "quantity"),
        ({"quantity": "many"}, "quantity"),
    ],
)
def test_invalid_parts(client_without_database: TestClient, change: dict[str, Any], field: str) -> None:
    body = json.dumps({**PART, **change})  # also what httpx would not send
    answer = client_without_database.post("/parts", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    [problem] = answer.json()["detail"]
    assert problem["loc"] == ["body", field]
    assert set(problem) == {"loc", "msg", "type"}


@pytest.mark.parametrize(
    "path",
    [
        "/parts/0",
        "/parts/x",
        f"/parts/{2**63}",
        "/parts?limit=0",
        "/parts?limit=501",
        "/parts?after=1",
        "/parts?after=" + "A" * 32,
        "/parts?after=" + "%C3%A4" * 32,
    ],
)
def test_invalid_reads(client_without_database: TestClient, path: str) -> None:
    assert client_without_database.get(path).status_code == 422


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "\ufeff{}"])
def test_invalid_bodies(client_without_database: TestClient, body: str) -> None:
    answer = client_without_database.post("/parts", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422


def test_limits_are_accepted(client: TestClient) -> None:
    part = {"serial": "x" * 64, "name": "é" * 200, "quantity": 2**31 - 1}
    assert client.post("/parts", json=part).status_code == 201
    assert client.get(f"/parts/{2**63 - 1}").status_code == 404
