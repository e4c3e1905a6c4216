# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What HAProxy is asked while it runs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import haproxy

HEAD = "# pxname,svname,qcur,scur,status\n"
STAT = HEAD + (
    "forge_http,FRONTEND,,5,OPEN\nshop,web1,0,2,UP\nshop,web2,1,0,DOWN\nshop,BACKEND,0,2,UP\n"
    "shop.writes,web1,0,1,UP\nshop.writes,web2,0,0,DOWN\nblog,web1,0,9,UP\n"
)


class Admin:
    """A socket that answers as HAProxy's does."""

    def __init__(self, path: Path) -> None:
        self.path, self.asked = str(path), []
        self.answers: dict[str, str] = {}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)  # which ends accept()
        self.thread.join()
        self.listener.close()

    def serve(self) -> None:
        while True:
            try:
                peer, _address = self.listener.accept()
            except OSError:
                return
            with peer:
                command = peer.recv(65536).decode()
                self.asked.append(command)
                peer.sendall(next((text for key, text in self.answers.items() if command.startswith(key)), "").encode())


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    found = Admin(tmp_path / "admin.sock")
    yield found
    found.close()


def test_servers_of_an_app_are_those_of_both_backends(admin: Admin) -> None:
    admin.answers["show stat"] = STAT
    assert haproxy.servers("shop", admin.path) == {
        "web1": {"status": "UP", "current": 3},
        "web2": {"status": "DOWN", "current": 1},
    }


def test_nobody_who_answers_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(haproxy.HAProxyError, match="HAProxy does not answer on .*No such file"):
        haproxy.ask("show info", str(tmp_path / "nothing"))


def looks(*statuses: tuple[str, int]):  # type: ignore[no-untyped-def]
    """Answers one after the other, the last one for ever."""
    left = [{"web1": {"status": status, "current": current}} for status, current in statuses]

    def look(_app: str):  # type: ignore[no-untyped-def]
        return left.pop(0) if len(left) > 1 else left[0]

    return look


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(haproxy.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(haproxy.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_drained_is_not_up_and_quiet_twice(clock: list[float]) -> None:
    look = looks(("UP 1/2", 3), ("DOWN", 2), ("DOWN", 0), ("DOWN", 1), ("DOWN", 0))
    assert haproxy.wait_for("shop", ["web1"], False, 60, look) == {"web1": {"status": "DOWN", "current": 0}}
    assert clock[0] == pytest.approx(100 + 4 * haproxy.PAUSE + haproxy.QUIET)


def test_a_wait_has_an_end(clock: list[float]) -> None:
    assert haproxy.wait_for("shop", ["web1"], False, 5, looks(("UP", 1)))["web1"]["current"] == 1
    assert clock[0] == pytest.approx(105, abs=haproxy.PAUSE)


def test_undrained_is_up(clock: list[float]) -> None:
    assert haproxy.wait_for("shop", ["web1"], True, 60, looks(("DOWN", 0), ("DOWN 1/2", 0), ("UP", 0)))
    assert clock[0] == pytest.approx(100 + 2 * haproxy.PAUSE)


def test_certificate_is_changed_without_a_reload(admin: Admin) -> None:
    admin.answers = {"set ssl cert": "Transaction created for certificate x!", "commit": "Committing x\nSuccess!"}
    haproxy.change_certificate("/x.pem", "one\n\ntwo\n", admin.path)
    assert admin.asked == ["set ssl cert /x.pem <<\none\ntwo\n\n", "commit ssl cert /x.pem\n"]


def test_certificate_that_is_refused_is_said(admin: Admin) -> None:
    admin.answers = {"set ssl cert": "unable to load certificate"}
    with pytest.raises(haproxy.HAProxyError, match="unable to load certificate"):
        haproxy.change_certificate("/x.pem", "one\n", admin.path)
    admin.answers = {"set ssl cert": "Transaction created", "commit": "Committing\nFailed!"}
    with pytest.raises(haproxy.HAProxyError, match="Failed"):
        haproxy.change_certificate("/x.pem", "one\n", admin.path)
    assert admin.asked[-1].startswith("abort ssl cert")
