# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether addresses can be opened, tried on this machine with sockets of this process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import listening
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.addresses import (
    are_disjoint,
    first_overlap,
    parse,
    problem,
)


@pytest.fixture
def port() -> Iterator[int]:
    """A port of 127.0.0.1 that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("one", "two", "only_one"),
    [
        ("0.0.0.0:8000", "127.0.0.1:8000", True),
        ("0.0.0.0:8000", "127.0.0.1:8001", False),
        ("192.0.2.1:80", "192.0.2.2:80", False),
        ("[::]:80", "0.0.0.0:80", True),
        ("80", "127.0.0.1:80", True),
        ("[::1]:80", "127.0.0.1:80", False),
        ("[::]:80", "[2001:db8::1]:80", True),
        ("/run/a.sock", "/run/a.sock", True),
        ("/run/a.sock", "/run/b.sock", False),
        ("/run/a.sock", "80", False),
    ],
)
def test_two_addresses_of_one_port_cannot_both_be_open(one: str, two: str, only_one: bool) -> None:
    assert first_overlap(["1.2.3.4:1", one, two]) == ((one, two) if only_one else None)
    assert are_disjoint([one], [two]) is not only_one
    if only_one:
        sentence = f"forge_listen: {one} and {two} are the same or overlap: leave out one of them."
        assert problem("shop", [one, two], [one]) == sentence


def test_what_nobody_can_read_is_left_to_systemd() -> None:
    assert parse("vsock:2:80") is None
    assert problem("shop", ["vsock:2:80"], []) == ""
    assert not are_disjoint(["vsock:2:80"], ["80"])


def test_address_that_is_taken_names_who_has_it(port: int) -> None:
    name = Path("/proc/self/comm").read_text().strip()
    for text in (f"127.0.0.1:{port}", f"0.0.0.0:{port}", f"[::]:{port}"):
        found = problem("shop", [text], [])
        assert found.startswith(f"forge_listen: {text} is taken by {name}")
        assert found.endswith(": give this app another address, or stop what is there.")


def test_address_that_is_free_or_open_already_is_no_problem(port: int) -> None:
    assert problem("shop", [f"127.0.0.2:{port}"], []) == ""
    assert problem("shop", [f"127.0.0.1:{port}"], [f"127.0.0.1:{port}"]) == ""


@pytest.mark.parametrize("unit", ["shop.socket", "shop@aaaaaaaaaaaa-00000000.service", "shop.service"])
def test_what_this_app_has_itself_is_no_problem(port: int, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening.Sockets, "holder", lambda _self, _listener: listening.Holder("gunicorn", unit))
    assert problem("shop", [f"0.0.0.0:{port}"], []) == ""
    assert f"(unit {unit})" in problem("other", [f"0.0.0.0:{port}"], [])


def test_holder_that_cannot_be_found_is_another_program(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening.Sockets, "listeners", lambda _self: [])
    assert "is taken by another program: give" in problem("shop", [f"127.0.0.1:{port}"], [])


def test_address_of_another_host_is_said() -> None:
    assert (
        problem("shop", ["192.0.2.1:8000"], []) == "forge_listen: 192.0.2.1:8000: this host does not have that address."
    )


def test_unix_socket_that_somebody_uses_is_not_taken_away(tmp_path: Path) -> None:
    """systemd would remove it."""
    path = str(tmp_path / "app.sock")
    assert problem("shop", [path], []) == ""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert problem("shop", [path], []).startswith(f"forge_listen: {path} is taken by ")
    assert problem("shop", [path], []) == "", "nobody listens any more"
    (tmp_path / "file").write_text("a letter")
    assert "is there and is no socket" in problem("shop", [str(tmp_path / "file")], [])
