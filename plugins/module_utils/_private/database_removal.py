# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes an app's part off a PostgreSQL server: what carries its mark. The server stays, and is never restarted."""

from __future__ import annotations

import glob
import os
import re
import time

from .command import run
from .layout import write_atomically
from .ownership import mark, marked_app
from .postgresql import (
    EARLIER,
    EARLIER_NAMES,
    Connection,
    Names,
    PostgreSQL,
    look,
    names_in,
    project_in,
    sharers,
    silent_apps,
)
from .records import ProjectRecord
from .removal import DATA, NOT_OURS, Inventory, RemovalError, check_project, remove

SECONDS = 60  # for one question to the server
PATIENCE = 5.0  # seconds for the server to notice that the app that was stopped has gone
PAUSE = 0.5  # seconds between two looks
TORN = "one of the two marks of the app's block is missing: mend or remove it by hand"


class DatabaseRemoval:
    """
    :param port: of the server.
    :param data: whether the database and its owner go too.
    :param project: of which the app must be; None when that of another project goes, too.
    """

    def __init__(
        self, app: str, port: int, data: bool, project: ProjectRecord | None, configuration: str = "/etc/postgresql"
    ) -> None:
        self.app = app
        self.port = port
        self.data = data
        self.project = project
        self.configuration = configuration
        self.server: PostgreSQL = {}
        self.heirs: dict[tuple[str, str], str] = {}  # kind and name of what another app uses too, and that app

    def find(self) -> Inventory:
        """What goes and what stays. Reads only.

        :raises RemovalError: when the app is another project's, or data is to go and the server does not answer.
        """
        found = Inventory()
        for path in self._files("conf.d", f"{self.app}.conf"):
            if self.project:
                check_project(path, project_in(read(path)), self.project)
            found.add("path", path, "" if marked_app(read(path)) == self.app or EARLIER in read(path) else NOT_OURS)
        for path in self._files("pg_hba.conf"):
            text = read(path)
            kept = self.without_rules(text)
            if kept != text or mark(self.app) in marks_in(kept):
                found.add("rules", path, "" if mark(self.app) not in marks_in(kept) else TORN)
        self.server = look(self.port, self.app)
        if self.server.get("cluster"):
            self._find_data(found)
        return found

    def _files(self, *names: str) -> list[str]:
        return sorted(glob.glob(os.path.join(self.configuration, "*", "*", *names)))

    def without_rules(self, text: str) -> str:
        """What of ``pg_hba.conf`` is not the app's: its rules stand between two lines with its mark."""
        ours = re.escape(mark(self.app))
        return re.sub(
            rf"^# BEGIN {ours}\n(?:(?!# (?:BEGIN|END) ).*\n)*?# END {ours}(?:\n|\Z)", "", text, flags=re.MULTILINE
        )

    def _find_data(self, found: Inventory) -> None:
        if not self.server["running"] or self.server["unreachable"]:
            if self.data:
                raise RemovalError(
                    f"PostgreSQL was asked what belongs to {self.app} and did not answer "
                    f"({self.server['unreachable'] or 'it does not run'}): nothing was removed from it."
                )
            return
        likely = self._likely_names()
        for kind in Names._fields:
            for name, each in sorted(self.server[f"{kind}s"].items()):  # type: ignore[literal-required]
                if marked_app(each["comment"]) == self.app:
                    why = self._why_database_kept if kind == "database" else self._why_role_kept
                    found.add(kind, name, self._why_shared(kind, name) or why(name, found))
                elif name == getattr(likely, kind):
                    other = marked_app(each["comment"])
                    found.add(kind, name, f"it belongs to the app {other}" if other else NOT_OURS)

    def _likely_names(self) -> Names:
        """What the app's database and role are called, when somebody else has marked or made them."""
        text = self.server["files"].get(os.path.join(self.server["directory"], "conf.d", f"{self.app}.conf"), "")
        by_default = self.app.replace("-", "_")
        return names_in(text) or (EARLIER_NAMES if EARLIER in text else Names(by_default, by_default))

    def _why_shared(self, kind: str, name: str) -> str:
        others = sharers(self.app, self.server, kind, name)
        if others:
            self.heirs[kind, name] = others[0]
            return f"the app {others[0]} uses it too"
        silent = silent_apps(self.app, self.server)
        if self.data and silent:
            return f"the app {silent[0]} of an earlier version does not say whether it uses it: run the playbook site for that app"
        return ""

    def _why_database_kept(self, name: str, _found: Inventory) -> str:
        owner = self.server["databases"][name]["owner"]
        strangers = [each for each in connections_to(self.server, name) if each["role"] != owner]
        if self.data and strangers:
            return f"it has open connections: {shown(strangers)}"
        return "" if self.data else DATA

    def _why_role_kept(self, name: str, found: Inventory) -> str:
        going = found.names("database")
        owned = [each for each, has in self.server["databases"].items() if has["owner"] == name and each not in going]
        if self.data and owned:
            return f"it owns the database {owned[0]}"
        return "" if self.data else DATA

    def _sql(self, text: str) -> tuple[int, str]:
        """Exit code, and what it printed: rows, or the error's first line."""
        done = run(
            ["runuser", "-u", "postgres", "--", "psql", "-XAtqw", "-h", "/var/run/postgresql",
             "-p", str(self.server["port"]), "-d", "postgres", "-c", text],
            timeout=SECONDS, cwd="/",
        )  # fmt: skip
        errors = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return done.returncode, errors[0] if done.returncode else done.stdout.strip()

    def take_away(self, found: Inventory) -> None:
        """Remove what goes: first whom the server lets in, then the data. What another app uses gets that one's mark.

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
        if self.server.get("running") and found.names("path") + found.names("rules"):
            self._sql("SELECT pg_reload_conf()")
        for (kind, name), heir in self.heirs.items():
            comment = self.server[f"{kind}s"][name]["comment"].replace(mark(self.app), mark(heir))  # type: ignore[literal-required]
            self._change(
                f"COMMENT ON {kind.upper()} {quoted(name)} IS '{comment.replace(chr(39), chr(39) * 2)}'", kind, name
            )
        for name in found.names("database"):
            self._wait_for_connections(name)
            self._change(f"DROP DATABASE {quoted(name)}", "database", name)
        for name in found.names("role"):
            self._change(f"DROP ROLE {quoted(name)}", "role", name)

    def _change(self, statement: str, kind: str, name: str) -> None:
        rc, output = self._sql(statement)
        if rc:
            raise RemovalError(
                f"PostgreSQL refused to {statement.split()[0].lower()} the {kind} {name}: {output}. Run again when that is "
                "mended."
            )

    def _wait_for_connections(self, database: str) -> None:
        """:raises RemovalError: when somebody is connected to the database, and stays; nobody is cut off."""
        deadline = time.monotonic() + PATIENCE
        while True:
            open_ones = connections_to(look(self.port, self.app), database)
            if not open_ones:
                return
            if time.monotonic() >= deadline:
                raise RemovalError(
                    f"The database {database} was not dropped, as it has open connections: {shown(open_ones)}. Close them and "
                    "run again."
                )
            time.sleep(PAUSE)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def connections_to(server: PostgreSQL, database: str) -> list[Connection]:
    return [each for each in server.get("connections", []) if each["database"] == database]


def shown(connections: list[Connection]) -> str:
    """Who is connected, for people, each once with its number."""
    found = [
        f"{each['role']} from {each['address'] or 'the server itself'}{' with ' + each['program'] if each['program'] else ''}"
        for each in connections
    ]
    return ", ".join(f"{found.count(each)} of {each}" for each in sorted(set(found)))


def marks_in(text: str) -> set[str]:
    """The marks of blocks in ``pg_hba.conf``."""
    return set(re.findall(r"^# (?:BEGIN|END) (.*)$", text, re.MULTILINE))


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as handle:
            return handle.read()
    except OSError:
        return ""
