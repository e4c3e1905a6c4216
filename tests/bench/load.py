# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients of several kinds against one address, until told to stop; prints what was lost as JSON.

usage: load.py http[s]://HOST:PORT [--seconds N]   (stops at N seconds, or at the end of standard input)

A request is lost when it is refused, reset, closed without an answer, answered with 5xx, or timed out. Clients are
plain sockets that never retry, so that nothing is hidden. A closed connection between two requests is no loss: HTTP
allows it, and a client then connects again; but it counts as "reconnects". A websocket is lost when it ends with
another code than 1012, an event stream when it ends without its last chunk.

The kind thinking posts over a kept connection every 15 to 25 seconds. The kinds slow, sse and websocket need the routes
of routes.py in the app.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import ssl
import sys
import time
import uuid
from collections import Counter
from urllib.parse import urlsplit

import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed, WebSocketException

TIMEOUT = 30.0
SERVICE_RESTART = 1012
PAUSES = {"pausing": (1, 2), "thinking": (15, 25)}  # seconds between two requests


class Lost(Exception):
    """A request without a proper answer."""


class Connection:
    """One HTTP/1.1 connection."""

    def __init__(self, host: str, port: int, secure: bool = False, name: str = "") -> None:
        """:param name: by which the server knows what is asked for; its address when empty."""
        self.host, self.port, self.name = host, port, name or host
        self.context = ssl._create_unverified_context() if secure else None
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"", close: bool = False) -> tuple[int, bytes]:
        """Send a request and read its answer.

        :raises Lost: saying how it was lost.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                status, fields = await self.begin(method, path, body, close)
                content = await self.body(fields)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, ValueError) as error:
            raise Lost(how(error)) from None
        if close or fields.get("connection") == "close":
            self.drop()
        if status >= 500:
            raise Lost(f"status {status}")
        return status, content

    async def begin(self, method: str, path: str, body: bytes = b"", close: bool = False) -> tuple[int, dict[str, str]]:
        """Send a request and read the head of its answer."""
        if self.writer is None:
            try:
                names = {"ssl": self.context, "server_hostname": self.name} if self.context else {}
                self.reader, self.writer = await asyncio.open_connection(self.host, self.port, **names)
            except OSError as error:
                raise Lost(f"refused: {type(error).__name__}") from None
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.name}\r\nContent-Length: {len(body)}\r\n"
        head += "Content-Type: application/json\r\n" if body else ""
        head += "Connection: close\r\n\r\n" if close else "\r\n"
        self.writer.write(head.encode() + body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:] if ": " in line)

    async def body(self, fields: dict[str, str]) -> bytes:
        """The content of an answer whose head has been read."""
        if fields.get("transfer-encoding") == "chunked":
            parts = []
            while part := await self.chunk():
                parts.append(part)
            return b"".join(parts)
        return await self.reader.readexactly(int(fields.get("content-length", "0")))

    async def chunk(self) -> bytes:
        """The next chunk of an answer; empty for the last one."""
        size = int((await self.reader.readuntil(b"\r\n")), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    def closed_by_server(self) -> bool:
        return self.reader is not None and self.reader.at_eof()

    def drop(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def how(error: Exception) -> str:
    return "timed out" if isinstance(error, TimeoutError) else f"cut: {type(error).__name__}"


class Load:
    def __init__(
        self, url: str, pause: float = 0, name: str = "load", resumes: bool = False, authority: str = ""
    ) -> None:
        address = urlsplit(url)
        self.secure, self.authority = address.scheme == "https", authority
        self.host, self.port = str(address.hostname), int(address.port or (443 if self.secure else 80))
        self.pause, self.name, self.resumes = pause, name, resumes
        self.stopping = asyncio.Event()
        self.requests: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.reconnects = 0
        self.acknowledged: list[str] = []
        self.unsure: set[str] = set()
        self.samples: list[tuple[str, float, float]] = []  # kind, when it was answered, seconds

    async def client(self, kind: str) -> None:
        connection = Connection(self.host, self.port, self.secure, self.authority)
        ended_on = ""
        while not self.stopping.is_set():
            if connection.closed_by_server():
                self.reconnects += 1
                connection.drop()
            try:
                if kind in ("sse", "websocket"):
                    ended_on = await getattr(self, kind)(ended_on)
                else:
                    began = time.time()
                    await getattr(self, kind)(connection)
                    self.samples.append((kind, time.time(), time.time() - began))
            except Lost as loss:
                self.lost[f"{kind}: {loss}"] += 1
                connection.drop()
                ended_on = ""
                await asyncio.sleep(0.05)
            self.requests[kind] += 1
            if pause := random.uniform(*PAUSES[kind]) if kind in PAUSES else self.pause:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), pause)
        connection.drop()

    async def keepalive(self, connection: Connection) -> None:
        await connection.ask("GET", "/healthz")

    async def closing(self, connection: Connection) -> None:
        await connection.ask("GET", "/healthz", close=True)

    async def pausing(self, connection: Connection) -> None:
        await connection.ask("GET", "/version")

    async def thinking(self, connection: Connection) -> None:
        await self.post(connection)

    async def slow(self, connection: Connection) -> None:
        await connection.ask("GET", "/bench/slow")

    async def post(self, connection: Connection) -> None:
        serial = uuid.uuid4().hex
        self.unsure.add(serial)
        status, _content = await connection.ask(
            "POST", "/parts", json.dumps({"serial": serial, "name": self.name}).encode()
        )
        if status != 201:
            raise Lost(f"status {status}")
        self.unsure.remove(serial)
        self.acknowledged.append(serial)

    async def sse(self, ended_on: str) -> str:
        """Read an event stream to its end; which generation it was of."""
        connection, generation = Connection(self.host, self.port), ""
        try:
            async with asyncio.timeout(TIMEOUT):
                status, _fields = await connection.begin("GET", "/bench/events")
            if status != 200:
                raise Lost(f"status {status}")
            while not self.stopping.is_set():
                async with asyncio.timeout(TIMEOUT):
                    event = await connection.chunk()
                if not event:
                    self.ends["sse: end of stream"] += 1
                    return generation
                if not generation:
                    generation = event.decode().removeprefix("data: ").strip()
                    self.check_resumed(ended_on, generation)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, ValueError) as error:
            raise Lost(how(error)) from None
        finally:
            connection.drop()
        return generation

    async def websocket(self, ended_on: str) -> str:
        """Talk until the server closes; which generation it was of."""
        generation = ""
        try:
            async with (
                asyncio.timeout(None) as patience,
                websockets.asyncio.client.connect(f"ws://{self.host}:{self.port}/bench/echo") as talk,
            ):
                generation = str(await talk.recv())
                self.check_resumed(ended_on, generation)
                while not self.stopping.is_set():
                    patience.reschedule(asyncio.get_running_loop().time() + TIMEOUT)
                    await talk.send("hello")
                    await talk.recv()
                    await asyncio.sleep(0.5)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            if code != SERVICE_RESTART:
                raise Lost(f"closed with {code}") from None
            self.ends[f"websocket: {code}"] += 1
        except (TimeoutError, OSError, EOFError, WebSocketException) as error:
            raise Lost(f"refused: {type(error).__name__}" if not generation else how(error)) from None
        return generation

    def check_resumed(self, ended_on: str, generation: str) -> None:
        if self.resumes and ended_on == generation:
            raise Lost("resumed on the generation that had ended it")

    async def run(self, clients: dict[str, int], seconds: float) -> dict[str, object]:
        tasks = [asyncio.create_task(self.client(kind)) for kind, count in clients.items() for _ in range(count)]
        loop = asyncio.get_running_loop()
        if not sys.stdin.isatty():
            loop.run_in_executor(None, self.wait_for_end_of_input, loop)
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            self.stopping.set()
        await asyncio.gather(*tasks)
        ordered = sorted(seconds for kind, _when, seconds in self.samples if kind != "slow")
        return {
            "requests": dict(self.requests),
            "total": sum(self.requests.values()),
            "lost": dict(self.lost),
            "total_lost": sum(self.lost.values()),
            "ends": dict(self.ends),
            "reconnects": self.reconnects,
            "p50_ms": round(1000 * ordered[len(ordered) // 2], 1) if ordered else None,
            "p99_ms": round(1000 * ordered[int(len(ordered) * 0.99)], 1) if ordered else None,
            "acknowledged": self.acknowledged,
            "unsure": sorted(self.unsure),
        }

    def wait_for_end_of_input(self, loop: asyncio.AbstractEventLoop) -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(self.stopping.set)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", default="keepalive=6,closing=4,post=4,pausing=6")
    parser.add_argument("--pause", type=float, default=0, help="seconds that a client waits after each request")
    parser.add_argument("--name", default="load", help="name of the parts that are posted")
    parser.add_argument("--authority", default="", help="name of the host that is asked for; its address when absent")
    parser.add_argument("--resumes", action="store_true", help="a stream must go on at another generation")
    parser.add_argument("--samples", help="file for kind, time and seconds of each request")
    given = parser.parse_args()
    clients = {kind: int(count) for kind, count in (part.split("=") for part in given.clients.split(","))}

    async def run() -> None:
        load = Load(given.url, given.pause, given.name, given.resumes, given.authority)
        result = await load.run(clients, given.seconds)
        if given.samples:
            with open(given.samples, "w", encoding="ascii") as handle:
                handle.writelines(f"{kind} {when:.4f} {seconds:.5f}\n" for kind, when, seconds in load.samples)
        print(json.dumps(result), flush=True)

    asyncio.run(run())


if __name__ == "__main__":
    main()
