"""Clients of several kinds against one address, until told to stop; prints what was lost as JSON.

usage: load.py http://HOST:PORT [--seconds N]   (stops at N seconds, or at the end of standard input)

A request is lost when it is refused, reset, closed without an answer, answered with 5xx, or timed out. Clients are
plain sockets that never retry, so that nothing is hidden. A closed connection between two requests is no loss: HTTP
allows it, and a client then connects again; but it counts as "reconnects".
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from urllib.parse import urlsplit

TIMEOUT = 30.0


class Lost(Exception):
    """A request without a proper answer."""


class Connection:
    """One HTTP/1.1 connection."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"", close: bool = False) -> tuple[int, bytes]:
        """Send a request and read its answer.

        :raises Lost: saying how it was lost.
        """
        if self.writer is None:
            try:
                self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
            except OSError as error:
                raise Lost(f"refused: {error}") from None
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(body)}\r\n"
        head += "Content-Type: application/json\r\n" if body else ""
        head += "Connection: close\r\n\r\n" if close else "\r\n"
        try:
            self.writer.write(head.encode() + body)
            status, length, closes = await asyncio.wait_for(self.head(), TIMEOUT)
            content = await asyncio.wait_for(self.reader.readexactly(length), TIMEOUT)
        except TimeoutError:
            raise Lost("timed out") from None
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            raise Lost(f"cut: {type(error).__name__}") from None
        if closes or close:
            self.drop()
        if status >= 500:
            raise Lost(f"status {status}")
        return status, content

    async def head(self) -> tuple[int, int, bool]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        return int(lines[0].split()[1]), int(fields.get("content-length", "0")), fields.get("connection") == "close"

    def closed_by_server(self) -> bool:
        return self.reader is not None and self.reader.at_eof()

    def drop(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Load:
    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.host, self.port = str(address.hostname), int(address.port or 80)
        self.stopping = asyncio.Event()
        self.requests: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.reconnects = 0
        self.acknowledged: list[str] = []
        self.unsure: list[str] = []
        self.latencies: list[tuple[float, float]] = []

    async def client(self, kind: str) -> None:
        connection = Connection(self.host, self.port)
        while not self.stopping.is_set():
            if connection.closed_by_server():
                self.reconnects += 1
                connection.drop()
            began = time.time()
            try:
                await getattr(self, kind)(connection)
                self.requests[kind] += 1
                self.latencies.append((began, time.time() - began))
            except Lost as loss:
                self.requests[kind] += 1
                self.lost[f"{kind}: {loss}"] += 1
                connection.drop()
                await asyncio.sleep(0.05)
        connection.drop()

    async def keepalive(self, connection: Connection) -> None:
        await connection.ask("GET", "/healthz")

    async def closing(self, connection: Connection) -> None:
        await connection.ask("GET", "/healthz", close=True)

    async def pausing(self, connection: Connection) -> None:
        await connection.ask("GET", "/version")
        await asyncio.sleep(1.5)

    async def post(self, connection: Connection) -> None:
        serial = uuid.uuid4().hex
        self.unsure.append(serial)
        status, _content = await connection.ask(
            "POST", "/parts", json.dumps({"serial": serial, "name": "load"}).encode()
        )
        if status != 201:
            raise Lost(f"status {status}")
        self.unsure.remove(serial)
        self.acknowledged.append(serial)

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
        ordered = sorted(latency for _began, latency in self.latencies)
        return {
            "requests": dict(self.requests),
            "total": sum(self.requests.values()),
            "lost": dict(self.lost),
            "total_lost": sum(self.lost.values()),
            "reconnects": self.reconnects,
            "p50_ms": round(1000 * ordered[len(ordered) // 2], 1) if ordered else None,
            "p99_ms": round(1000 * ordered[int(len(ordered) * 0.99)], 1) if ordered else None,
            "acknowledged": self.acknowledged,
            "unsure": self.unsure,
        }

    def wait_for_end_of_input(self, loop: asyncio.AbstractEventLoop) -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(self.stopping.set)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", default="keepalive=6,closing=4,post=4,pausing=6")
    given = parser.parse_args()
    clients = {kind: int(count) for kind, count in (part.split("=") for part in given.clients.split(","))}

    async def run() -> None:
        print(json.dumps(await Load(given.url).run(clients, given.seconds)), flush=True)

    asyncio.run(run())


if __name__ == "__main__":
    main()
