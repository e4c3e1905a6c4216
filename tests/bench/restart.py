# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long nobody is answered while a service is restarted, its workers are replaced, or one is killed.

usage: restart.py [--workers 1,2,3,5] [--server DIRECTORY] [--name NAME]

On a node of the lab, under load of clients that never retry (load.py), beside eight kept connections that idle and one
answer of five seconds. With --server, forge_server.py and forge_worker.py come from that directory, such as that of an
earlier version. Prints rows of a table; adds them to build/bench/restart.json under the name.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "system"))
os.environ.setdefault("FORGE_TEST_SET", "restart")

from conftest import SET, Fleet  # noqa: E402
from tiny import MAIN, load, write_project  # noqa: E402

RESULT = REPOSITORY / "build" / "bench" / "restart.json"
SLOW = '\n    if scope["path"] == "/slow":\n        await asyncio.sleep(5)\n    if scope["method"] == "POST":'
PIDS = "$(pgrep -P $(systemctl show -P MainPID calm@{live}.service)"
WAYS = {
    "restart": "systemctl restart calm",
    "restart of the unit": "systemctl restart calm@{live}.service",
    "a worker killed": f"kill -KILL {PIDS} | head -1)",
    "workers replaced": "",
}
SETTINGS = {
    "forge_app": "calm", "forge_target": "shop.main:app", "forge_migrations": [], "forge_schema_version": "",
    "forge_environment": {}, "forge_watch_seconds": 0, "forge_access_log": False,
}  # fmt: skip
CLIENTS = {"keepalive": 2, "closing": 2, "pausing": 6}


@contextmanager
def idle(address: str, count: int = 8) -> Iterator[None]:
    """Connections that have asked once."""
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection((address, 8000), 10))
            client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(65536)
        yield


def ask_slowly(address: str) -> None:
    with socket.create_connection((address, 8000), 60) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while client.recv(65536):
            pass


def measure(fleet: Fleet, way: str, seconds: float) -> dict[str, object]:
    live = fleet.on("box", "basename $(readlink /srv/calm/current)")
    address = fleet.address("box")
    with idle(address), load(fleet.url("box", ""), **CLIENTS) as result:
        threading.Thread(target=ask_slowly, args=(address,), daemon=True).start()
        time.sleep(1)
        if WAYS[way]:
            fleet.on("box", WAYS[way].format(live=live))
        time.sleep(seconds)
    return {
        "silence": result["silence"],
        "lost": result["total_lost"],
        "requests": result["total"],
        "how": result["lost"],
    }


def measure_all(fleet: Fleet, given: argparse.Namespace) -> None:
    source = RESULT.parent / "calm"
    main_py = MAIN.replace('\n    if scope["method"] == "POST":', SLOW)
    fleet.variables = {
        **SETTINGS, "forge_source": str(write_project(source, "gunicorn", "uvicorn[standard]", "uvicorn-worker", main=main_py)),
    }  # fmt: skip
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for workers in map(int, given.workers.split(",")):
        for limit in ("", "--max-requests 1000"):
            fleet.play("site", forge_workers=workers, forge_environment_plain={"GUNICORN_CMD_ARGS": limit})
            if given.server:
                live = fleet.on("box", "basename $(readlink /srv/calm/current)")
                for name in ("forge_server.py", "forge_worker.py"):
                    text = (given.server / name).read_text()
                    fleet.on("box", f"cat > /srv/calm/generations/{live}/{name} <<'END'\n{text}\nEND")
                fleet.on("box", f"systemctl restart calm@{live}.service")
                time.sleep(3)
            for way in ["workers replaced"] if limit else [way for way in WAYS if WAYS[way]]:
                row = measure(fleet, way, given.seconds * (2 if limit else 1))
                results.setdefault(given.name, {})[f"{way}, {workers}"] = row
                print(f"{given.name:8} {way:22} {workers}: {row}", flush=True)
                RESULT.write_text(json.dumps(results, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", default="1,2,3,5")
    parser.add_argument("--server", type=Path)
    parser.add_argument("--name", default="now")
    parser.add_argument("--seconds", type=float, default=10, help="after each command; a drain is 20")
    given = parser.parse_args()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    with Fleet(lab_set=f"{SET}box", without_database=True).with_nodes("box=debian12:forge_app") as fleet:
        measure_all(fleet, given)


if __name__ == "__main__":
    main()
