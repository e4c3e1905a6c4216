# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy's runtime API: what its servers do, and changes that need no reload."""

from __future__ import annotations

import csv
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import TypedDict

from .edge_config import ADMIN_SOCKET

TIMEOUT = 5.0  # seconds for an answer
PAUSE = 0.25
QUIET = 1.0  # seconds between two looks that find nothing under way


class HAProxyError(Exception):
    """Raised when HAProxy does not answer, or refuses; the text is its own."""


class Server(TypedDict):
    """A server of a backend, as the edge sees it."""

    status: str  # UP, DOWN, MAINT, …, with HAProxy's details
    current: int  # requests under way, in both backends of the app


def ask(command: str, path: str = ADMIN_SOCKET) -> str:
    """Send a command, and return what HAProxy answers.

    :raises HAProxyError: when nobody answers.
    """
    try:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as peer:
            peer.settimeout(TIMEOUT)
            peer.connect(path)
            peer.sendall(command.encode() + b"\n")
            parts: list[bytes] = []
            while True:
                part = peer.recv(65536)
                if not part:
                    return b"".join(parts).decode(errors="replace").strip()
                parts.append(part)
    except OSError as error:
        raise HAProxyError(f"HAProxy does not answer on {path} ({os.strerror(error.errno or 0)})") from None


def servers(app: str, path: str = ADMIN_SOCKET) -> dict[str, Server]:
    """Servers of an app, by their names."""
    found: dict[str, Server] = {}
    for row in csv.DictReader(ask("show stat", path).lstrip("# ").splitlines()):
        backend, name = row["pxname"], row["svname"]
        if backend in (app, f"{app}.writes") and name not in ("FRONTEND", "BACKEND"):
            server = found.setdefault(name, {"status": "", "current": 0})
            server["current"] += int(row["scur"] or 0) + int(row["qcur"] or 0)
            if backend == app:
                server["status"] = row["status"]
    return found


def is_up(server: Server) -> bool:
    """Whether new requests are sent there; ``UP 1/2`` is one whose check has just failed."""
    return server["status"].startswith("UP") or server["status"] == "no check"


def wait_for(
    app: str, names: Iterable[str], up: bool, seconds: float, look: Callable[[str], dict[str, Server]] = servers
) -> dict[str, Server]:
    """Wait until servers are up; or until they are not and nothing is under way there, twice. Return what was last seen.

    :param seconds: to wait at most. Who asks has to look whether it has happened.
    """
    names, deadline, quiet_since = list(names), time.monotonic() + seconds, 0.0
    while True:
        found = {name: server for name, server in look(app).items() if name in names}
        now = time.monotonic()
        if up:
            done = all(map(is_up, found.values()))
        else:
            quiet = not any(is_up(server) or server["current"] for server in found.values())
            quiet_since = (quiet_since or now) if quiet else 0.0
            done = quiet and (now - quiet_since >= QUIET or not found)
        if done or now >= deadline:
            return found
        time.sleep(PAUSE)


def change_certificate(file: str, pem: str, path: str = ADMIN_SOCKET) -> None:
    """Let HAProxy use another certificate for new connections, without a reload.

    :param pem: certificate, chain and key. An empty line would end it.
    :raises HAProxyError: when it is refused; the one before is used on.
    """
    payload = "\n".join(line for line in pem.splitlines() if line.strip())
    prepared = ask(f"set ssl cert {file} <<\n{payload}\n", path)
    if "Transaction" not in prepared:
        raise HAProxyError(prepared or "it does not say why")
    committed = ask(f"commit ssl cert {file}", path)
    if "Success" not in committed:
        ask(f"abort ssl cert {file}", path)
        raise HAProxyError(committed or "it does not say why")
