# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker has open to its database, by the tables of the kernel."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.connections import (
    database_ports,
    most_of_a_worker,
)
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout

ID = "0123456789ab-01234567"


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("postgresql://u:p@db/shop", {5432}),
        ("postgresql+asyncpg://u:p:9@192.0.2.7:6432/shop?x=y:1", {6432}),
        ("postgres://u@one:5433,two:5434,three/shop", {5433, 5434}),
        ("postgresql://[2001:db8::7]:5433/shop", {5433}),
        ("postgresql://u:p@/shop?host=/run/postgresql", {5432}),
        ("sqlite:////tmp/x.db", set()),
    ],
)
def test_ports_of_the_database(url: str, ports: set[int]) -> None:
    assert database_ports({"NAME": "shop", "URL": url}) == ports


def test_the_worker_with_most_connections_counts(tmp_path: Path) -> None:
    """This process stands for a worker, with real connections."""
    layout = Layout(str(tmp_path / "srv"), "shop", run=str(tmp_path / "run"))
    states, home = Path(layout.worker_states(ID)), Path(layout.generation(ID))
    states.mkdir(parents=True)
    home.mkdir(parents=True)
    (states / str(os.getpid())).write_text("standby")
    (states / "1").write_text("standby")
    (states / f"under-way-{os.getpid()}").write_text("0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (home / "environment").write_text(f'URL="postgresql://u:p@127.0.0.1:{port}/shop"\n')
        assert most_of_a_worker(layout, ID) == 0
        clients = [socket.create_connection(server.getsockname()) for _ in range(3)]
        assert most_of_a_worker(layout, ID) == 3
        for client in clients:
            client.close()
    (home / "environment").unlink()
    assert most_of_a_worker(layout, ID) == 0
