# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP over the private socket of a generation: health and smoke requests."""

from __future__ import annotations

import http.client
import json
import re
import socket
from dataclasses import dataclass
from typing import Any

AGENT = "thecodeforge.fastapi"
PROBE_TIMEOUT = 5.0  # seconds
LATER = (408, 425, 429)  # "try again", in other words


class PrivateConnection(http.client.HTTPConnection):
    """An HTTP connection to a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


@dataclass(frozen=True)
class HealthCheck:
    """What a healthy generation answers.

    ``passes``: times in a row, for a candidate; ``deadline``: seconds until it must have done so.
    """

    path: str = "/healthz"
    status: int = 200
    passes: int = 1
    deadline: int = 60

    def problem(self, socket_path: str, timeout: float = PROBE_TIMEOUT) -> str:
        """Ask once; what is wrong with the answer, empty when nothing is.

        :param socket_path: private socket of the generation.
        :param timeout: seconds.
        """
        try:
            status, _text = ask(socket_path, self.path, timeout)
        except (OSError, http.client.HTTPException):
            return f"it did not answer GET {self.path}"
        return "" if status == self.status else f"GET {self.path} answered {status}, not {self.status}"

    def is_final(self, problem: str) -> bool:
        """Whether a problem is an answer that waiting does not change: there is no such route, it moved, it wants a login.

        An app that is not ready yet says so with another 5xx than 501, or with one of what :data:`LATER` names.
        """
        found = re.search(r" answered (\d+), not ", problem)
        status = int(found[1]) if found else 0
        return (200 <= status < 500 or status == 501) and status not in LATER


def ask(
    path: str, target: str, timeout: float, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """Status and text that a generation answers.

    :param path: path of the private socket.
    :param body: sent as it is when it is a string, as JSON otherwise.
    :raises OSError, http.client.HTTPException: when there is no answer within ``timeout`` seconds.
    """
    sent = {"User-Agent": AGENT, "Connection": "close", **(headers or {})}
    content = None
    if body is not None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        if not isinstance(body, str):
            sent.setdefault("Content-Type", "application/json")
    connection = PrivateConnection(path, timeout)
    try:
        connection.request(method, target, body=content, headers=sent)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def smoke_problem(path: str, request: dict, timeout: float) -> str:
    """Send one smoke request; what is wrong with the answer, empty when nothing is.

    :param request: ``path``, and optionally ``method``, ``status``, ``body``, ``headers``, ``contains``.
    """
    method = str(request.get("method", "GET")).upper()
    name = f"{method} {request['path']}"
    try:
        status, text = ask(path, request["path"], timeout, method, request.get("body"), request.get("headers"))
    except (OSError, http.client.HTTPException) as error:
        return f"{name} got no answer ({type(error).__name__})"
    wanted = int(request.get("status", 200))
    if status != wanted:
        return f"{name} answered {status}, not {wanted}"
    if str(request.get("contains", "")) not in text:
        return f"{name} answered without {request['contains']!r}"
    return ""
