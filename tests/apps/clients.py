# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks for one path until the standard input ends, kept-alive and closing; prints what was lost as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from load import Connection, Lost


async def client(host: str, port: int, path: str, close: bool, stopping: asyncio.Event, seen: Counter) -> None:
    connection = Connection(host, port)
    while not stopping.is_set():
        if connection.closed_by_server():
            connection.drop()
        seen["requests"] += 1
        try:
            await connection.ask("GET", path, close=close)
        except Lost as loss:
            seen[f"lost: {loss}"] += 1
            connection.drop()
        await asyncio.sleep(0.05)
    connection.drop()


async def main(url: str, path: str) -> None:
    address, stopping, seen = urlsplit(url), asyncio.Event(), Counter()
    host, port = str(address.hostname), int(address.port or 80)
    tasks = [asyncio.create_task(client(host, port, path, number % 2 == 0, stopping, seen)) for number in range(8)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    stopping.set()
    await asyncio.gather(*tasks)
    lost = {kind: count for kind, count in seen.items() if kind.startswith("lost")}
    print(json.dumps({"requests": seen["requests"], "lost": lost}), flush=True)


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 600))
