# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes an app's part off a PostgreSQL server: what carries its mark. The server stays, and is never restarted."""

from __future__ import annotations

import glob
import os

from .command import run
from .layout import write_atomically
from .ownership import mark, marked_app
from .removal import DATA, NOT_OURS, Inventory, RemovalError, remove

SECONDS = 60  # for one question to the server


class DatabaseRemoval:
    """
    :param port: of the server.
    :param data: whether the database and its owner go too.
    """

    def __init__(self, app: str, port: int, data: bool, configuration: str = "/etc/postgresql") -> None:
        self.app = app
        self.port = port
        self.data = data
        self.configuration = configuration

    def find(self) -> Inventory:
        """What goes and what stays. Reads only.

        :raises RemovalError: when data is to go and the server does not answer.
        """
        found = Inventory()
        for path in sorted(glob.glob(os.path.join(self.configuration, "*", "main", "conf.d", f"{self.app}.conf"))):
            found.add("path", path, "" if marked_app(read(path)) == self.app else NOT_OURS)
        for path in self._rule_files():
            if self.without_rules(read(path)) != read(path):
                found.add("rules", path)
        if glob.glob(os.path.join(self.configuration, "*", "main")):
            self._find_data(found)
        return found

    def _rule_files(self) -> list[str]:
        return sorted(glob.glob(os.path.join(self.configuration, "*", "main", "pg_hba.conf")))

    def without_rules(self, text: str) -> str:
        """What of ``pg_hba.conf`` is not the app's: its lines carry the mark in their comments."""
        lines = text.splitlines(keepends=True)
        return "".join(line for line in lines if marked_app(line.partition("#")[2]) != self.app)

    def _find_data(self, found: Inventory) -> None:
        for what, query in (
            ("database", "SELECT datname FROM pg_database WHERE shobj_description(oid, 'pg_database') = '{}'"),
            ("role", "SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = '{}'"),
        ):
            rc, output = self._sql(query.format(mark(self.app)))
            if rc and self.data:
                raise RemovalError(
                    f"PostgreSQL was asked which {what} belongs to {self.app} and did not answer ({output}): nothing was "
                    "removed from it."
                )
            for name in [] if rc else output.splitlines():
                found.add(what, name, "" if self.data else DATA)

    def _sql(self, text: str) -> tuple[int, str]:
        """Exit code, and what it printed: rows, or the error's last line."""
        done = run(
            ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-p", str(self.port), "-d", "postgres", "-c", text],
            timeout=SECONDS, cwd="/",
        )  # fmt: skip
        errors = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return done.returncode, errors[0] if done.returncode else done.stdout.strip()

    def take_away(self, found: Inventory) -> None:
        """Remove what goes: first whom the server lets in, then the data.

        :raises RemovalError: naming what the server refused.
        """
        for path in found.names("path"):
            remove(path)
        for path in found.names("rules"):
            before = os.stat(path)
            text = self.without_rules(read(path))
            write_atomically(
                path, text.encode(errors="surrogateescape"), before.st_mode & 0o7777, before.st_uid, before.st_gid
            )
        if found.names("path") + found.names("rules"):
            self._sql("SELECT pg_reload_conf()")
        for what in ("database", "role"):
            for name in found.names(what):
                quoted = name.replace('"', '""')
                rc, output = self._sql(f'DROP {what.upper()} "{quoted}"')
                if rc:
                    raise RemovalError(
                        f"PostgreSQL refused to drop the {what} {name}: {output}. Run again when that is mended."
                    )


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as handle:
            return handle.read()
    except OSError:
        return ""
