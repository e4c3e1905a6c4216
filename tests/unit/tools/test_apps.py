# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The apps that ``make test-apps`` deploys have a description each, of variables that there are; and what it asks is read whole."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import yaml
from scripts import TOOLS

REPOSITORY = TOOLS.parent
APPS = sorted((REPOSITORY / "tests" / "apps").glob("*.yml"))
KEYS = {"prepare", "expect"}


def variables() -> set[str]:
    found: set[str] = {"forge_database_url"}
    for specification in REPOSITORY.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(specification.read_text())["argument_specs"].values():
            found |= set(entry.get("options", {}))
    return found


@pytest.mark.parametrize("path", APPS, ids=lambda path: path.stem)
def test_description_names_variables_that_there_are(path: Path) -> None:
    described = yaml.safe_load(path.read_text())
    assert set(described) - KEYS <= variables()
    assert ("forge_source" in described) != (path.parent / "projects" / path.stem).is_dir(), (
        "one of them says what is deployed"
    )


def test_every_project_is_described() -> None:
    assert {path.name for path in (REPOSITORY / "tests/apps/projects").iterdir()} <= {path.stem for path in APPS}


def test_answers_in_chunks_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "tests" / "bench")
    monkeypatch.delitem(sys.modules, "load", raising=False)
    from load import Connection, Lost

    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    answers = [head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", head + b"0\r\n\r\n", head + b"3\r\nab"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()

    async def ask() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            connection = Connection(*server.sockets[0].getsockname())
            assert await connection.ask("GET", "/") == (200, b"abcde")
            assert await connection.ask("GET", "/") == (200, b"")
            with pytest.raises(Lost, match="IncompleteReadError"):
                await connection.ask("GET", "/")

    asyncio.run(ask())
