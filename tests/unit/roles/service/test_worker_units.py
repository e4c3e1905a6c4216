# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's small parts."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import layout, serving
from worker_harness import WORKER

sys.path.insert(0, str(WORKER))
import forge_server
import forge_worker
from forge_server import END_OF_STREAM, SERVICE_RESTART, ClientDisconnected, DrainableApp, StateFile

LOG = logging.getLogger("test")


@pytest.fixture
def link(tmp_path, monkeypatch):
    monkeypatch.setenv("FORGE_WORKER_CURRENT", str(tmp_path / "current"))
    monkeypatch.setenv("FORGE_WORKER_GENERATION", "abc")
    return tmp_path / "current"


@pytest.mark.parametrize(
    ("target", "live"),
    [("generations/abc", True), ("/srv/forge/generations/abc/", True), ("abc", True), ("generations/abcd", False)],
)
def test_live_is_what_the_link_names(link, target, live):
    link.symlink_to(target)
    assert forge_server.is_live(default=not live) is live


def test_missing_link_is_not_live(link):
    assert not forge_server.is_live(default=True)
    link.write_text("not a link")
    assert not forge_server.is_live(default=True)


@pytest.mark.parametrize("default", [True, False])
def test_nothing_is_said_about_a_link(monkeypatch, default):
    monkeypatch.delenv("FORGE_WORKER_CURRENT", raising=False)
    assert forge_server.is_live(default) is default


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, (["a", "b", "c"], [])),
        ("public:private:public", (["b"], ["a", "c"])),
        ("private:forge.socket:public", (["a", "b"], ["c"])),
    ],
)
def test_sockets_by_name(monkeypatch, names, expected):
    monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
    if names:
        monkeypatch.setenv("LISTEN_FDNAMES", names)
    assert forge_server.split_sockets(list("abc")) == expected


def test_every_socket_needs_a_name(monkeypatch):
    monkeypatch.setenv("LISTEN_FDNAMES", "public")
    with pytest.raises(RuntimeError, match="1 names for 2 sockets"):
        forge_server.split_sockets(["a", "b"])


def test_state_file(tmp_path):
    state = StateFile(str(tmp_path), LOG)
    for word in "standby", "public", "draining":
        state.write(word)
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(str(os.getpid()), word)]
    state.remove()
    state.remove()
    assert list(tmp_path.iterdir()) == []


def test_state_file_is_no_condition(tmp_path, caplog):
    state = StateFile(str(tmp_path / "missing"), LOG)
    state.write("public")
    assert "Cannot write that this worker is public" in caplog.text
    state.remove_stale(1)
    StateFile(None, LOG).write("public")


def test_stale_files_are_those_of_no_child_of_the_master(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as child:  # a sibling, seen from another worker
        dead = subprocess.Popen(["true"])
        dead.wait()
        for name in (child.pid, dead.pid, os.getpid(), 1, "wgunicorn-x", "notes"):
            (tmp_path / str(name)).write_text("public")
        StateFile(str(tmp_path), LOG).remove_stale(master=os.getpid())
        assert {path.name for path in tmp_path.iterdir()} == {str(child.pid), "wgunicorn-x", "notes"}
        child.kill()


class Http:
    """Of Uvicorn's protocols what the worker looks at."""

    def __init__(self, scope, **attributes) -> None:
        self.scope = scope
        self.__dict__.update(attributes)


def test_newest_request_of_a_connection():
    first, second = {"path": "/same"}, {"path": "/same"}
    assert forge_server.is_newest_request(Http(second), second)
    assert not forge_server.is_newest_request(Http(second), first)
    assert forge_server.is_newest_request(Http(first, conn=SimpleNamespace(trailing_data=(b"", False))), first)
    assert not forge_server.is_newest_request(Http(first, conn=SimpleNamespace(trailing_data=(b"GET", False))), first)
    websocket = SimpleNamespace(conn=SimpleNamespace())
    assert not forge_server.is_newest_request(websocket, first)
    assert not forge_server.is_newest_request(Http(second, conn=SimpleNamespace()), first)


def sent_by(messages, kind="http", draining=False, ended_after=None, ends_streams=True):
    """What reaches the server of an app's messages, where the drain ends what lasts after some of them.

    The app goes on in the same turn of the event loop, as happens on a busy machine.
    """
    scope, sent = {"type": kind}, []

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        for number, message in enumerate(messages):
            if number == ended_after:
                for response in [*drainable.event_streams, *drainable.websockets]:
                    response.end()
            await send(message)

    async def run():
        await drainable(scope, None, send)

    drainable = DrainableApp(app, {Http(scope)}, ends_streams)
    drainable.set_draining(draining)
    sent_by.last = sent
    asyncio.run(run())
    return sent


def response(*headers):
    return [
        {"type": "http.response.start", "status": 200, "headers": [*headers]},
        {"type": "http.response.body", "body": b"1", "more_body": True},
        {"type": "http.response.body", "body": b"2", "more_body": False},
    ]


EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
PLAIN = (b"content-type", b"application/octet-stream")


@pytest.mark.parametrize("header", [EVENTS, PLAIN])
def test_messages_pass_unchanged(header):
    assert sent_by(response(header)) == response(header)


def test_a_drain_closes_connections():
    start = sent_by(response(PLAIN), draining=True)[0]
    assert start["headers"] == [PLAIN, (b"connection", b"close")]


def test_headers_may_be_an_iterator():
    messages = response(EVENTS)
    messages[0]["headers"] = iter([EVENTS])
    assert sent_by(messages)[0]["headers"] == [EVENTS]
    del messages[0]["headers"]
    assert sent_by(messages, draining=True)[0]["headers"] == [(b"connection", b"close")]


def test_an_ended_event_stream_is_complete_and_then_silent():
    assert sent_by(response(EVENTS), ended_after=2) == [*response(EVENTS)[:2], END_OF_STREAM]


def test_an_event_stream_is_ended_only_where_that_is_wanted():
    assert sent_by(response(EVENTS), ended_after=2, ends_streams=False) == response(EVENTS)


def test_a_download_is_never_ended():
    assert sent_by(response(PLAIN), ended_after=2) == response(PLAIN)


def test_an_event_stream_that_ended_itself_is_left_alone():
    messages = response(EVENTS)
    extra = {"type": "http.response.body", "body": b"the app's mistake"}
    assert sent_by([*messages, extra], ended_after=3) == [*messages, extra]


def test_an_ended_websocket_refuses_more():
    talk = [{"type": "websocket.accept"}, {"type": "websocket.send", "text": "1"}]
    assert sent_by(talk, kind="websocket") == talk
    with pytest.raises(ClientDisconnected):
        sent_by([*talk, talk[1]], kind="websocket", ended_after=2)
    assert sent_by.last == [*talk, SERVICE_RESTART]  # before the app learns of it, as its return closes the connection


def test_a_rejected_websocket_is_left_alone():
    talk = [{"type": "websocket.close"}, {"type": "websocket.close"}]
    assert sent_by(talk, kind="websocket", ended_after=1) == talk
    assert SERVICE_RESTART["code"] == 1012


@pytest.mark.parametrize(
    ("client", "seen"),
    [
        (("::ffff:10.1.2.3", 5), ("10.1.2.3", 5)),
        (None, ("127.0.0.1", 0)),
        (("10.1.2.3", 5), ("10.1.2.3", 5)),
        (("2001:db8::1", 5), ("2001:db8::1", 5)),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_peer_is_seen_as_a_person_means_it(client, seen, kind):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope["client"])

    async def run():
        await DrainableApp(app, set())({"type": kind, "client": client}, None, None)

    asyncio.run(run())
    assert scopes == [seen]


class Cycle:
    """Of Uvicorn's answers what the worker looks at."""

    def __init__(self, scope, started=False, complete=False) -> None:
        self.scope, self.default_headers = scope, [(b"server", b"uvicorn")]
        self.response_started, self.response_complete = started, complete


def test_answers_that_have_not_begun_say_that_they_are_the_last():
    first, second = {"path": "/first"}, {"path": "/second"}
    waiting, started, pipelined = Cycle(first), Cycle(first, started=True), Cycle(first)
    connections = {Http(first, cycle=waiting), Http(first, cycle=started), Http(second, cycle=pipelined)}
    DrainableApp(None, connections | {Http(None, cycle=None), Http(first)}).set_draining(True)
    headers = [cycle.default_headers[1:] for cycle in (waiting, started, pipelined)]
    assert headers == [[(b"connection", b"close")], [], []]


def test_a_connection_is_idle_when_nothing_is_under_way_or_unread():
    ours, theirs = socket.socketpair()
    transport = SimpleNamespace(get_extra_info=lambda _name: ours)
    scope = {"path": "/"}

    def is_idle(cycle, newest=scope):
        return forge_server.is_idle(Http(newest, cycle=cycle, transport=transport))

    with ours, theirs:
        assert is_idle(Cycle(scope, complete=True))
        assert is_idle(None, newest=None)
        assert not is_idle(Cycle(scope))
        assert not is_idle(Cycle(scope, complete=True), newest={"path": "/being-read"})
        assert not is_idle(None, newest={"path": "/being-read"})
        assert not forge_server.is_idle(Http(scope, transport=transport))  # a websocket
        theirs.send(b"GET")
        assert not is_idle(Cycle(scope, complete=True))


def test_one_worker_at_a_time_may_be_replaced(tmp_path):
    first, second = StateFile(str(tmp_path), LOG), StateFile(str(tmp_path), LOG)
    assert first.take_turn()
    assert first.take_turn()
    assert not second.take_turn()
    os.close(first.turn)
    assert second.take_turn()
    assert StateFile(None, LOG).take_turn()


def test_others_accept_when_a_sibling_says_so(tmp_path):
    state = StateFile(str(tmp_path), LOG)
    assert not StateFile(None, LOG).others_accept()
    state.write("public")
    (tmp_path / "1").write_text("public")  # runs, and is no worker of our master
    assert not state.others_accept()
    sibling = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / str(sibling.pid)).write_text("public")
        (tmp_path / "ended").write_text("public")
        seen_by_child = subprocess.run(
            [sys.executable, "-c", "import forge_server as f; print(f.StateFile('.', None).others_accept())"],
            env={**os.environ, "PYTHONPATH": str(WORKER)}, cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert seen_by_child.stdout == "True\n"
    finally:
        sibling.kill()
        sibling.wait()


class Own(forge_worker.STOCK[0]):
    """An app's worker class."""

    CONFIG_KWARGS = {"loop": "asyncio", "http": "h11", "timeout_graceful_shutdown": 99}


def test_an_own_class_keeps_its_settings_and_drains():
    combined = forge_worker.with_drain(Own)
    assert issubclass(combined, Own)
    assert combined._serve is forge_worker.Draining._serve
    assert combined.CONFIG_KWARGS == {"loop": "asyncio", "http": "h11", "timeout_graceful_shutdown": 2}


def test_another_kind_of_worker_is_left_as_it_is():
    from gunicorn.workers.sync import SyncWorker

    class OtherServer(Own):
        async def _serve(self) -> None: ...

    assert forge_worker.with_drain(SyncWorker) is SyncWorker
    assert forge_worker.with_drain(OtherServer) is OtherServer


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("uvicorn_worker.UvicornWorker", "drains"),
        ("gunicorn.workers.sync.SyncWorker", "cannot drain"),
        ("gunicorn.nothing.Worker", "problem ModuleNotFoundError: No module named 'gunicorn.nothing'"),
        ("gunicorn.workers.Worker", "problem AttributeError: module 'gunicorn.workers' has no attribute 'Worker'"),
    ],
)
def test_a_class_is_asked_whether_it_can_drain(path, said):
    command = [sys.executable, "-m", "forge_worker", path]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(WORKER)}, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == said


def test_one_process_needs_sockets_of_systemd(monkeypatch):
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_PID", "1")
    with pytest.raises(SystemExit, match="systemd has passed no socket"):
        forge_server.sockets_of_systemd()


def test_words_that_the_modules_share_with_the_server():
    """The server runs in the app's own Python, which has no modules of Ansible: so they are there twice."""
    assert forge_server.STANDBY_REQUEST == layout.STANDBY_REQUEST
    assert forge_server.PUBLIC == serving.PUBLIC
