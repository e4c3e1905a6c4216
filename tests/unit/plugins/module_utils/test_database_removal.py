# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of a PostgreSQL server a removal takes the app's block of rules, its file and its marked data. On a real one: test_database."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import database_removal as unit
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.database_removal import (
    TORN,
    DatabaseRemoval,
)
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ownership import mark
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.postgresql import EARLIER, own_files
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.records import ProjectRecord
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.removal import DATA, NOT_OURS, RemovalError


def block(app: str) -> str:
    return f'# BEGIN {mark(app)}\nhost "{app}" "{app}" 192.0.2.8/32 scram-sha-256\n# END {mark(app)}\n'


FOREIGN = b"local all postgres peer # the admin's\r\nhost replication repl 192.0.2.7/32 scram-sha-256 # caf\xe9\n"
RULES = FOREIGN + block("shop").encode() + b"host all all 203.0.113.0/24 reject\n" + block("shop-two").encode()


class Server:
    """A server in a directory: its files are real, its answers are those of ``look``."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.main = tmp_path / "15" / "main"
        (self.main / "conf.d").mkdir(parents=True)
        self.rules = self.main / "pg_hba.conf"
        self.rules.write_bytes(RULES)
        self.file = self.main / "conf.d" / "shop.conf"
        self.file.write_text(f"# {mark('shop')}: changes by hand are replaced.\n")
        self.configuration = str(tmp_path)
        self.statements: list[str] = []
        self.error = ""
        self.comment = mark("shop")
        self.connections: list[dict[str, str]] = []
        self.state: dict[str, Any] = {"running": True, "unreachable": ""}
        monkeypatch.setattr(unit, "run", self.run)
        monkeypatch.setattr(unit, "look", self.look)
        monkeypatch.setattr(unit, "PATIENCE", 0)
        monkeypatch.setattr(unit.os, "fchown", lambda *_arguments: None)

    def look(self, port: int, app: str) -> dict[str, Any]:
        owned = {"owner": "shop", "comment": self.comment}
        return {
            "cluster": "15/main", "port": port, "directory": str(self.main), "connections": self.connections,
            "files": own_files(str(self.main / "conf.d")), "databases": {"postgres": {"owner": "postgres", "comment": ""}, "shop": owned},
            "roles": {"postgres": {"comment": ""}, "shop": {"comment": self.comment}}, **self.state,
        }  # fmt: skip

    def run(self, argv: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        self.statements.append(argv[-1])
        return subprocess.CompletedProcess(argv, 2 if self.error else 0, "", self.error)

    def removal(self, data: bool) -> DatabaseRemoval:
        return DatabaseRemoval("shop", 5433, data, ProjectRecord(name="shop"), self.configuration)

    def left(self, data: bool) -> dict[str, str]:
        return {each["what"]: each["why"] for each in self.removal(data).find().result()["left"]}


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
    assert server.rules.read_bytes() == RULES.replace(block("shop").encode(), b""), (
        "what is not the app's is the same bytes"
    )
    assert not server.file.exists()
    assert server.statements == ["SELECT pg_reload_conf()"]


def test_told_twice_the_database_and_its_owner_go_too(server: Server) -> None:
    removal = server.removal(data=True)
    removal.take_away(removal.find())
    assert server.statements[-2:] == ['DROP DATABASE "shop"', 'DROP ROLE "shop"']


def test_what_is_somebody_elses_stays_and_is_named(server: Server) -> None:
    server.file.write_text("max_connections = 300\n")
    server.rules.write_bytes(FOREIGN)
    server.comment = "The books"
    assert server.removal(data=True).find().result()["removed"] == []
    assert server.left(data=True) == {"path": NOT_OURS, "database": NOT_OURS, "role": NOT_OURS}
    server.comment = mark("api")
    assert server.left(data=True)["database"] == "it belongs to the app api"


def test_a_block_that_somebody_has_torn_stays(server: Server) -> None:
    torn = RULES.replace(f"# END {mark('shop')}\n".encode(), b"")
    server.rules.write_bytes(torn)
    removal = server.removal(data=False)
    found = removal.find()
    assert {thing.what: thing.why for thing in found.things}["rules"] == TORN
    removal.take_away(found)
    assert server.rules.read_bytes() == torn


def test_what_another_app_uses_too_stays_and_becomes_its_own(server: Server) -> None:
    other = server.main / "conf.d" / "api.conf"
    other.write_text(f"# {mark('api')}\n# Database shop of role shop.\n")
    server.comment = f"The books' ({mark('shop')})"
    removal = server.removal(data=True)
    found = removal.find()
    assert server.left(data=True) == {"database": "the app api uses it too", "role": "the app api uses it too"}
    removal.take_away(found)
    assert server.statements[-1] == f"COMMENT ON ROLE \"shop\" IS 'The books'' ({mark('api')})'"
    other.write_text(f"# {EARLIER}\n")
    assert "the app api of an earlier version does not say whether it uses it" in server.left(data=True)["database"]
    other.write_text(f"# {mark('api')}\n# Database api of role api.\n")
    assert server.removal(data=True).find().names("database") == ["shop"]


def test_open_connections_are_told_and_cut_nobody_off(server: Server) -> None:
    server.connections = [{"database": "shop", "role": "crm", "address": "192.0.2.9", "program": "psql"}] * 2
    assert server.left(data=True) == {
        "database": "it has open connections: 2 of crm from 192.0.2.9 with psql", "role": "it owns the database shop",
    }  # fmt: skip
    assert server.left(data=False)["database"] == DATA
    server.connections = [{"database": "shop", "role": "shop", "address": "", "program": ""}]
    removal = server.removal(data=True)
    found = removal.find()
    with pytest.raises(
        RemovalError, match=r"shop was not dropped, as it has open connections: 1 of shop from the server itself\."
    ):
        removal.take_away(found)
    assert not [each for each in server.statements if "DROP" in each]


def test_a_server_that_does_not_answer(server: Server) -> None:
    server.state = {"running": True, "unreachable": "connection failed"}
    assert [thing.what for thing in server.removal(data=False).find().things] == ["path", "rules"]
    with pytest.raises(RemovalError, match=r"did not answer \(connection failed\): nothing was removed"):
        server.removal(data=True).find()
    server.state = {"running": False, "unreachable": ""}
    with pytest.raises(RemovalError, match=r"did not answer \(it does not run\): nothing was removed"):
        server.removal(data=True).find()


def test_what_the_server_refuses_is_said(server: Server) -> None:
    removal = server.removal(data=True)
    found = removal.find()
    server.error = 'ERROR:  database "shop" is being accessed by other users'
    with pytest.raises(RemovalError, match=r"refused to drop the database shop: ERROR:  database \"shop\" is being"):
        removal.take_away(found)


def test_the_app_of_another_project_is_not_removed(server: Server) -> None:
    server.file.write_text(f'# {mark("shop")}\n# Project {{"name": "blog"}}.\n')
    with pytest.raises(RemovalError, match=r"shop\.conf is another project's, blog: name your own app"):
        server.removal(data=True).find()
    server.file.write_text(f'# {mark("shop")}\n# Project {{"name": "shop"}}.\n')
    assert server.removal(data=True).find().names("database") == ["shop"]
