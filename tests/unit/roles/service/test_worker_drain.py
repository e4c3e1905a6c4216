# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker that stops does with what it has accepted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from worker_harness import LOOPS, ONE_PROCESS, OWN, PYTHON, Client, Cut, eventually, on_both_loops

FORGE = "forge_worker.ForgeWorker"


def can_import(module: str) -> bool:
    return subprocess.run([PYTHON, "-W", "ignore", "-c", f"import {module}"], capture_output=True).returncode == 0


def stop(generation) -> None:
    generation.stop()
    eventually(lambda: set(generation.state.values()) == {"draining"})


async def opened(site, *paths: str) -> list[Client]:
    """Connections that are accepted, with their requests on the way."""
    clients = [await Client(site.address).connect() for _ in paths]
    for client, path in zip(clients, paths, strict=True):
        if path:
            await client.send(path)
    await asyncio.sleep(0.3)
    return clients


def test_the_stock_worker_cuts_them(site):
    """The harness notices what this worker is for."""
    generation = site.generation("only", worker="forge_worker_variants.Stock")

    async def scenario():
        eventually(lambda: "startup complete" in generation.said)
        idle, unread = await opened(site, "/", "")
        await idle.answer()
        generation.stop()
        generation.ended()
        for client in idle, unread:
            with pytest.raises((Cut, OSError)):
                await client.get()

    asyncio.run(scenario())


@pytest.mark.parametrize("worker", [*LOOPS, *ONE_PROCESS, OWN])
def test_what_was_accepted_is_answered(site, worker):
    generation = site.live("only", worker=worker, drain=20)
    site.switch_to("later")  # else what is idle is closed after GRACE, which a slow machine needs for the rest

    async def scenario():
        paths = "/", "", "/slow?seconds=1", "/background", "", ""
        idle, unread, slow, background, pipelined, upload = await opened(site, *paths)
        assert not (await idle.answer()).closes
        assert not (await background.answer()).closes
        await background.close()
        requests = [f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n" for path in ("/slow?seconds=1", "/", "/")]
        pipelined.writer.write("".join(requests).encode())
        upload.writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nfirst")
        await asyncio.sleep(0.1)
        stop(generation)
        for client in idle, unread:
            answer = await client.get("/echo", b"body")
            assert (answer.status, answer.body, answer.closes) == (200, b"body", True)
        upload.writer.write(b"later")
        assert (await upload.answer()).body == b"firstlater"
        assert (await slow.answer()).closes
        assert [(await pipelined.answer()).closes for _ in requests] == [False, False, True]

    asyncio.run(scenario())
    assert generation.ended(within=5) == 0  # long before its deadline
    assert "background-done" in site.said()


@pytest.mark.heavy
@pytest.mark.parametrize("how", ["end", "cut"])
def test_what_is_long_lived_ends_at_the_deadline(two_sites, how):
    """Under a heartbeat that is shorter than the drain: the arbiter must not kill a worker that drains.

    It looks at heartbeats only while it is not stopping itself, so the worker gets the signal, as when it is replaced.
    """

    async def until_the_end(client: Client, began: float):
        return await client.until_the_end(), time.monotonic() - began

    async def scenario(site, worker: str):
        streams = {"FORGE_WORKER_STREAMS": how}
        generation = await asyncio.to_thread(site.live, "only", worker=worker, drain=4, timeout=3, environment=streams)
        site.switch_to("later")
        (pid,) = generation.pids()
        paths = "/events", "/starlette-events", "/three-events", "/download", "/"
        clients = await opened(site, *paths)
        *streams, idle = clients
        assert not (await idle.answer()).closes
        os.kill(pid, signal.SIGTERM)
        began = time.monotonic()
        endings = await asyncio.gather(*(until_the_end(client, began) for client in streams))
        endings = dict(zip(paths[:-1], endings, strict=True))
        assert endings["/three-events"][0] == "complete"
        assert endings["/three-events"][1] < 2
        for path in "/events", "/starlette-events":
            assert endings[path][0] == {"end": "complete", "cut": "cut"}[how], endings
            assert (2.5 if how == "end" else 3.5) < endings[path][1] < 5
        assert endings["/download"][0] == "cut"
        assert 3.5 < endings["/download"][1] < 5
        assert await idle.reader.read() == b""
        await asyncio.to_thread(eventually, lambda: "lifespan-shutdown" in site.said(), 4)
        await asyncio.to_thread(eventually, lambda: "events-closed" in site.said(), 4)
        assert generation.ended_meanwhile() == {"stream": 3}
        assert "WORKER TIMEOUT" not in generation.said
        assert "Traceback" not in generation.said

    on_both_loops(two_sites, scenario)


@pytest.mark.heavy
def test_an_answer_under_way_may_take_longer_than_an_idle_connection(two_sites):
    async def scenario(site, worker: str):
        finish = {"environment": {"FORGE_WORKER_FINISH": "6"}, "graceful_timeout": 11}
        generation = await asyncio.to_thread(site.live, "only", worker=worker, drain=1, **finish)
        site.switch_to("later")
        idle, slow, deaf = await opened(site, "/", "/slow?seconds=3", "/events")
        await idle.answer()
        await asyncio.to_thread(stop, generation)
        began = time.monotonic()
        assert await idle.reader.read() == b""
        assert 0.8 < time.monotonic() - began < 2
        assert (await slow.answer()).status == 200
        assert await deaf.until_the_end() == "cut"
        assert 5 < time.monotonic() - began < 7.5
        await asyncio.to_thread(generation.ended)
        assert generation.ended_meanwhile() == {"stream": 1}

    on_both_loops(two_sites, scenario)


@pytest.mark.heavy
def test_what_is_cut_looks_so_to_old_clients_too(two_sites):
    """To one that asks with HTTP/1.0, as nginx does, the end of the connection is the end of the answer."""

    async def scenario(site, worker: str):
        generation = await asyncio.to_thread(site.live, "only", worker=worker, drain=1)
        (client,) = await opened(site, "")
        client.writer.write(b"GET /events HTTP/1.0\r\nhost: x\r\n\r\n")
        await client.reader.readuntil(b"data: 1")
        generation.stop()
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
        await asyncio.to_thread(generation.ended)
        assert generation.ended_meanwhile() == {"stream": 1}

    on_both_loops(two_sites, scenario)


def test_what_was_not_waited_for_is_counted_by_kind(site):
    generation = site.live("only", drain=1)
    site.switch_to("later")

    async def scenario():
        slow, background, _idle = await opened(site, "/slow?seconds=9", "/background?seconds=9", "/")
        async with connect("ws://{}:{}/ws".format(*site.address)):
            await background.answer()
            generation.stop()
            assert await slow.until_the_end() == "cut"

    asyncio.run(scenario())
    generation.ended()
    assert generation.ended_meanwhile() == {"websocket": 1, "request": 1, "background task": 1}
    assert "x websocket" in generation.said


@pytest.mark.parametrize("worker", [*LOOPS, *ONE_PROCESS])
def test_idle_connections_do_not_keep_the_door_shut_when_nobody_else_accepts(site, worker):
    generation = site.live("only", worker=worker, workers=1, drain=20)

    async def scenario():
        idle, unused, late = await opened(site, "/", "", "")
        await idle.answer()
        stop(generation)
        began = time.monotonic()
        await asyncio.sleep(0.2)
        assert (await late.get()).closes  # its request was on the way
        assert await idle.reader.read() == await unused.reader.read() == b""
        return time.monotonic() - began

    assert 0.3 < asyncio.run(scenario()) < 2
    assert generation.ended(within=3) == 0
    assert generation.ended_meanwhile() == {}


@pytest.mark.parametrize("worker", [FORGE, "uvicorn"])
def test_others_are_served_while_an_answer_is_under_way_when_nobody_else_accepts(site, worker):
    generation = site.live("only", worker=worker, drain=20)

    async def scenario():
        (slow,) = await opened(site, "/slow?seconds=2")
        stop(generation)
        ending = asyncio.ensure_future(slow.answer())
        longest = 0.0
        while not ending.done():
            began = time.monotonic()
            assert (await Client(site.address).get()).closes
            longest = max(longest, time.monotonic() - began)
            await asyncio.sleep(0.05)
        assert (await ending).closes
        return longest

    assert asyncio.run(scenario()) < 1
    assert generation.ended(within=3) == 0


WEBSOCKETS = {
    FORGE: "websockets",
    "forge_worker_variants.LegacyWebsockets": "uvicorn.protocols.websockets.websockets_impl",
    "forge_worker_variants.Wsproto": "uvicorn.protocols.websockets.wsproto_impl",
    "forge_worker_variants.Asyncio": "websockets",
}


@pytest.mark.parametrize("worker", WEBSOCKETS)
def test_websockets_are_told_to_come_again(site, worker):
    if not can_import(WEBSOCKETS[worker]):
        pytest.skip(f"no {WEBSOCKETS[worker]}")
    generation = site.live("only", worker=worker)
    url = "ws://{}:{}".format(*site.address)

    async def code_of(websocket, chatting: bool = False) -> int | None:
        try:
            while True:
                if chatting:
                    await websocket.send("hello")
                await websocket.recv()
        except ConnectionClosed as closed:
            return closed.rcvd and closed.rcvd.code

    async def scenario():
        quiet, chatty, pushed = [await connect(f"{url}{path}") for path in ("/ws", "/ws", "/ws-push")]
        late = asyncio.ensure_future(connect(f"{url}/ws?handshake=0.6").__aenter__())
        codes = [asyncio.ensure_future(code_of(*of)) for of in ((quiet,), (chatty, True), (pushed,))]
        await asyncio.sleep(0.3)
        stop(generation)
        ended = asyncio.gather(*codes, code_of(await late))
        assert await asyncio.wait_for(ended, 3) == [1012] * 4  # at once: the deadline is 5 s

    asyncio.run(asyncio.wait_for(scenario(), 15))
    assert generation.ended(within=4) == 0
    assert [line for line in site.said().splitlines() if line.startswith("ws-")] == ["ws-told"] * 4
    assert "Traceback" not in generation.said


def test_second_sigterm_does_not_shorten_the_drain_and_sigquit_does(site):
    generation = site.live("only", drain=20)
    (worker,) = generation.pids()
    site.switch_to("later")

    async def scenario():
        idle, unread = await opened(site, "/", "")
        await idle.answer()
        for _ in range(3):
            os.kill(worker, signal.SIGTERM)
            await asyncio.sleep(0.2)
        assert (await idle.get()).closes
        os.kill(worker, signal.SIGQUIT)
        assert await asyncio.wait_for(unread.reader.read(), 3) == b""

    asyncio.run(scenario())
    eventually(lambda: f"lifespan-shutdown {worker}" in site.said())


def test_worker_that_is_stuck_shows_where_and_is_replaced(site):
    generation = site.live("only", timeout=2)
    (worker,) = generation.pids()

    async def scenario():
        (stuck,) = await opened(site, "/blocking")
        with pytest.raises(Cut):
            await asyncio.wait_for(stuck.answer(), 10)

    asyncio.run(scenario())
    eventually(lambda: generation.state and worker not in generation.state)
    assert "WORKER TIMEOUT" in generation.said
    assert "in serve_blocking" in generation.said


def test_worker_that_is_told_to_stop_right_after_its_fork_stops(site):
    """Else the master waits for it until graceful_timeout, and kills it."""
    generation = site.generation("new", worker="forge_worker_variants.LateSignals", workers=2, drain=10)
    eventually(generation.pids)
    began = time.monotonic()
    generation.stop()
    generation.ended()
    assert time.monotonic() - began < 5


def test_an_own_class_is_aborted_in_its_own_way(site):
    generation = site.live("only", worker=OWN, timeout=2)
    (worker,) = generation.pids()

    async def scenario():
        (stuck,) = await opened(site, "/blocking")
        with pytest.raises(Cut):
            await asyncio.wait_for(stuck.answer(), 10)

    asyncio.run(scenario())
    eventually(lambda: generation.state and worker not in generation.state)
    assert "aborted in its own way" in generation.said


def test_an_own_class_keeps_its_settings(site):
    generation = site.live("only", worker=OWN)
    assert "server:" not in generation.private().lower()
