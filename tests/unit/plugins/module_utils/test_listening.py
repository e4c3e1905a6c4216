# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses overlap, and who has one already. Real sockets of this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.listening import (
    Endpoint,
    Holder,
    Sockets,
    address_of,
    endpoint,
    overlap,
    root_of,
    unit_of,
    why_taken,
)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("8000", Endpoint("::", 8000)),
        ("0.0.0.0:80", Endpoint("0.0.0.0", 80)),
        ("[0:0::1]:80", Endpoint("::1", 80)),
        ("[::ffff:127.0.0.1]:80", Endpoint("127.0.0.1", 80)),
        ("/run//shop/../shop.sock", Endpoint("/run/shop.sock", 0)),
    ],
)
def test_endpoint(entry: str, expected: Endpoint) -> None:
    assert endpoint(entry) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("8000", "8000", True),
        ("8000", "0.0.0.0:8000", True),
        ("8000", "127.0.0.1:8000", True),
        ("8000", "[::1]:8000", True),
        ("0.0.0.0:8000", "127.0.0.1:8000", True),
        ("0.0.0.0:8000", "[::1]:8000", False),
        ("127.0.0.1:8000", "[::1]:8000", False),
        ("127.0.0.1:8000", "127.0.0.2:8000", False),
        ("8000", "8001", False),
        ("/run/a.sock", "/run/b.sock", False),
        ("/run/a.sock", "/run/./a.sock", True),
        ("/run/a.sock", "8000", False),
    ],
)
def test_overlap(one: str, other: str, expected: bool) -> None:
    assert overlap(endpoint(one), endpoint(other)) is expected
    assert overlap(endpoint(other), endpoint(one)) is expected


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [("0100007F", "127.0.0.1"), ("00000000", "0.0.0.0"), ("0" * 32, "::"), ("0" * 24 + "01000000", "::1"),
     ("0000000000000000FFFF00000100007F", "127.0.0.1")],
)  # fmt: skip
def test_addresses_of_the_kernel(kernel: str, expected: str) -> None:
    assert address_of(kernel) == expected


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_who_listens_is_named(taken: int) -> None:
    found = why_taken(f"127.0.0.1:{taken}", [])
    assert isinstance(found, Holder)
    assert found.program == Path("/proc/self/comm").read_text().strip()
    assert str(found).startswith(found.program)
    assert isinstance(why_taken(str(taken), []), Holder)  # every address is also this one
    assert why_taken(f"127.0.0.2:{taken}", []) == ""


def test_an_address_is_ours_only_when_systemd_holds_it(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [Endpoint("127.0.0.1", taken)]
    assert isinstance(why_taken(f"127.0.0.1:{taken}", ours), Holder)
    monkeypatch.setattr(Sockets, "holds", lambda _self, pid, _inode: pid == "1")
    assert why_taken(f"127.0.0.1:{taken}", ours) == ""
    assert why_taken(f"0.0.0.0:{taken}", ours) == ""  # the address changes


def test_an_address_of_no_host() -> None:
    assert why_taken("192.0.2.1:8000", []) == "is no address of this host"


def test_paths_of_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "shop.sock")
    assert why_taken(path, []) == ""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert why_taken(path, []) == ""  # nobody listens
        server.listen()
        found = why_taken(path, [])
        assert isinstance(found, Holder)
    assert os.path.exists(path)
    assert why_taken(path, []) == ""  # left behind
    (tmp_path / "file").touch()
    assert why_taken(str(tmp_path / "file"), []) == "is a file that is no socket"


INSIDE = "/docker/1"


@pytest.mark.parametrize(
    ("cgroups", "root", "unit"),
    [
        ("0::/system.slice/shop.service", "", "shop.service"),
        ("0::/system.slice/shop.service/worker", "", "shop.service"),
        ("0::/system.slice/shop.service/inner.scope", "", "shop.service"),
        (
            f"12:memory:/x.service\n1:name=systemd:{INSIDE}/system.slice/system-shop.slice/shop@a.service\n",
            INSIDE,
            "shop@a.service",
        ),
        ("0::/user.slice/user-1000.slice/session-3.scope", "", "session-3.scope"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service", "", "user@1000.service"),
        # Of a container that has a systemd of its own.
        ("0::/machine.slice/libpod-1.scope/system.slice/shop.service", "", "libpod-1.scope"),
        (f"0::{INSIDE}/system.slice/shop.service", "", ""),
        ("0::/docker/12/system.slice/shop.service", INSIDE, ""),
        ("0::/", "", ""),
        ("", "", ""),
    ],
)
def test_unit_of_a_process(cgroups: str, root: str, unit: str) -> None:
    assert unit_of(cgroups, root) == unit


@pytest.mark.parametrize(
    ("cgroups", "root"),
    [("0::/init.scope\n", ""), (f"9:name=systemd:{INSIDE}/init.scope\n0::/x\n", INSIDE), ("0::/\n", ""), (None, "")],
)
def test_root_of_the_systems_units(cgroups: str | None, root: str, tmp_path: Path) -> None:
    if cgroups is not None:
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "cgroup").write_text(cgroups)
    assert root_of(str(tmp_path)) == root
