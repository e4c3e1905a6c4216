# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real Gunicorn masters on sockets passed as systemd passes them, and clients that notice every lost request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
WORKER = HERE.parents[3] / "roles" / "service" / "files"
# Another interpreter, for other versions of Gunicorn and Uvicorn: see tests/pins/run.
PYTHON = os.environ.get("FORGE_WORKER_PYTHON", sys.executable)
LOOPS = ["forge_worker.ForgeWorker", "forge_worker_variants.Asyncio"]  # uvloop and httptools; asyncio and h11
# Uvicorn without Gunicorn, the same two.
ONE_PROCESS = {"uvicorn": ("auto", "auto"), "uvicorn asyncio": ("asyncio", "h11")}
OWN = "forge_worker_variants.Combined"  # an app's own class, with ours


def eventually(condition, within: float = 15):
    deadline = time.monotonic() + within
    while not (result := condition()):
        assert time.monotonic() < deadline, f"still not after {within} s"
        time.sleep(0.02)
    return result


def on_both_loops(sites, scenario) -> None:
    async def scenarios():
        await asyncio.gather(*(scenario(site, worker) for site, worker in zip(sites, LOOPS, strict=True)))

    asyncio.run(scenarios())


class Site:
    """What outlives a generation: the public socket, which systemd would hold, and the link."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir(exist_ok=True)
        self.current = directory / "current"
        self.fault = directory / "fault"
        self.log = directory / "app.log"
        self.public = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = self.public.getsockname()
        self.generations: list[Generation] = []

    def generation(self, name: str, worker: str = LOOPS[0], **settings) -> Generation:
        kind = OneProcess if worker in ONE_PROCESS else Generation
        generation = kind(self, name, worker, **settings)
        self.generations.append(generation)
        return generation

    def live(self, name: str, **settings) -> Generation:
        self.switch_to(name)
        generation = self.generation(name, **settings)
        generation.wait_for("public")
        return generation

    def switch_to(self, name: str) -> None:
        draft = self.directory / "current.new"
        draft.symlink_to(f"generations/{name}")
        draft.rename(self.current)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def close(self) -> None:
        for generation in self.generations:
            generation.kill()
        self.public.close()


class Generation:
    one_process = False

    def __init__(
        self,
        site: Site,
        name: str,
        worker: str = "forge_worker.ForgeWorker",
        workers: int = 1,
        drain: float = 5,
        names: str | None = "private:public",
        sockets: list | None = None,
        environment: dict | None = None,
        settings_of_worker: bool = True,
        **settings,
    ) -> None:
        self.site, self.name, self.workers = site, name, workers
        self.directory = site.directory / "generations" / name
        self.states = self.directory / "run"
        self.states.mkdir(parents=True)
        self.stand_by = self.states / "stand-by"
        self.log = self.directory / "log"
        self.private_path = str(self.directory / "private.sock")
        private = socket.socket(socket.AF_UNIX)
        private.bind(self.private_path)
        private.listen(64)
        settings = {
            "bind": "127.0.0.1:1",  # Gunicorn ignores it when it is handed sockets
            "worker_class": worker,
            "workers": workers,
            "timeout": 30,
            "graceful_timeout": drain + 5,
            "keepalive": 75,
            "control_socket_disable": True,
            "worker_tmp_dir": str(self.states),
            **settings,
        }
        command = self.command(settings)
        fds = [sock.fileno() for sock in sockets or [private, site.public]]
        with self.log.open("wb") as log:
            self.master = subprocess.Popen(
                [PYTHON, "-S", HERE / "activate.py", ",".join(map(str, fds))]
                + [PYTHON, "-W", "error::DeprecationWarning:forge_worker", "-m", *command, "worker_app:app"],
                pass_fds=fds,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{WORKER}:{HERE}",
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "APP_FAULT": str(site.fault),
                    "APP_LOG": str(site.log),
                    **({"LISTEN_FDNAMES": names} if names else {}),
                    **(self.environment(drain) if settings_of_worker else {}),
                    **(environment or {}),
                },
            )
        private.close()

    def command(self, settings: dict) -> list[str | Path]:
        config = self.directory / "gunicorn.conf.py"
        config.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
        return ["gunicorn", "--config", config]

    def environment(self, drain: float) -> dict[str, str]:
        return {
            "FORGE_WORKER_CURRENT": str(self.site.current),
            "FORGE_WORKER_GENERATION": self.name,
            "FORGE_WORKER_STATE": str(self.states),
            "FORGE_WORKER_DRAIN": str(drain),
        }

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def state(self) -> dict[int, str]:
        states = {}
        for path in self.states.glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError):  # its worker has just ended
                states[int(path.name)] = path.read_text()
        return states

    def pids(self) -> list[int]:
        if self.one_process:
            return [self.master.pid]
        with contextlib.suppress(FileNotFoundError):
            return [
                int(pid) for pid in Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children").read_text().split()
            ]
        return []

    def wait_for(self, state: str, within: float = 15) -> list[int]:
        try:
            eventually(lambda: list(self.state.values()) == [state] * self.workers, within)
        except (AssertionError, FileNotFoundError) as error:
            raise AssertionError(f"{self.name}: {self.state}, not {state}\n{self.said}") from error
        return sorted(self.state)

    def private(self, path: str = "/") -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(self.private_path)
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    def ended_meanwhile(self) -> dict[str, int]:
        """What its drains did not wait for."""
        lines = (self.states / "ended").read_text().splitlines()
        return dict(sum((Counter(json.loads(line)) for line in lines), Counter()))

    def stop(self, sig: int = signal.SIGTERM) -> None:
        self.master.send_signal(sig)

    def ended(self, within: float = 15) -> int:
        return self.master.wait(within)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.master.pid, signal.SIGKILL)  # its own session: start_new_session
        self.master.wait(5)


class OneProcess(Generation):
    """Uvicorn alone."""

    one_process = True

    def __init__(self, *arguments, **settings) -> None:
        super().__init__(*arguments, **{**settings, "workers": 1})

    def ended(self, within: float = 15) -> int:
        """Uvicorn ends by the signal that told it to: for systemd that is in order."""
        code = super().ended(within)
        return 0 if code == -signal.SIGTERM else code

    def command(self, settings: dict) -> list[str | Path]:
        config = self.directory / "uvicorn.json"
        loop, http = ONE_PROCESS[settings["worker_class"]]
        config.write_text(json.dumps({"timeout_keep_alive": settings["keepalive"], "loop": loop, "http": http}))
        return ["forge_server", config]


class Cut(Exception):
    """A response ended before it was complete."""


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def closes(self) -> bool:
        return "close" in self.headers.get("connection", "")


class Client:
    """One HTTP connection. It never repeats a request: what fails after it was sent is lost."""

    def __init__(self, address) -> None:
        self.address = address
        self.writer = None

    async def connect(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection(*self.address)
        return self

    async def send(self, path: str, body: bytes | None = None, close: bool = False) -> None:
        if self.writer is None:
            await self.connect()
        head = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "host: x"]
        head += ["connection: close"] * close + ([] if body is None else [f"content-length: {len(body)}"])
        self.writer.write(("\r\n".join(head) + "\r\n\r\n").encode() + (body or b""))

    async def until_the_end(self) -> str:
        """How an answer ends that was asked for: "complete", or "cut" """
        try:
            await self.answer()
        except Cut:
            return "cut"
        return "complete"

    async def head(self) -> Answer:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers: dict[str, str] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(": ")
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        return Answer(int(lines[0].split()[1]), headers, b"")

    async def chunk(self) -> bytes:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self) -> Answer:
        try:
            answer = await self.head()
            if "content-length" in answer.headers:
                answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
            else:
                while part := await self.chunk():
                    answer.body += part
        except (OSError, EOFError) as error:
            raise Cut(repr(error)) from error
        if answer.closes:
            await self.close()
        return answer

    async def get(self, path: str = "/", body: bytes | None = None, close: bool = False) -> Answer:
        await self.send(path, body, close)
        return await self.answer()

    async def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            with contextlib.suppress(OSError):
                await self.writer.wait_closed()
            self.writer = None


class Load:
    """Clients of several kinds, until told to stop. Counts what each kind got, and what it lost."""

    def __init__(self, address, **clients: int) -> None:
        self.address = address
        self.clients = clients
        self.answered: Counter = Counter()
        self.lost: Counter = Counter()
        self.reasons: list[str] = []
        self.served_by: Counter = Counter()
        self.stopped = False

    async def __aenter__(self) -> Load:
        self.tasks = [
            asyncio.create_task(self.repeat(kind)) for kind, number in self.clients.items() for _ in range(number)
        ]
        return self

    async def __aexit__(self, *_) -> None:
        self.stopped = True
        await asyncio.wait_for(asyncio.gather(*self.tasks), 30)

    async def repeat(self, kind: str) -> None:
        client = Client(self.address)
        while not self.stopped:
            try:
                await asyncio.wait_for(getattr(self, kind)(client), 30)
                self.answered[kind] += 1
            except Exception as error:
                self.lost[kind] += 1
                self.reasons.append(f"{kind}: {error!r}")
                await client.close()
        await client.close()

    def served(self, answer: Answer) -> None:
        assert answer.status == 200, answer.status
        self.served_by[answer.body.split()[0].decode()] += 1

    async def keepalive(self, client: Client) -> None:
        self.served(await client.get())

    async def closing(self, client: Client) -> None:
        self.served(await client.get(close=True))

    async def post(self, client: Client) -> None:
        body = os.urandom(2000)
        assert (await client.get("/echo", body)).body == body

    async def pausing(self, client: Client) -> None:
        self.served(await client.get())
        await asyncio.sleep(0.3)

    async def late(self, client: Client) -> None:
        """Its request comes long after its connection was accepted."""
        await client.connect()
        await asyncio.sleep(0.3)
        self.served(await client.get(close=True))

    async def slow(self, client: Client) -> None:
        self.served(await client.get("/slow?seconds=2"))

    async def events(self, client: Client) -> None:
        """Is cut by the server, so that this is seen, or after a while by this client."""
        await client.send("/events")
        assert (await client.head()).headers["content-type"].startswith("text/event-stream")
        assert await client.chunk()
        with contextlib.suppress(OSError, EOFError):
            while not self.stopped:
                assert await client.chunk()
        await client.close()

    async def websocket(self, client: Client) -> None:
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed

        async with connect("ws://{}:{}/ws".format(*self.address), close_timeout=2) as websocket:
            try:
                while not self.stopped:
                    await websocket.send("hello")
                    assert await websocket.recv() == "hello"
                    await asyncio.sleep(0.02)
            except ConnectionClosed as closed:
                assert closed.rcvd, f"without a close frame: {closed!r}"
                assert closed.rcvd.code == 1012
