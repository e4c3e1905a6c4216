# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restart keeps nobody waiting for idle connections; a release says what it ended; a proxy is believed on any socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from conftest import Fleet
from tiny import MAIN, PLAIN, load, write_project

# Besides: endless answers, and who asks.
STREAM = """
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await receive()
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"data: x\\n\\n", "more_body": True})
            await asyncio.sleep(0.1)
        return
    if scope["path"] == "/peer":
        body = f"{scope['scheme']} {scope['client'][0]}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        return await send({"type": "http.response.body", "body": body})
    if scope["method"] == "POST":"""
STUCK = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)\n"
SETTINGS: dict[str, Any] = {
    **PLAIN,
    "forge_app": "calm",
    "forge_listen": ["8000", "/run/calm.sock"],
    "forge_workers": 2,
    "forge_watch_seconds": 1,
    "forge_drain_seconds": 6,
    "forge_processes": {"stuck": {"command": "python -m shop.stuck", "stop_seconds": 2}},
}
CLIENTS = {"keepalive": 2, "closing": 2, "pausing": 4}
SILENCE = 4.5  # seconds, less than a drain; on a machine that is not busy about two


@pytest.fixture(scope="module")
def calm(box: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """An app of two workers on two kinds of socket; it is stopped afterwards."""
    main = MAIN.replace('\n    if scope["method"] == "POST":', STREAM)
    source = write_project(
        tmp_path_factory.mktemp("calm") / "shop", "gunicorn", "uvicorn-worker", main=main, stuck=STUCK
    )
    fleet = Fleet({**SETTINGS, "forge_source": str(source)}, lab_set=box.lab_set, without_database=True)
    fleet.on("box", "systemctl stop forge.socket forge.service 'forge@*' 2>/dev/null; true")
    fleet.play("site")
    yield fleet
    fleet.on("box", "systemctl disable --now calm.socket calm.service; systemctl stop 'calm@*' 'calm.*'; true")


def live(fleet: Fleet) -> str:
    return fleet.on("box", "basename $(readlink /srv/calm/current)")


def ask(client: socket.socket, path: str) -> None:
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.recv(65536).startswith(b"HTTP/1.1 200")


def read_to_the_end(client: socket.socket) -> None:
    while client.recv(65536):
        pass


@contextmanager
def connections(fleet: Fleet, path: str, count: int) -> Iterator[list[socket.socket]]:
    """Connections that have asked once: kept and idle afterwards, or in the midst of an answer."""
    address = fleet.address("box")
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((address, 8000), 10)) for _ in range(count)]
        for client in clients:
            ask(client, path)
        yield clients


@pytest.mark.parametrize(
    "command",
    [
        "systemctl restart calm",
        pytest.param("systemctl restart calm@{live}.service", marks=pytest.mark.thorough),
        "kill -KILL $(pgrep -P $(systemctl show -P MainPID calm@{live}.service))",
    ],
    ids=["restart", "restart as needrestart does", "all workers killed"],
)
def test_nobody_waits_for_idle_connections(calm: Fleet, command: str) -> None:
    streams = 1 if "restart calm@" in command else 0
    with (
        connections(calm, "/version", 8),
        connections(calm, "/stream", streams),
        load(calm.url("box", ""), **CLIENTS) as result,
    ):
        time.sleep(1)
        calm.on("box", command.format(live=live(calm)))
        time.sleep(4)
    assert result["total"] > 100
    assert result["silence"] < SILENCE
    if "KILL" not in command:
        assert result["lost"] == {}


@pytest.mark.thorough
def test_replaced_workers_keep_nobody_waiting(calm: Fleet) -> None:
    calm.play("deploy", forge_environment_plain={"GUNICORN_CMD_ARGS": "--max-requests 200"})
    booted = f"journalctl -u calm@{live(calm)} -o cat | grep -c 'Booting worker'"
    with connections(calm, "/version", 8), load(calm.url("box", ""), **CLIENTS) as result:
        calm.until(lambda: int(calm.on("box", booted)) >= 4, 60, "replacing both workers")
    assert result["lost"] == {}
    assert result["silence"] < 2  # another one accepts meanwhile


def test_a_release_says_what_it_ended(calm: Fleet) -> None:
    with connections(calm, "/stream", 2) as streams:
        run = calm.play("deploy", forge_environment_plain={"CALM": "another generation"})
        assert "2 streams, process stuck, killed after 2 s" in run.said()
        for stream in streams:
            with pytest.raises(ConnectionResetError):  # no end that looks complete
                read_to_the_end(stream)


def test_a_proxy_is_believed_on_both_kinds_of_socket(calm: Fleet) -> None:
    headers = "-H 'X-Forwarded-Proto: https' -H 'X-Forwarded-For: 192.0.2.9'"
    for how in ("http://127.0.0.1:8000/peer", "--unix-socket /run/calm.sock http://x/peer"):
        assert calm.on("box", f"curl -s {headers} {how}") == "https 192.0.2.9"


def test_a_stopped_app_has_no_open_socket(calm: Fleet) -> None:
    calm.on("box", "systemctl stop calm")
    # Told to stop with the app, neither it nor the workers, which have it too, are waited for.
    units = "systemctl is-active calm.socket 'calm@*' || true"
    calm.until(lambda: set(calm.on("box", units).split()) == {"inactive"}, 15)
    with pytest.raises(httpx.ConnectError):
        calm.get("box", "/version")
    calm.on("box", "systemctl start calm")
    assert calm.until(lambda: calm.get("box", "/version").json()["generation"]) == live(calm)
