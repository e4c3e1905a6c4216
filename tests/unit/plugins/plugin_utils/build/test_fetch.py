# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies at an address, checked by its hash."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.wheels import name_of
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace


CONTENT = b"wheel" * 50_000
HASHES = (f"sha256:{hashlib.sha256(CONTENT).hexdigest()}",)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    connections = 0
    seen: list[tuple[str, str | None]]

    def get_request(self):  # type: ignore[no-untyped-def]
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_arguments: object) -> None: ...  # a client that left early, as the tests want it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Authorization"]))
        kind = self.path.strip("/").partition("?")[0]
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if kind == "dropped" and self.server.connections == 1 and len(self.server.seen) > 1:  # one that was kept
            self.close_connection = True
            return
        self.send_response(404 if kind == "absent" else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        if kind == "closing":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if kind == "cut" else CONTENT)
        self.close_connection |= kind == "cut"

    def log_message(self, *_arguments: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_moved_is_fetched_where_it_is(server: Server, tmp_path: Path) -> None:
    Workspace(tmp_path).fetch(f"{server.url}/moved", tmp_path / "x", HASHES, "x")
    assert (tmp_path / "x").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "hashes", "sentence"),
    [
        ("absent", HASHES, r"^The wheel cannot be downloaded: HTTP Error 404: Not Found\. \(Package index: uv's own\. See forge_build_index_url.*\)$"),
        ("cut", HASHES, r"^The wheel (has another hash than the lock says: not used\.$|cannot be downloaded: )"),
        ("file", ("sha256:00",), r"^The wheel has another hash than the lock says: not used\.$"),
        ("file", (), r"^The wheel has another hash than the lock says: not used\.$"),
    ],
)
def test_what_is_not_right_is_not_kept(
    server: Server, tmp_path: Path, path: str, hashes: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(BuildError, match=sentence):
        Workspace(tmp_path).fetch(f"{server.url}/{path}", tmp_path / "x.whl", hashes, "The wheel")
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_there_and_no_secret_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"^x cannot be downloaded: .*refused") as caught:
        Workspace(tmp_path).fetch("http://me:hunter22@127.0.0.1:9/x?token=hunter22", tmp_path / "x", HASHES, "x")
    assert "hunter22" not in str(caught.value)


def test_credentials_of_an_index_go_to_its_host_and_to_no_other(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)
    places = {
        "http://me:p%40ss@127.0.0.1": "Basic bWU6cEBzcw==",
        "http://me:x@other.test": None,
        "https://me:x@127.0.0.1": None,
    }
    for place, told in places.items():
        with Workspace(tmp_path, f"{place}/simple").open(f"{server.url}/file") as answer:
            assert answer.read() == CONTENT
        assert server.seen[-1] == ("/file", told)


def test_credentials_of_netrc_are_known(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password p@ss\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    Workspace(tmp_path).open(f"{server.url}/file").close()
    assert server.seen[-1] == ("/file", "Basic bWU6cEBzcw==")


def test_a_proxy_is_asked_instead(server: Server) -> None:
    with Workspace(Path("/cache"), proxy=server.url).open("http://elsewhere.test/file") as answer:
        answer.read()
    assert server.seen == [("http://elsewhere.test/file", None)]


def test_name_of_a_file() -> None:
    assert name_of({"url": "https://h/a%2B1/x-1%2Blocal-py3-none-any.whl?token=1#f"}) == "x-1+local-py3-none-any.whl"
    assert name_of({"path": "../wheels/x-1-py3-none-any.whl"}) == "x-1-py3-none-any.whl"
    assert name_of({"url": "https://h/download?id=1", "name": "x.whl"}) == "x.whl"
