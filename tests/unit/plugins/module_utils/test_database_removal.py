# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of a PostgreSQL server a removal takes the app's marked lines, its file and its marked data."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import database_removal as unit
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.database_removal import DatabaseRemoval
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ownership import mark
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.removal import DATA, NOT_OURS, RemovalError

FOREIGN = "local all postgres peer # the admin's\nhost replication repl 192.0.2.7/32 scram-sha-256\n"
RULES = f"{FOREIGN}host shop shop 192.0.2.8/32 scram-sha-256 # {mark('shop')}\nhost a a all md5 # {mark('shop-two')}\n"


class Server:
    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.main = tmp_path / "15" / "main"
        (self.main / "conf.d").mkdir(parents=True)
        (self.main / "pg_hba.conf").write_text(RULES)
        (self.main / "conf.d" / "shop.conf").write_text(f"# {mark('shop')}: changes by hand are replaced.\n")
        self.configuration = str(tmp_path)
        self.queries: list[str] = []
        self.error = ""
        monkeypatch.setattr(unit, "run", self.run)
        monkeypatch.setattr(unit.os, "fchown", lambda *_arguments: None)

    def run(self, argv: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        self.queries.append(argv[-1])
        rows = "shop\n" if mark("shop") + "'" in argv[-1] else ""
        return subprocess.CompletedProcess(argv, 2 if self.error else 0, rows, self.error)

    def removal(self, data: bool) -> DatabaseRemoval:
        return DatabaseRemoval("shop", 5433, data, self.configuration)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch)


def test_access_goes_and_data_stays(server: Server) -> None:
    removal = server.removal(data=False)
    found = removal.find()
    assert found.result()["left"] == [
        {"what": "database", "name": "shop", "why": DATA},
        {"what": "role", "name": "shop", "why": DATA},
    ]
    removal.take_away(found)
    assert (server.main / "pg_hba.conf").read_text() == RULES.replace(RULES.splitlines(keepends=True)[2], "")
    assert not (server.main / "conf.d" / "shop.conf").exists()
    assert server.queries[-1] == "SELECT pg_reload_conf()"


def test_told_twice_the_database_and_its_owner_go_too(server: Server) -> None:
    removal = server.removal(data=True)
    removal.take_away(removal.find())
    assert server.queries[-2:] == ['DROP DATABASE "shop"', 'DROP ROLE "shop"']


def test_a_file_of_the_admins_stays(server: Server) -> None:
    (server.main / "conf.d" / "shop.conf").write_text("max_connections = 300\n")
    (server.main / "pg_hba.conf").write_text(FOREIGN)
    removal = server.removal(data=False)
    found = removal.find()
    assert found.result()["removed"] == []
    assert found.things[0].why == NOT_OURS


def test_a_server_that_does_not_answer(server: Server) -> None:
    server.error = "psql: error: connection failed\nIs the server running?"
    assert [thing.what for thing in server.removal(data=False).find().things] == ["path", "rules"]
    with pytest.raises(RemovalError, match=r"did not answer \(psql: error: connection failed\): nothing was removed"):
        server.removal(data=True).find()


def test_what_the_server_refuses_is_said(server: Server) -> None:
    removal = server.removal(data=True)
    found = removal.find()
    server.error = 'ERROR:  database "shop" is being accessed by other users'
    with pytest.raises(RemovalError, match=r"refused to drop the database shop: ERROR:  database \"shop\" is being"):
        removal.take_away(found)
