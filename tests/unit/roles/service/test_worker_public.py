# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What balancers are told at the public socket, and a maintenance; the private one has neither."""

from __future__ import annotations

import socket
import time

import pytest
from worker_harness import LOOPS, eventually

SETTINGS = {
    "FORGE_WORKER_READY": "/-/ready",
    "FORGE_WORKER_HEALTH": "/healthz",
    "FORGE_WORKER_RETRY_AFTER": "77",
    "FORGE_WORKER_SIGNS": "yes",
}


def ask(address, path: str, method: str = "GET", more: str = "") -> str:
    with socket.create_connection(address, 5) as client:
        client.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def status(address, path: str, **options) -> int:
    return int(ask(address, path, **options).split()[1])


@pytest.mark.parametrize("worker", [*LOOPS, "uvicorn"])
def test_balancers_learn_that_a_host_is_drained_and_others_notice_nothing(site, worker):
    live = site.live("now", worker=worker, environment=SETTINGS)
    assert status(site.address, "/-/ready") == 200
    (site.directory / "drain").touch()
    eventually(lambda: status(site.address, "/-/ready") == 503, 2)
    assert status(site.address, "/") == 200
    under_way = eventually(lambda: list(live.states.glob("under-way-*")))
    assert set(live.state.values()) == {"public"}
    with socket.create_connection(site.address, 5) as slow:
        slow.sendall(b"GET /slow?seconds=2 HTTP/1.1\r\nhost: x\r\n\r\n")
        eventually(lambda: under_way[0].read_text() == "1", 2)
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")
    eventually(lambda: under_way[0].read_text() == "0", 2)
    (site.directory / "drain").unlink()
    eventually(lambda: status(site.address, "/-/ready") == 200, 2)
    assert list(live.states.glob("under-way-*")) == []


def test_release_keeps_the_flag(site):
    (site.directory / "drain").touch()
    site.live("old", environment=SETTINGS)
    site.live("new", environment=SETTINGS)
    assert {status(site.address, "/-/ready") for _ in range(10)} == {503}


@pytest.mark.parametrize("worker", [*LOOPS, "uvicorn"])
def test_maintenance_is_a_page_and_health_is_answered(site, worker):
    live = site.live("now", worker=worker, environment=SETTINGS)
    (site.directory / "maintenance").write_text("<p>Soon.")
    eventually(lambda: status(site.address, "/") == 503, 2)
    shown = ask(site.address, "/", "POST", "content-length: 0\r\n")
    assert "retry-after: 77\r\n" in shown
    assert shown.endswith("<p>Soon.")
    assert status(site.address, "/-/ready") == 200
    assert "Soon" not in ask(site.address, "/healthz")
    assert "200 OK" in live.private(), "a release is tried in a maintenance"
    upgrade = "upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
    refused = ask(site.address, "/websocket", more=upgrade.replace("upgrade: w", "connection: upgrade\r\nupgrade: w"))
    assert " 403 " in refused.splitlines()[0] or " 503 " in refused.splitlines()[0]
    (site.directory / "maintenance").write_text("<p>Later.")
    eventually(lambda: ask(site.address, "/").endswith("<p>Later."), 2)
    (site.directory / "maintenance").unlink()
    eventually(lambda: status(site.address, "/") == 200, 2)


def test_answers_say_their_generation_where_an_edge_reads_it(site):
    site.live("now", environment=SETTINGS)
    assert "\r\nx-forge-generation: now\r\n" in ask(site.address, "/")
    site.live("quiet", environment={"FORGE_WORKER_READY": "/-/ready"})
    site.generations[0].kill()
    time.sleep(0.2)
    assert "x-forge-generation" not in ask(site.address, "/")
