# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests over the private socket, asked of a real server."""

from __future__ import annotations

import http.client
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.probe import ask, smoke_problem


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(0.4)
        if self.path == "/garbage":
            self.wfile.write(b"SSH-2.0-nothing\r\n")
            self.close_connection = True
            return
        if self.path == "/hangup":
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length", 0))
        said = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.rfile.read(length).decode(),
        }
        body = json.dumps(said).encode() if self.path != "/binary" else b"\xff\xfe"
        self.send_response(503 if self.path == "/sick" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_arguments: object) -> None:
        """A client that did not wait is part of the tests."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = str(tmp_path_factory.mktemp("run") / "private.sock")
    with Server(path, Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield path
        serving.shutdown()


def test_status_and_text_of_an_answer(server: str) -> None:
    status, text = ask(server, "/healthz", 5)
    said = json.loads(text)
    assert (status, said["method"], said["path"]) == (200, "GET", "/healthz")
    assert said["headers"]["connection"] == "close"
    assert said["headers"]["host"] == "localhost"
    assert ask(server, "/sick", 5)[0] == 503
    assert ask(server, "/binary", 5) == (200, "\N{REPLACEMENT CHARACTER}" * 2)


@pytest.mark.parametrize(
    ("body", "sent", "kind"),
    [
        ({"a": 1}, '{"a": 1}', "application/json"),
        ([], "[]", "application/json"),
        ("a=1", "a=1", None),
        (None, "", None),
    ],
)
def test_body_is_json_unless_it_is_text(server: str, body: object, sent: str, kind: str | None) -> None:
    said = json.loads(ask(server, "/orders", 5, "POST", body, {"X-Tenant": "t"})[1])
    assert (said["method"], said["body"], said["headers"].get("content-type")) == ("POST", sent, kind)
    assert said["headers"]["x-tenant"] == "t"


def test_content_type_can_be_given(server: str) -> None:
    said = json.loads(ask(server, "/", 5, "PUT", {"a": 1}, {"Content-Type": "application/merge-patch+json"})[1])
    assert said["headers"]["content-type"] == "application/merge-patch+json"


@pytest.mark.parametrize("target", ["/slow", "/garbage", "/hangup"])
def test_no_answer_in_time_is_an_error(server: str, target: str) -> None:
    began = time.monotonic()
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(server, target, 0.1)
    assert time.monotonic() - began < 2


def test_nobody_who_listens_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ask(str(tmp_path / "none.sock"), "/", 1)


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"path": "/"}, ""),
        ({"path": "/", "method": "post", "contains": '"method": "POST"'}, ""),
        ({"path": "/sick", "status": 503}, ""),
        ({"path": "/sick", "status": "503"}, ""),
        ({"path": "/sick"}, "GET /sick answered 503, not 200"),
        ({"path": "/", "status": 201}, "GET / answered 200, not 201"),
        ({"path": "/", "contains": "welcome"}, "GET / answered without 'welcome'"),
        ({"path": "/hangup"}, "GET /hangup got no answer (RemoteDisconnected)"),
    ],
)
def test_smoke_requests(server: str, request_: dict[str, object], problem: str) -> None:
    assert smoke_problem(server, request_, 5) == problem


def test_smoke_request_to_nobody(tmp_path: Path) -> None:
    problem = smoke_problem(str(tmp_path / "none.sock"), {"path": "/"}, 1)
    assert problem == "GET / got no answer (FileNotFoundError)"
