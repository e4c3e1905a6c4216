# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small app whose project is written here, so that a test can give it any shape. It needs no database."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from conftest import REPOSITORY

# What serves; an app says with answer_to() what: of a path the status, and the answer as JSON has it.
SERVING = """
import asyncio
import json
import os


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["method"] == "POST":
        while (await receive()).get("more_body"):
            pass
    await asyncio.sleep(0.005)
    status, answer = answer_to(scope["path"])
    body = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
MAIN = (
    SERVING
    + '''

def answer_to(path):
    return {
        "/healthz": lambda: (int(os.environ.get("HEALTH", 200)), {}),
        "/parts": lambda: (201, {}),
        "/version": lambda: (200, {"generation": os.environ.get("FORGE_WORKER_GENERATION"), "pid": os.getpid()}),
        "/place": place,
    }.get(path, lambda: (404, {}))()


def create_app():
    return app


def place():
    """Where and with what this runs; and what it can write to."""
    writable = []
    for path in os.environ.get("TRY", "").split(":"):
        try:
            open(os.path.join(path, "written"), "w").close()
            writable.append(path)
        except OSError:
            pass
    settings = os.environ.get("SHOP_CONFIG", "")
    return 200, {
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "settings": open(settings).read() if settings else "",
        "writable": writable,
    }
'''
)
# Of an app of this kind.
PLAIN: dict[str, Any] = {
    "forge_target": "shop.main:app",
    "forge_migrations": [],
    "forge_schema_version": "",
    "forge_environment": {},
}
WORKER = '''
import asyncio

from uvicorn_worker import UvicornWorker


class ShopWorker(UvicornWorker):
    """As apps have one."""

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "headers": [("x-worker", "shop")]}


class OtherServer(ShopWorker):
    """Runs a server of its own: there is nothing that a drain could be added to."""

    async def _serve(self):
        from uvicorn.server import Server

        self.config.app = self.wsgi
        await Server(self.config).serve(sockets=self.sockets)
'''


def write_project(directory: Path, *requirements: str, **files: str) -> Path:
    """A project with its lock. Requirements as in pyproject.toml; files of the package ``shop``, name to text."""
    package = directory / "shop"
    package.mkdir(parents=True, exist_ok=True)
    for name, text in {"__init__": "", "main": MAIN, **files}.items():
        (package / f"{name}.py").write_text(text)
    (directory / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1.0"\nrequires-python = ">=3.11"\n'
        f"dependencies = {json.dumps(requirements)}\n"
    )
    subprocess.run(["uv", "lock", "--quiet"], cwd=directory, check=True)
    return directory


@contextmanager
def load(url: str, authority: str = "", pause: float = 0, **clients: int) -> Iterator[dict[str, Any]]:
    """Requests of several kinds while the block runs; afterwards the mapping says what became of them.

    ``silence`` is the longest time, in seconds, in which nobody was answered.

    :param authority: name of the host that is asked for; its address when empty.
    :param pause: seconds that a client waits after each request.
    :param clients: kind to number of clients; several of each when there are none.
    """
    kinds = clients or {"keepalive": 2, "closing": 2, "post": 2, "pausing": 6}
    command = [sys.executable, str(REPOSITORY / "tests" / "bench" / "load.py"), url]
    samples = tempfile.NamedTemporaryFile("r")  # noqa: SIM115
    command += [
        "--clients",
        ",".join(f"{kind}={count}" for kind, count in kinds.items()),
        "--samples",
        samples.name,
        "--pause",
        str(pause),
    ]
    command += ["--authority", authority] if authority else []
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = {}
    try:
        yield result
    finally:
        output, _errors = process.communicate(timeout=180)
    with samples:
        answered = sorted(float(line.split()[1]) for line in samples)
    silence = max((later - earlier for earlier, later in pairwise(answered)), default=0.0)
    result.update(json.loads(output), silence=round(silence, 2))
