# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ASGI app for the tests of the worker: raw ASGI, so that it runs with any version and starts at once.

The file named by APP_FAULT, when it exists, says how the app is to fail: "import", "exit", "lifespan" or "hang".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from urllib.parse import parse_qs

GENERATION = os.environ.get("FORGE_WORKER_GENERATION", "none")
ready = False


def fault() -> str:
    path = Path(os.environ.get("APP_FAULT", "/nonexistent"))
    return path.read_text() if path.exists() else ""


def note(line: str) -> None:
    with open(os.environ["APP_LOG"], "a") as log:
        log.write(f"{line}\n")


if fault() == "exit":
    raise SystemExit(7)
if fault() == "import":
    raise ImportError("no module named as the test wants")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if not ready:
        raise RuntimeError("a request before the lifespan was complete")
    path = scope["path"].strip("/").replace("-", "_") or "hello"
    query = {name: float(values[0]) for name, values in parse_qs(scope["query_string"].decode()).items()}
    await globals()[f"serve_{path}"](scope, receive, send, **query)


async def lifespan(receive, send):
    global ready
    await receive()
    await asyncio.sleep(float(os.environ.get("APP_STARTUP", 0)))
    if fault() == "lifespan":
        await send({"type": "lifespan.startup.failed", "message": "the database is away"})
        return
    ready = True
    await send({"type": "lifespan.startup.complete"})
    await receive()
    note(f"lifespan-shutdown {os.getpid()}")
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send, body: bytes) -> None:
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


async def start(send, content_type: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})


async def serve_hello(scope, receive, send):
    await answer(send, f"{GENERATION} {os.getpid()}".encode())


async def serve_echo(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await answer(send, body)


async def serve_slow(scope, receive, send, seconds=2.0):
    await asyncio.sleep(seconds)
    await serve_hello(scope, receive, send)


async def serve_blocking(scope, receive, send, seconds=60.0):
    time.sleep(seconds)
    await serve_hello(scope, receive, send)


async def serve_background(scope, receive, send, seconds=1.0):
    await serve_hello(scope, receive, send)
    await asyncio.sleep(seconds)
    note("background-done")


async def serve_events(scope, receive, send):
    """Endless, and deaf: it learns that it is over only when it is cancelled."""
    await start(send, b"text/event-stream; charset=utf-8")
    for number in range(10**9):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await asyncio.sleep(0.05)


async def serve_starlette_events(scope, receive, send):
    from starlette.responses import StreamingResponse

    async def events():
        try:
            for number in range(10**9):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0.05)
        finally:
            note("events-closed")

    await StreamingResponse(events(), media_type="text/event-stream")(scope, receive, send)


async def serve_three_events(scope, receive, send):
    await start(send, b"text/event-stream")
    for number in range(3):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await asyncio.sleep(0.2)
    await send({"type": "http.response.body", "body": b""})


async def serve_download(scope, receive, send):
    await start(send, b"application/octet-stream")
    while True:
        await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
        await asyncio.sleep(0.05)


async def serve_ws(scope, receive, send, handshake=0.0):
    await receive()
    await asyncio.sleep(handshake)
    await send({"type": "websocket.accept"})
    code = None
    with contextlib.suppress(OSError):  # the end may also meet it while it sends
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message.get("text") or ""})
        code = message["code"]
    note("ws-told" if code in (1012, None) else f"ws-told {code}")


async def serve_ws_push(scope, receive, send):
    """Sends and never receives: it learns of the end from send()."""
    await receive()
    await send({"type": "websocket.accept"})
    try:
        for number in range(10**9):
            await send({"type": "websocket.send", "text": str(number)})
            await asyncio.sleep(0.05)
    except OSError:
        note("ws-told")
