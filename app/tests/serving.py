"""The app in a process of its own, as a server runs it."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2 as httpx

UVICORN = ["uvicorn", "--no-access-log"]
GUNICORN = ["gunicorn", "--worker-class=uvicorn_worker.UvicornWorker", "--workers=2", "--no-control-socket"]
GUNICORN += ["--keep-alive=60"]  # so that a client stays with one worker


class Serving:
    """A started server; its output is in files, as it would be in a journal."""

    def __init__(self, command: list[str], directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.stdout, self.stderr = directory / "stdout", directory / "stderr"
        bind = [f"--bind=127.0.0.1:{port}"] if command[0] == "gunicorn" else [f"--port={port}"]
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, *bind, "thecodeforge.main:app"],
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, "PYTHONUNBUFFERED": "0"},
            )

    def wait_until_healthy(self, workers: int) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            started = [line for line in self.log if line["message"] == "started"]
            with suppress(httpx.TransportError):
                if len(started) == workers and httpx.get(f"{self.url}/healthz").status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"It does not serve:\n{self.output}")

    @property
    def output(self) -> str:
        return self.stdout.read_text() + self.stderr.read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        """Lines on standard output, all of which must be JSON."""
        return [json.loads(line) for line in self.stdout.read_text().splitlines()]


@contextmanager
def serving(command: list[str], directory: Path) -> Iterator[Serving]:
    server = Serving(command, directory)
    try:
        server.wait_until_healthy(workers=2 if command[0] == "gunicorn" else 1)
        yield server
    finally:
        server.process.terminate()
        server.process.wait(60)
