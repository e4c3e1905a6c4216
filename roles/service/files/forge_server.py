# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uvicorn that stands by until its generation is live, and drains before it stops.

Two generations of a service hold the same public socket, which systemd owns. The new one must not accept from
it before it has been checked; the old one must answer whatever it has accepted, and serve again at once when the new one
turns out sick. ForgeServer says how. Under
Gunicorn a worker runs it (forge_worker.py); by itself it is one process: `python -m forge_server SETTINGS.json TARGET`.

Environment, all optional; without it this is Uvicorn with a drain:
  FORGE_WORKER_CURRENT     symbolic link to the live generation
  FORGE_WORKER_GENERATION  name of this generation: live when the link points at it
  FORGE_WORKER_STATE       directory where a file named by the process's pid says standby, public or draining; a file
                           named "stand-by" there tells a live generation to stand by again
  FORGE_WORKER_DRAIN       seconds a drain may take (20)
  LISTEN_FDNAMES           set by systemd: sockets named "public" wait for the generation to be live
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import socket
import sys
import weakref
from pathlib import Path

from uvicorn.config import Config
from uvicorn.server import Server

try:
    from uvicorn.protocols.utils import ClientDisconnected
except ImportError:  # before Uvicorn 0.27

    class ClientDisconnected(OSError): ...


POLL = 0.05  # seconds between two looks at the link, or at what a drain still waits for
FLUSH = 1.0  # event streams end this long before the drain does, so that their end reaches the clients
SHUTDOWN = 2  # seconds for Uvicorn's own shutdown, after the drain
FIRST_SOCKET = 3  # sd_listen_fds(3)
# What plugins/module_utils/_private reads and writes: layout.py and serving.py.
STANDBY_REQUEST = "stand-by"
STANDBY, PUBLIC, DRAINING = "standby", "public", "draining"

CONNECTION_CLOSE = (b"connection", b"close")
END_OF_STREAM = {"type": "http.response.body", "body": b"", "more_body": False}
SERVICE_RESTART = {"type": "websocket.close", "code": 1012, "reason": "service restart"}


def is_live(default: bool) -> bool:
    """Whether the link points at this generation; `default` where the environment names no link."""
    link = os.environ.get("FORGE_WORKER_CURRENT")
    if not link:
        return default
    try:
        return os.path.basename(os.readlink(link).rstrip("/")) == os.environ.get("FORGE_WORKER_GENERATION")
    except OSError:
        return False


def split_sockets(sockets: list) -> tuple[list, list]:
    """The immediate and the public ones, by systemd's names. Without names all are immediate, as Uvicorn has them."""
    if "LISTEN_FDNAMES" not in os.environ:
        return sockets, []
    names = os.environ["LISTEN_FDNAMES"].split(":")
    if len(names) != len(sockets):
        raise RuntimeError(f"LISTEN_FDNAMES has {len(names)} names for {len(sockets)} sockets")
    immediate = [sock for name, sock in zip(names, sockets) if name != "public"]
    return immediate, [sock for name, sock in zip(names, sockets) if name == "public"]


def parent_of(pid: str) -> int | None:
    try:
        return int(Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def is_newest_request(connection, scope: dict) -> bool:
    """Whether no pipelined one waits on its connection, which "Connection: close" would leave without an answer.

    httptools parses ahead: a connection's scope is that of its newest request. h11 keeps the bytes.
    """
    if getattr(connection, "scope", None) is not scope:
        return False
    return not (hasattr(connection, "conn") and connection.conn.trailing_data[0])


class StateFile:
    """Says in one word what this worker does, for the rollout to read. A worker keeps serving without it."""

    def __init__(self, directory: str | None, log: logging.Logger) -> None:
        self.path = Path(directory, str(os.getpid())) if directory else None
        self.request = Path(directory, STANDBY_REQUEST) if directory else None
        self.log = log

    def requests_standby(self) -> bool:
        return self.request is not None and self.request.exists()

    def write(self, state: str) -> None:
        if self.path:
            draft = self.path.with_name(f".{self.path.name}")
            try:
                draft.write_text(state)
                draft.replace(self.path)
            except OSError as error:
                self.log.warning("Cannot write that this worker is %s: %s", state, error)

    def remove(self) -> None:
        if self.path:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def remove_stale(self, master: int) -> None:
        """Files of killed workers. A pid may be in use again, but then not by another worker of our master."""
        self.remove()
        for path in self.path.parent.glob("[0-9]*") if self.path else ():
            if path.name.isdigit() and parent_of(path.name) != master:
                with contextlib.suppress(OSError):
                    path.unlink()


class LongLivedResponse:
    """An event stream or an open websocket. It would outlast a drain, which therefore ends it in the app's place."""

    def __init__(self, send, final_message: dict, registry: weakref.WeakSet) -> None:
        self._send, self.final_message, self.registry = send, final_message, registry
        self.ending = None

    async def begin(self, message: dict) -> None:
        await self._send(message)
        self.registry.add(self)

    async def send(self, message: dict) -> None:
        """After the end as Uvicorn does it when the client is gone: silence, or an OSError for a websocket."""
        if self.ending is None:
            if message["type"] == "websocket.close" or (
                message["type"] == "http.response.body" and not message.get("more_body")
            ):
                self.registry.discard(self)
            await self._send(message)
        elif self.final_message is SERVICE_RESTART:
            raise ClientDisconnected

    def end(self) -> None:
        self.registry.discard(self)
        self.ending = asyncio.gather(self._send(self.final_message), return_exceptions=True)


class DrainableApp:
    """The app, and what a drain does in ASGI's own words.

    Every request goes through it, so whatever is not long-lived passes quickly: it costs about one microsecond.
    """

    def __init__(self, app, connections: set) -> None:
        self.app, self.connections = app, connections
        self.draining = False
        self.long_lived: weakref.WeakSet[LongLivedResponse] = weakref.WeakSet()

    def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            return self.watch_websocket(scope, receive, send)

        def watched_send(message):
            nonlocal send
            if message["type"] == "http.response.start":
                if self.draining or not isinstance(message.get("headers"), list):
                    message = self.prepare(message, scope)
                for name, value in message["headers"]:
                    if name == b"content-type":
                        if value.startswith(b"text/event-stream"):
                            response = LongLivedResponse(send, END_OF_STREAM, self.long_lived)
                            send = response.send
                            return response.begin(message)
                        break
            return send(message)

        return self.app(scope, receive, watched_send)

    def watch_websocket(self, scope, receive, send):
        def watched_send(message):
            nonlocal send
            if message["type"] != "websocket.accept":
                return send(message)
            response = LongLivedResponse(send, SERVICE_RESTART, self.long_lived)
            send = response.send
            return response.begin(message)

        return self.app(scope, receive, watched_send)

    def prepare(self, start: dict, scope: dict) -> dict:
        """Headers as a list, as they may be an iterator, which Uvicorn is to read after us; with a close in a drain."""
        headers = list(start.get("headers", ()))
        if self.draining and any(is_newest_request(connection, scope) for connection in self.connections):
            headers.append(CONNECTION_CLOSE)
        return {**start, "headers": headers}


class ForgeServer(Server):
    """Uvicorn's server, with a standby before its main loop, and again when it is told to, and a drain before its shutdown.

    Uvicorn accepts as soon as it has started. And its shutdown() (uvicorn/server.py) closes idle connections at
    once: also those whose request is on its way, or has arrived and was not yet read.
    """

    def __init__(self, config, sockets: list, state: StateFile) -> None:
        super().__init__(config)
        self.immediate, self.public = split_sockets(sockets)
        self.listeners: list[asyncio.Server] = []  # of the public sockets
        self.standby_since = None  # on the clock of the event loop
        self.state = state
        self.drain_seconds = float(os.environ.get("FORGE_WORKER_DRAIN", 20))

    async def startup(self, sockets=None) -> None:
        self.config.loaded_app = self.app = DrainableApp(self.config.loaded_app, self.server_state.connections)
        await super().startup(sockets=sockets)

    async def main_loop(self) -> None:
        if self.public:
            self.state.write(STANDBY)
            while not is_live(default=True):
                if await super().on_tick(0):  # 0: with the duties of every second, such as the heartbeat
                    return
                await asyncio.sleep(POLL)
            await self.listen()
        self.state.write(PUBLIC)
        await super().main_loop()

    async def on_tick(self, counter: int) -> bool:
        requested = bool(self.public) and self.state.requests_standby()
        if requested and self.listeners:
            await self.enter_standby()
        elif self.public and not requested and not self.listeners:
            await self.listen()
            self.state.write(PUBLIC)
        return await super().on_tick(counter)

    async def enter_standby(self) -> None:
        """Stand by again. What was accepted is answered as in a drain: a stop only goes on with it."""
        self.app.draining, self.standby_since = True, asyncio.get_running_loop().time()
        listeners, self.listeners = self.listeners, []
        await self.stop_listening(listeners)
        self.state.write(STANDBY)

    async def listen(self) -> None:
        """As uvicorn/server.py startup() does; with copies, as a closed listener closes its socket."""
        self.app.draining, self.standby_since = False, None

        def create_protocol():
            return self.config.http_protocol_class(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        create_server = asyncio.get_running_loop().create_server
        for sock in self.public:
            options = {"sock": sock.dup(), "ssl": self.config.ssl, "backlog": self.config.backlog}
            self.listeners.append(await create_server(create_protocol, **options))
        self.servers += self.listeners

    async def shutdown(self, sockets=None) -> None:
        try:
            await self.stop_listening(list(self.servers))
            await self.drain()
            await super().shutdown(sockets=sockets)
        finally:
            # Here, as capture_signals() then raises SIGTERM again, which ends the process.
            self.state.remove()

    async def stop_listening(self, servers: list) -> None:
        """Close listeners of ours: the sockets live on in systemd and in the other generation.

        asyncio accepts in one callback and makes the transport in a later one, which fails, and so loses the
        connection, if the server was closed in between (asyncio/base_events.py Server._attach()).
        """
        for server in servers:
            for sock in server.sockets:
                asyncio.get_running_loop().remove_reader(sock)  # uvloop has neither that gap nor such a reader
        await asyncio.sleep(POLL)
        for server in servers:
            server.close()
            self.servers.remove(server)

    async def drain(self) -> None:
        """Answer what was accepted, with "Connection: close"; end what would not end; at the deadline cut the rest."""
        self.state.write(DRAINING)
        self.app.draining = True
        waiting_for, clock = self.server_state, asyncio.get_running_loop().time
        began = clock()
        since = began if self.standby_since is None else self.standby_since
        while (waiting_for.connections or waiting_for.tasks) and not self.force_exit:
            remaining = max(since + self.drain_seconds, began + min(FLUSH, self.drain_seconds)) - clock()
            if remaining <= 0:
                break
            for response in list(self.app.long_lived):
                if response.final_message is SERVICE_RESTART or remaining <= FLUSH:
                    response.end()
            if self.config.callback_notify:
                await self.config.callback_notify()
            await asyncio.sleep(POLL)
        log = logging.getLogger("uvicorn.error")
        if waiting_for.connections:
            log.warning("Closing %d connections after %.1f s", len(waiting_for.connections), clock() - began)
            for connection in list(waiting_for.connections):
                connection.transport.abort()
            await asyncio.sleep(POLL)  # for connection_lost(): Uvicorn's shutdown() is to find no connection
        log.addFilter(is_no_cancellation)

    def quit(self) -> None:
        self.should_exit = True
        self.drain_seconds = 0


def is_no_cancellation(record: logging.LogRecord) -> bool:
    """Uvicorn's shutdown() says how many tasks it cancels. A traceback of each would look like an app's error."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def sockets_of_systemd() -> list[socket.socket]:
    """The sockets that systemd has passed to this process."""
    count = int(os.environ.get("LISTEN_FDS", 0)) if os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
    if not count:
        raise SystemExit("systemd has passed no socket to this process.")
    return [socket.socket(fileno=number) for number in range(FIRST_SOCKET, FIRST_SOCKET + count)]


def serve(settings: dict, target: str) -> None:
    """Serve an app in this process, until it is told to stop.

    :param settings: of uvicorn.Config.
    :param target: package.module:app, or a factory with () behind it.
    """
    faulthandler.enable()
    config = Config(
        target.replace("()", ""), factory=target.endswith("()"), timeout_graceful_shutdown=SHUTDOWN, **settings
    )
    state = StateFile(os.environ.get("FORGE_WORKER_STATE"), logging.getLogger("uvicorn.error"))
    server = ForgeServer(config, sockets_of_systemd(), state)
    server.run(sockets=server.immediate)
    if not server.started:
        sys.exit(3)  # as Uvicorn's own command does it


if __name__ == "__main__":
    serve(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2])
