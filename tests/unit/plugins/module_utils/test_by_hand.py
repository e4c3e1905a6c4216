# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hand-made service costs its clients when it is taken over, with sockets of this process as the service's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import by_hand
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.by_hand import ByHand, is_covered
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.listening import endpoint


class Service(ByHand):
    """Its processes are this one, and no socket unit is there."""

    given: tuple[str, ...] = ()

    def processes(self) -> list[int]:
        return [os.getpid()]

    def given_by_systemd(self) -> list[str]:
        return list(self.given)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Port and path at which it listens; two clients are connected to the one, one to the other."""
    with ExitStack() as held:
        tcp = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        port, path = tcp.getsockname()[1], str(tmp_path / "s.sock")
        local = held.enter_context(socket.socket(socket.AF_UNIX))
        local.bind(path)
        local.listen()
        for _number in range(2):
            held.enter_context(socket.create_connection(("127.0.0.1", port)))
            held.enter_context(tcp.accept()[0])
        client = held.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(path)
        held.enter_context(local.accept()[0])
        yield port, path


def test_open_connections_are_counted(web: tuple[int, str]) -> None:
    port, path = web
    both = Service("shop", [f"127.0.0.1:{port}", path])
    assert f"127.0.0.1:{port}" in both.state()
    assert path in both.state()
    assert both.cost() == "No new connection is lost. Its open connections, now 3, end as at each restart of it."


def test_an_address_that_is_given_up_is_named(web: tuple[int, str]) -> None:
    port, path = web
    assert f"Nobody listens at {path} any more: forge_listen does not name it." in Service("shop", [str(port)]).cost()
    other = Service("shop", [f"127.0.0.1:{port + 1}"]).cost()
    assert "No new connection is lost" not in other
    assert f"127.0.0.1:{port}" in other


def test_where_a_socket_cannot_be_shared_it_is_said(web: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_hand, "PIDFD_GETFD", 100000)  # a call that no kernel has
    service = Service("shop", [str(web[0])])
    assert service.cost().startswith("New connections are refused for ")
    service.given = (f"127.0.0.1:{web[0]}",)
    assert service.cost().startswith("No new connection is refused; one that the old"), "systemd holds it already"


@pytest.mark.parametrize(
    ("place", "wanted", "is_reached"),
    [
        ("127.0.0.1:80", "0.0.0.0:80", True),
        ("0.0.0.0:80", "80", True),
        ("0.0.0.0:80", "127.0.0.1:80", False),
        ("[::1]:80", "0.0.0.0:80", False),
        ("/run/a.sock", "/run/a.sock", True),
        ("/run/a.sock", "80", False),
    ],
)
def test_who_connects_there_reaches_ours(place: str, wanted: str, is_reached: bool) -> None:
    assert is_covered(endpoint(place), [endpoint(wanted)]) is is_reached
