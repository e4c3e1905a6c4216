# Copyright: (c) 2026, thecodeforge.fastapi contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gunicorn worker that stands by until its generation is live, and drains before it stops.

Two generations of a service hold the same public socket, which systemd owns. The new one must not accept from it
before it has been checked; the old one must answer whatever it has accepted. Read `ForgeServer` for how.

Environment, all optional; without it this is UvicornWorker with a drain:
  FORGE_WORKER_CURRENT     symbolic link to the live generation
  FORGE_WORKER_GENERATION  name of this generation: live when the link points at it
  FORGE_WORKER_STATE       directory where a file named by the worker's pid says: standby, public or draining
  FORGE_WORKER_DRAIN       seconds a drain may take (20)
  LISTEN_FDNAMES           set by systemd: the sockets named "public" wait for the generation to be live
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import sys
import time
import warnings
from pathlib import Path

from gunicorn.arbiter import Arbiter
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import Server

try:
    from uvicorn_worker import UvicornWorker
except ImportError:  # not installed, or not made for this Uvicorn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from uvicorn.workers import UvicornWorker

POLL = 0.05  # seconds between two looks at the link, or at what a drain still waits for
FLUSH = 1.0  # event streams end this long before a drain does, so that their end reaches the client
SHUTDOWN = 2  # seconds for Uvicorn's own shutdown, after the drain
RESPAWN_DELAY = 1.0

CONNECTION_CLOSE = (b"connection", b"close")
END_OF_STREAM = {"type": "http.response.body", "body": b"", "more_body": False}
SERVICE_RESTART = {"type": "websocket.close", "code": 1012, "reason": "service restart"}


def is_live(unless_told: bool) -> bool:
    """Whether the link points at this generation; `unless_told` where the environment names no link."""
    link = os.environ.get("FORGE_WORKER_CURRENT")
    if not link:
        return unless_told
    try:
        return os.path.basename(os.readlink(link).rstrip("/")) == os.environ.get("FORGE_WORKER_GENERATION")
    except OSError:
        return False


def split_sockets(sockets: list) -> tuple[list, list]:
    """The (immediate, public) ones: by systemd's names, whose order Gunicorn keeps (gunicorn/sock.py create_sockets()).

    Sockets that have no names are opened at once, as UvicornWorker does. They leave Gunicorn's wrapper behind, whose
    descriptor uvloop would close twice (uvloop/handles/handle.pyx UVSocketHandle._close()).
    """
    sockets = [wrapper.sock for wrapper in sockets]
    names = os.environ.get("LISTEN_FDNAMES")
    if names is None:
        return sockets, []
    named = list(zip(names.split(":"), sockets))
    if not len(named) == len(sockets) == len(names.split(":")):
        raise RuntimeError(f"LISTEN_FDNAMES={names} does not name the {len(sockets)} sockets of Gunicorn")
    return [s for name, s in named if name != "public"], [s for name, s in named if name == "public"]


class StateFile:
    """Says in one word what this worker does, for the rollout to read. A worker serves on without it."""

    def __init__(self, directory: str | None, log) -> None:
        self.path = Path(directory, str(os.getpid())) if directory else None
        self.log = log

    def write(self, word: str) -> None:
        if self.path:
            draft = self.path.with_name(f".{self.path.name}")
            try:
                draft.write_text(word)
                draft.replace(self.path)
            except OSError as error:
                self.log.warning("Cannot say that this worker is %s: %s", word, error)

    def remove(self) -> None:
        if self.path:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def remove_stale(self, master: int) -> None:
        """Files of workers that were killed. A pid may be in use again, but then not by a child of our master."""
        self.remove()
        for path in self.path.parent.glob("[0-9]*") if self.path else ():
            with contextlib.suppress(OSError):
                try:
                    parent = int(Path("/proc", path.name, "stat").read_text().rpartition(")")[2].split()[1])
                except FileNotFoundError:
                    parent = None
                if parent != master:
                    path.unlink()


def is_event_stream(start: dict) -> bool:
    start["headers"] = list(start.get("headers", ()))  # ASGI allows an iterator, and Uvicorn is to read it too
    for name, value in start["headers"]:
        if name == b"content-type":
            return value.startswith(b"text/event-stream")
    return False


class Lasting:
    """An event stream or an open websocket. It would outlast a drain, which therefore says farewell for the app."""

    def __init__(self, send, farewell: dict, registry: set) -> None:
        self.send, self.farewell, self.registry = send, farewell, registry
        self.ended = False

    async def begin(self, message: dict) -> None:
        await self.send(message)
        self.registry.add(self)

    async def forward(self, message: dict) -> None:
        """After the end the app meets what Uvicorn has for it when its client is gone: silence, or an OSError."""
        if not self.ended:
            if message["type"] == "websocket.close" or not message.get("more_body", True):
                self.registry.discard(self)
            await self.send(message)
        elif self.farewell is SERVICE_RESTART:
            raise ClientDisconnected

    async def end(self) -> None:
        self.ended = True
        with contextlib.suppress(ClientDisconnected):
            await self.send(self.farewell)


class DrainableApp:
    """The app, and what a drain has to do in ASGI's own words: so it depends on no protocol class of Uvicorn.

    It stands in the way of every request: a microsecond, spent on nothing but finding what lasts.
    """

    def __init__(self, app, connections: set) -> None:
        self.app, self.connections = app, connections
        self.draining = False
        self.lasting: set[Lasting] = set()

    async def __call__(self, scope, receive, send):
        lasting = None

        def watched_send(message):
            nonlocal lasting
            if lasting:
                return lasting.forward(message)
            if message["type"] == "http.response.start":
                farewell = END_OF_STREAM if is_event_stream(message) else None
                if self.draining and self.is_last_request(scope):
                    message = {**message, "headers": [*message["headers"], CONNECTION_CLOSE]}
            else:
                farewell = SERVICE_RESTART if message["type"] == "websocket.accept" else None
            if not farewell:
                return send(message)
            lasting = Lasting(send, farewell, self.lasting)
            return lasting.begin(message)

        try:
            return await self.app(scope, receive, watched_send)
        except asyncio.CancelledError:  # by Uvicorn's shutdown: no error of an app whose answer has ended
            if not (lasting and lasting.ended):
                raise
        finally:
            self.lasting.discard(lasting)

    def is_last_request(self, scope) -> bool:
        """Whether no pipelined request follows: a "Connection: close" now would leave it without an answer.

        httptools parses ahead, so a connection's scope is that of its newest request; h11 keeps the bytes.
        """
        for connection in self.connections:
            if getattr(connection, "scope", None) is scope:
                return not (hasattr(connection, "conn") and connection.conn.trailing_data[0])
        return False

    def end(self, farewell: dict) -> None:
        for lasting in list(self.lasting):
            if lasting.farewell is farewell:
                self.lasting.discard(lasting)
                lasting.ending = asyncio.ensure_future(lasting.end())


class ForgeServer(Server):
    """Uvicorn's server, with a standby before its main loop and a drain before its shutdown.

    Uvicorn alone accepts as soon as it has started, and uvicorn/server.py shutdown() closes idle connections at once:
    also those whose request is on its way, or was accepted but not yet read.
    """

    def __init__(self, config, sockets: list, state: StateFile) -> None:
        super().__init__(config)
        self.immediate, self.public = split_sockets(sockets)
        self.state = state
        self.drain_seconds = float(os.environ.get("FORGE_WORKER_DRAIN", 20))

    async def startup(self, sockets=None) -> None:
        self.config.loaded_app = self.app = DrainableApp(self.config.loaded_app, self.server_state.connections)
        await super().startup(sockets=sockets)

    async def main_loop(self) -> None:
        if self.public:
            self.state.write("standby")
            while not is_live(unless_told=True):
                if await self.on_tick(0):  # 0: with its once-a-second duties, the heartbeat among them
                    return
                await asyncio.sleep(POLL)
            await self.listen(self.public)
        self.state.write("public")
        await super().main_loop()

    async def listen(self, sockets: list) -> None:
        """As uvicorn/server.py startup() does."""

        def create_protocol():
            return self.config.http_protocol_class(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        loop = asyncio.get_running_loop()
        for sock in sockets:
            self.servers.append(
                await loop.create_server(
                    create_protocol, sock=sock, ssl=self.config.ssl, backlog=self.config.backlog
                )
            )

    async def shutdown(self, sockets=None) -> None:
        try:
            await self.stop_listening()
            await self.drain()
            await super().shutdown(sockets=sockets)
        finally:
            # Before uvicorn/server.py capture_signals() raises the signal again, which ends the process.
            self.state.remove()

    async def stop_listening(self) -> None:
        """Close our listeners; the sockets live on in systemd and in the other generation.

        asyncio accepts in one callback and makes the transport in a later one, which fails once the server is closed:
        the connection would be lost (asyncio/base_events.py Server._attach()). So it first stops to accept.
        """
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for sock in server.sockets:
                loop.remove_reader(sock)  # uvloop has no such gap, and no such reader
        await asyncio.sleep(POLL)
        for server in self.servers:
            server.close()

    async def drain(self) -> None:
        """Answer what was accepted, with "Connection: close"; end what would never end; cut the rest at the bound."""
        self.state.write("draining")
        self.app.draining = True
        waiting_for, clock = self.server_state, asyncio.get_running_loop().time
        began = clock()
        while (waiting_for.connections or waiting_for.tasks) and not self.force_exit:
            left = began + self.drain_seconds - clock()
            if left <= 0:
                break
            self.app.end(SERVICE_RESTART)
            if left <= FLUSH:
                self.app.end(END_OF_STREAM)
            await self.config.callback_notify()
            await asyncio.sleep(POLL)
        for connection in list(waiting_for.connections):
            connection.transport.abort()
        await asyncio.sleep(POLL)  # for connection_lost(), so that Uvicorn's shutdown() does not meet them

    def quit(self) -> None:
        self.should_exit = True
        self.drain_seconds = 0


class ForgeWorker(UvicornWorker):
    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "timeout_graceful_shutdown": SHUTDOWN}

    server = None

    def init_process(self) -> None:
        """Boot and run. While its generation is live, a worker that cannot boot must not take the others with it.

        Exit codes 3 and 4 of any worker halt Gunicorn (gunicorn/arbiter.py reap_workers()). That is right for a
        candidate. But a database that is away for a moment, while one worker is replaced, must not stop the service.
        """
        state = StateFile(os.environ.get("FORGE_WORKER_STATE"), self.log)
        state.remove_stale(self.ppid)
        try:
            self.server = ForgeServer(self.config, self.sockets, state)
            super().init_process()
        except (Exception, SystemExit) as failure:
            if (self.server and self.server.started) or not is_live(unless_told=False):
                raise
            self.log.error(
                "Worker failed to boot (%r) while its generation is live: next try in %g s",
                failure,
                RESPAWN_DELAY,
                exc_info=not isinstance(failure, SystemExit),
            )
            time.sleep(RESPAWN_DELAY)
            sys.exit(1)

    def init_signals(self) -> None:
        super().init_signals()
        faulthandler.enable()  # shows where a worker was stuck when Gunicorn aborts it

    async def _serve(self) -> None:
        """As UvicornWorker._serve(), with our server. Its handler of SIGQUIT had no effect on the server."""
        self.config.app = self.wsgi
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, self.server.quit)
        await self.server.serve(sockets=self.server.immediate)
        if not self.server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
