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
  FORGE_WORKER_DRAIN       seconds that an idle connection may take to ask once more (20)
  FORGE_WORKER_FINISH      seconds that an answer under way may take to end by itself (as the drain)
  FORGE_WORKER_STREAMS     "end": event streams end then as if they were complete; else they are cut, as any other answer
  FORGE_WORKER_READY       path that public requests of balancers' checks ask for: see PublicApp
  FORGE_WORKER_HEALTH      path that is answered by the app in a maintenance, too
  FORGE_WORKER_RETRY_AFTER seconds after which clients may ask again in a maintenance (300)
  FORGE_WORKER_SIGNS       "yes": answers have the header x-forge-generation, for the access log of an edge
  LISTEN_FDNAMES           set by systemd: sockets named "public" wait for the generation to be live
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import faulthandler
import fcntl
import json
import logging
import os
import select
import socket
import struct
import sys
import weakref
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from uvicorn.config import Config
from uvicorn.server import Server

try:
    from uvicorn.protocols.utils import ClientDisconnected
except ImportError:  # before Uvicorn 0.27

    class ClientDisconnected(OSError): ...


POLL = 0.05  # seconds between two looks at the link, or at what a drain still waits for
GRACE = 0.5  # seconds that an idle connection is left for a request on its way, when nobody else accepts
FLUSH = 1.0  # event streams end this long before the drain does, so that their end reaches the clients
SHUTDOWN = 2  # seconds for Uvicorn's own shutdown, after the drain
LOOK = 0.5  # seconds between two looks at the flags of the host
FIRST_SOCKET = 3  # sd_listen_fds(3)
# What plugins/module_utils/_private reads and writes: layout.py and serving.py.
STANDBY_REQUEST = "stand-by"
STANDBY, PUBLIC, DRAINING = "standby", "public", "draining"
ENDED = "ended"
STREAM, REQUEST, WEBSOCKET, BACKGROUND_TASK = "stream", "request", "websocket", "background task"
DRAIN, MAINTENANCE, UNDER_WAY = "drain", "maintenance", "under-way-"  # beside "current"; in the directory of states

RESET = struct.pack("ii", 1, 0)  # SO_LINGER
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


def is_idle(connection) -> bool:
    """Whether nothing is under way on a connection, and nothing that has arrived is unread. Never one of a websocket."""
    cycle = getattr(connection, "cycle", connection)
    if cycle is connection or (cycle and not cycle.response_complete):
        return False
    if not is_newest_request(connection, cycle and cycle.scope):
        return False
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return not poll.poll(0)


def is_under_way(connection) -> bool:
    """Whether a request waits for its answer, or for the rest of it."""
    cycle = getattr(connection, "cycle", None)
    return cycle is not None and not cycle.response_complete


def is_half_answered(connection) -> bool:
    return is_under_way(connection) and connection.cycle.response_started


def plain_client(client: tuple | None) -> tuple:
    """A peer as a person means it: a local socket's is this host, and an IPv4 address is not written as one of IPv6."""
    return (client[0].rpartition(":")[2], *client[1:]) if client else ("127.0.0.1", 0)


class StateFile:
    """Says in one word what this worker does, for the rollout to read. A worker keeps serving without it."""

    def __init__(self, directory: str | None, log: logging.Logger) -> None:
        self.directory = Path(directory) if directory else None
        self.path = Path(directory, str(os.getpid())) if directory else None
        self.request = Path(directory, STANDBY_REQUEST) if directory else None
        self.log = log
        self.turn: int | None = None  # descriptor of the directory, locked

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

    def others_accept(self) -> bool:
        """Whether another worker of this generation says that it accepts public requests."""
        for path in self.directory.glob("[0-9]*") if self.directory else ():
            with contextlib.suppress(OSError):
                if path != self.path and path.read_text() == PUBLIC and parent_of(path.name) == os.getppid():
                    return True
        return False

    def take_turn(self) -> bool:
        """Whether this worker is the one of its generation that may be replaced now; until it ends, no other is."""
        if self.turn is None and self.directory:
            self.turn = os.open(self.directory, os.O_RDONLY)
        try:
            if self.turn is not None:
                fcntl.flock(self.turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def write_ended(self, ended: Counter[str] | None = None) -> None:
        """What a drain did not wait for. The file is made before that, for the rollout to hold: systemd removes it."""
        if self.directory:
            try:
                with open(self.directory / ENDED, "a") as file:
                    file.write(json.dumps(ended) + "\n" if ended else "")
            except OSError as error:
                self.log.warning("Cannot write what was ended: %s", error)

    def write_under_way(self, count: int | None) -> None:
        """Requests of this worker that are under way; with None they are nobody's concern."""
        path = self.path and self.path.with_name(UNDER_WAY + self.path.name)
        if path and (count is not None or path.exists()):
            with contextlib.suppress(OSError):
                path.unlink() if count is None else path.write_text(str(count))

    def remove(self) -> None:
        if self.path:
            self.write_under_way(None)
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
        self.ending: asyncio.Task | None = None
        self.has_begun_to_end = False

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
            return await self._send(message)
        # An app that returned before would close the connection without its end. Nor is the app held up where it need not
        # be: Starlette cancels it as soon as that is sent, and its generator is to notice.
        if not self.has_begun_to_end:
            await self.write_end()
        elif not self.ending.done():
            await asyncio.wait([self.ending])
        if self.final_message is SERVICE_RESTART:
            raise ClientDisconnected

    def end(self) -> None:
        self.registry.discard(self)
        self.ending = asyncio.ensure_future(self.write_end())

    async def write_end(self) -> None:
        if not self.has_begun_to_end:
            self.has_begun_to_end = True
            with contextlib.suppress(Exception):  # the client is gone
                await self._send(self.final_message)


class DrainableApp:
    """The app, and what a drain does in ASGI's own words.

    Every request goes through it. While nothing drains, an answer is looked at only where event streams are to be ended
    as if they were complete: that costs about one microsecond.
    """

    def __init__(self, app, connections: set, ends_streams: bool = False) -> None:
        self.app, self.connections, self.ends_streams = app, connections, ends_streams
        self.draining, self.watches = False, ends_streams
        self.websockets: weakref.WeakSet[LongLivedResponse] = weakref.WeakSet()
        self.event_streams: weakref.WeakSet[LongLivedResponse] = weakref.WeakSet()
        self.websocket_tasks: weakref.WeakSet[asyncio.Task] = weakref.WeakSet()

    def set_draining(self, draining: bool) -> None:
        """From now on answers say that they were the last on their connection, also those that have not begun."""
        self.draining, self.watches = draining, draining or self.ends_streams
        for connection in self.connections if draining else ():
            cycle = getattr(connection, "cycle", None)
            if cycle and not cycle.response_started and is_newest_request(connection, cycle.scope):
                cycle.default_headers = [*cycle.default_headers, CONNECTION_CLOSE]

    def __call__(self, scope, receive, send):
        kind = scope["type"]
        if kind != "lifespan":
            client = scope.get("client")
            if client is None or client[0].startswith("::ffff:"):
                scope["client"] = plain_client(client)
            if kind == "websocket":
                return self.watch_websocket(scope, receive, send)
            if self.watches:
                return self.watch_http(scope, receive, send)
        return self.app(scope, receive, send)

    def watch_http(self, scope, receive, send):
        def watched_send(message):
            nonlocal send
            if message["type"] == "http.response.start":
                message = self.prepare(message, scope)
                if self.ends_streams and any(
                    name == b"content-type" and value.startswith(b"text/event-stream")
                    for name, value in message["headers"]
                ):
                    response = LongLivedResponse(send, END_OF_STREAM, self.event_streams)
                    send = response.send
                    return response.begin(message)
            return send(message)

        return self.app(scope, receive, watched_send)

    def watch_websocket(self, scope, receive, send):
        self.websocket_tasks.add(asyncio.current_task())

        def watched_send(message):
            nonlocal send
            if message["type"] != "websocket.accept":
                return send(message)
            response = LongLivedResponse(send, SERVICE_RESTART, self.websockets)
            send = response.send
            return response.begin(message)

        return self.app(scope, receive, watched_send)

    def prepare(self, start: dict, scope: dict) -> dict:
        """Headers as a list, as they may be an iterator, which Uvicorn is to read after us; with a close in a drain."""
        headers = list(start.get("headers", ()))
        if self.draining and any(is_newest_request(connection, scope) for connection in self.connections):
            headers.append(CONNECTION_CLOSE)
        return {**start, "headers": headers}


class PublicApp:
    """The app, as the public socket has it: what a balancer asks for, and a maintenance, are answered here.

    The private socket has neither, so that a release can be tried in a maintenance. Every public request goes through it, which
    costs a tenth of a microsecond.
    """

    def __init__(self, app) -> None:
        self.app = self.chosen = app
        self.ready_path = os.environ.get("FORGE_WORKER_READY")
        self.health_path = os.environ.get("FORGE_WORKER_HEALTH")
        self.retry_after = os.environ.get("FORGE_WORKER_RETRY_AFTER", "300").encode()
        self.is_ready = True
        self.page: bytes | None = None

    def __call__(self, scope, receive, send):
        if scope.get("path") == self.ready_path and scope["type"] == "http":
            return self.answer_ready(send)
        return self.chosen(scope, receive, send)

    def set_page(self, page: bytes | None) -> None:
        """Begin a maintenance with a page, or with None end it."""
        self.page = page
        self.chosen = self.app if page is None else self.answer_maintenance

    def answer_ready(self, send):
        if self.is_ready:
            return answer(send, 200, b"ready\n", b"text/plain")
        return answer(send, 503, b"drained\n", b"text/plain")

    def answer_maintenance(self, scope, receive, send):
        if scope["type"] == "lifespan" or scope["path"] == self.health_path:
            return self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return send({"type": "websocket.close"})
        return answer(send, 503, self.page, b"text/html; charset=utf-8", (b"retry-after", self.retry_after))


async def answer(send, status: int, body: bytes, kind: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store"), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class HostFlags:
    """What an operator has put beside "current": that the host is drained, or the page of a maintenance."""

    def __init__(self) -> None:
        link = os.environ.get("FORGE_WORKER_CURRENT")
        self.directory = Path(link).parent if link else None
        self.next_look = 0.0

    def is_drained(self) -> bool:
        return self.directory is not None and (self.directory / DRAIN).exists()

    def page(self) -> bytes | None:
        try:
            return (self.directory / MAINTENANCE).read_bytes() if self.directory else None
        except OSError:
            return None


class ForgeServer(Server):
    """Uvicorn's server, with a standby before its main loop, and again when it is told to, and a drain before its shutdown.

    Uvicorn accepts as soon as it has started. And its shutdown() (uvicorn/server.py) closes idle connections at
    once: also those whose request is on its way, or has arrived and was not yet read.
    """

    def __init__(self, config, sockets: list, state: StateFile, workers: int = 1) -> None:
        """
        :param workers: of this generation, with this one.
        """
        super().__init__(config)
        self.immediate, self.public = split_sockets(sockets)
        self.listeners: list[asyncio.Server] = []  # of the public sockets
        self.draining_since = None  # on the clock of the event loop
        self.state, self.workers = state, workers
        self.flags, self.public_config, self.public_app = HostFlags(), config, None
        if os.environ.get("FORGE_WORKER_SIGNS"):
            config.headers = [*config.headers, ("x-forge-generation", os.environ.get("FORGE_WORKER_GENERATION", ""))]
        self.drain_seconds = float(os.environ.get("FORGE_WORKER_DRAIN", 20))
        self.finish_seconds = float(os.environ.get("FORGE_WORKER_FINISH", self.drain_seconds))
        self.ended: Counter[str] = Counter()  # what a drain did not wait for
        # Uvicorn ends at its limit of requests, whoever else accepts.
        self.request_limit = getattr(self, "limit_max_requests", config.limit_max_requests)
        self.limit_max_requests = config.limit_max_requests = None

    async def startup(self, sockets=None) -> None:
        ends_streams = os.environ.get("FORGE_WORKER_STREAMS") == "end"
        self.app = DrainableApp(self.config.loaded_app, self.server_state.connections, ends_streams)
        self.config.loaded_app = self.app
        self.public_app = PublicApp(self.app)
        self.public_config = copy.copy(self.config)
        self.public_config.loaded_app = self.public_app
        self.heed_flags()
        await super().startup(sockets=sockets)
        self.state.write_ended()

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
        if self.clock() >= self.flags.next_look:
            self.heed_flags()
        return await super().on_tick(counter) or self.is_to_be_replaced()

    def heed_flags(self) -> None:
        """Do what the host's flags say; of a host that is drained say what is under way, for who waits for it."""
        self.flags.next_look = self.clock() + LOOK
        drained, page = self.flags.is_drained(), self.flags.page()
        self.public_app.is_ready = not drained
        if page != self.public_app.page:
            self.public_app.set_page(page)
        self.state.write_under_way(sum(not task.done() for task in self.server_state.tasks) if drained else None)

    def is_to_be_replaced(self) -> bool:
        """Whether this worker has served as many requests as it may, and others accept while it is replaced."""
        if not self.request_limit or self.server_state.total_requests < self.request_limit:
            return False
        return self.workers == 1 or (self.state.take_turn() and self.state.others_accept())

    async def enter_standby(self) -> None:
        """Stand by again. What was accepted is answered as in a drain: a stop only goes on with it."""
        self.begin_drain()
        listeners, self.listeners = self.listeners, []
        await self.stop_listening(listeners)
        self.state.write(STANDBY)

    async def listen(self) -> None:
        """As uvicorn/server.py startup() does; with copies, as a closed listener closes its socket."""
        self.app.set_draining(False)
        self.draining_since = None
        self.heed_flags()

        def create_protocol():
            return self.config.http_protocol_class(
                config=self.public_config, server_state=self.server_state, app_state=self.lifespan.state
            )

        create_server = asyncio.get_running_loop().create_server
        for sock in self.public:
            options = {"sock": sock.dup(), "ssl": self.config.ssl, "backlog": self.config.backlog}
            self.listeners.append(await create_server(create_protocol, **options))
        self.servers += self.listeners

    async def shutdown(self, sockets=None) -> None:
        try:
            self.state.write(DRAINING)
            self.begin_drain()
            await self.finish_first()
            await self.stop_listening(list(self.servers))
            await self.drain()
            self.state.write_ended(self.ended)
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

    def begin_drain(self) -> None:
        if self.draining_since is None:
            self.draining_since = self.clock()
        self.app.set_draining(True)

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    def is_alone(self) -> bool:
        """Whether nobody else accepts public requests: no later generation, and no other worker of this one."""
        return is_live(default=True) and not self.state.requests_standby() and not self.state.others_accept()

    async def finish_first(self) -> None:
        """Where nobody else accepts, go on with that until what is under way has ended: no one is to wait for it."""
        tasks = self.server_state.tasks - set(self.app.websocket_tasks)
        while not all(task.done() for task in tasks) and not self.force_exit:
            took = self.clock() - self.draining_since
            # Workers that are told to stop together learn of it one after the other.
            if took >= self.finish_seconds or (took >= GRACE and not self.is_alone()):
                break
            await self.pause()

    async def drain(self) -> None:
        """Answer what was accepted, with "Connection: close"; end what would not end; at the deadline cut the rest."""
        began, state = self.clock(), self.server_state
        while (state.connections or state.tasks) and not self.force_exit:
            finish = self.draining_since + self.finish_seconds
            remaining = max(finish, began + min(FLUSH, self.finish_seconds)) - self.clock()
            if remaining <= 0:
                break
            self.end_all(self.app.websockets, WEBSOCKET)
            if remaining <= FLUSH:
                self.end_all(self.app.event_streams, STREAM)
            if self.clock() >= finish:
                self.cut(filter(is_half_answered, state.connections))
            if self.clock() >= (began + GRACE if self.is_alone() else self.draining_since + self.drain_seconds):
                for connection in filter(is_idle, list(state.connections)):
                    connection.transport.close()
            await self.pause()
        answers = sum(map(is_under_way, state.connections)) + self.ended[STREAM]
        self.ended[BACKGROUND_TASK] = max(0, len(state.tasks - set(self.app.websocket_tasks)) - answers)
        self.cut(state.connections)
        await asyncio.sleep(POLL)  # for connection_lost(): Uvicorn's shutdown() is to find no connection
        log = logging.getLogger("uvicorn.error")
        self.ended = +self.ended
        if self.ended:
            said = ", ".join(f"{count} x {kind}" for kind, count in self.ended.items())
            log.warning("Ended after %.1f s: %s", self.clock() - self.draining_since, said)
        log.addFilter(is_no_cancellation)

    def end_all(self, responses: weakref.WeakSet, kind: str) -> None:
        for response in list(responses):
            response.end()
            self.ended[kind] += 1

    def cut(self, connections: Iterable) -> None:
        """Close connections so that their clients see an error, where an answer was under way.

        The end of a connection alone looks like the end of an answer to whoever asked with HTTP/1.0, as proxies do.
        """
        for connection in list(connections):
            if is_under_way(connection):
                self.ended[STREAM if is_half_answered(connection) else REQUEST] += 1
                with contextlib.suppress(OSError):
                    peer = connection.transport.get_extra_info("socket")
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.transport.abort()

    async def pause(self) -> None:
        if self.config.callback_notify:
            await self.config.callback_notify()
        await asyncio.sleep(POLL)

    def quit(self) -> None:
        self.should_exit = True
        self.drain_seconds = self.finish_seconds = 0


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

    :param settings: of uvicorn.Config; with a port, it is opened here, and else the sockets are systemd's.
    :param target: package.module:app, or a factory with () behind it.
    """
    faulthandler.enable()
    config = Config(
        target.replace("()", ""), factory=target.endswith("()"), timeout_graceful_shutdown=SHUTDOWN, **settings
    )
    state = StateFile(os.environ.get("FORGE_WORKER_STATE"), logging.getLogger("uvicorn.error"))
    server = ForgeServer(config, [config.bind_socket()] if "port" in settings else sockets_of_systemd(), state)
    server.run(sockets=server.immediate)
    if not server.started:
        sys.exit(3)  # as Uvicorn's own command does it


if __name__ == "__main__":
    serve(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2])
