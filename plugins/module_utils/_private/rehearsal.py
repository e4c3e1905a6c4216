# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rehearsal: the migrations of a release run against a copy of the database first, and generations are tried with what that has become.

Nothing of it serves: generations are copied under another id, with settings that name the copy, and their web process is started on its
private socket alone. What could still reach the real database is refused before anything runs: the copy has another password.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from . import database_session, systemd
from .candidate import Candidate
from .database_lock import variable_of_the_database
from .environment import read_environment, write_environment
from .errors import RolloutError, StageError
from .generations import Generations
from .layout import REHEARSED, Layout, read_file
from .migration import run
from .probe import HealthCheck, smoke_problem
from .processes import Processes
from .settings import FILE, SEALED, seal, unseal
from .transient import Transient, TransientError
from .twin import copy_generation, files_below

URL = re.compile(
    r"""(?P<scheme>postgres(?:ql)?(?:\+\w+)?://)(?P<user>[^:/?#@\s"']*)(?::(?P<password>[^/?#@\s"']*))?@"""
    r"""(?P<host>\[[0-9a-fA-F:.]+\]|[^/:?#@,\s"'\[\]]+)(?::(?P<port>\d+))?(?=[/?#\s"']|\Z)"""
)
CONNECT_SECONDS = 10
SLACK = 30  # seconds that the look at the locks may take longer than what it looks at
WORKS, FAILS, UNKNOWN = "works", "does not work", "is not known"


@dataclass(frozen=True)
class Copy:
    """The database that a URL names, and the copy that takes its place."""

    role: str
    port: int
    copy_port: int
    password: str  # empty for the same

    def point(self, text: str) -> tuple[str, set[str], set[str]]:
        """Name the copy in every URL of the database in a text.

        :returns: the text; the passwords that stood there; and the hosts.
        """
        passwords, hosts = set(), set()

        def replaced(found: re.Match[str]) -> str:
            if unquote(found["user"]) != self.role or int(found["port"] or 5432) != self.port:
                return found[0]
            passwords.add(found["password"] or "")
            hosts.add(found["host"].strip("[]"))
            password = quote(self.password, safe="") or found["password"] or ""
            return f"{found['scheme']}{found['user']}:{password}@{found['host']}:{self.copy_port}"

        return URL.sub(replaced, text), passwords, hosts


class Rehearsal:
    """
    :param params: of the module ``rehearse``.
    """

    def __init__(self, layout: Layout, params: dict[str, Any]) -> None:
        self.layout = layout
        self.params = params
        self.copy = Copy(params["role"], params["port"], params["copy_port"], params["copy_password"])
        self.health = HealthCheck(
            params["health_path"], params["health_status"], params["health_passes"], params["health_deadline"]
        )
        self.new: str = params["generation"]
        live = layout.live()
        self.old = live if live != self.new and layout.read_record(live).state else ""

    def run(self, result: dict[str, Any]) -> None:
        """Rehearse; ``result`` gets what is known of it, also when it fails.

        :raises RolloutError: when the new generation does not work with the database as its migrations leave it.
        :raises StageError: when nothing can be rehearsed.
        :raises TransientError: naming the command that failed.
        """
        self.clear()
        try:
            for generation in filter(None, (self.new, self.old)):
                self.stage(generation)
            if not self.new:
                result["way_back"] = self.way_back(self.params["smoke"], self.params["smoke_command"], "")
                return
            smoke, command, problem = self.tests_of_the_old()
            if self.params["commands"]:
                self.migrate(result)
            self.candidate(self.new, self.params["smoke"], self.params["smoke_command"]).try_alone()
            result["way_back"] = self.way_back(smoke, command, problem)
        except (RolloutError, TransientError) as error:
            error.args = (self.named(str(error)),)
            raise
        finally:
            self.clear()

    def named(self, text: str) -> str:
        """A text with the generations' own ids in place of those of their copies."""
        for generation in filter(None, (self.new, self.old)):
            text = text.replace(generation + REHEARSED, generation)
        return text

    def stage(self, generation: str) -> None:
        """Copy a generation with settings that name the copy of the database.

        :raises StageError: when it has none that does, or when something of it could still reach the real one.
        """
        passwords: set[str] = set()
        hosts: set[str] = set()
        others: list[str] = []

        def pointed(name: str, text: str) -> str:
            text, found, at = self.copy.point(text)
            passwords.update(found)
            hosts.update(at)
            others.append(f"{name}\0{text}")
            return text

        def rewrite(path: str, content: bytes) -> bytes:
            if path in (FILE, SEALED):
                settings = read_environment(unseal(content) if path == SEALED else content.decode())
                text = write_environment({name: pointed(name, value) for name, value in settings.items()})
                return seal(text) if path == SEALED else text.encode()
            if path.startswith("files" + os.sep):
                return pointed(path, content.decode()).encode()
            return content

        twin = generation + REHEARSED
        copy_generation(self.layout, generation, twin, rewrite)
        if not hosts:
            raise StageError(
                f"No setting of {generation} is a URL of the database that its role {self.copy.role} logs in to at port {self.copy.port}, "
                "so nothing can be rehearsed: give the app forge_database_url, or leave out forge_rehearsal."
            )
        if self.copy.password:
            self.check_passwords(generation, passwords, others)
        self.check_connection(min(hosts))
        record = dataclasses.replace(self.layout.read_record(generation), generation=twin, state="validated")
        Generations(self.layout).write_record(twin, record)
        systemd.systemctl("daemon-reload")

    def check_passwords(self, generation: str, passwords: set[str], settings: list[str]) -> None:
        """:raises StageError: when the real database's password stands anywhere else, so that the rehearsal could reach that."""
        if "" in passwords:
            raise StageError(
                "The URL of the database has no password, so nobody could tell a rehearsal from the real thing: nothing is rehearsed. "
                "Give the role one, or leave out forge_rehearsal."
            )
        texts = {form for password in passwords for form in (password, unquote(password))}
        for each in settings:
            name, _nul, value = each.partition("\0")
            if any(text in value for text in texts):
                raise StageError(
                    f"{name} has the password of the database beside its URL, so a rehearsal could reach the real one: nothing is "
                    "rehearsed."
                )
        release = self.layout.release(self.layout.read_record(generation).release)
        for top in (release, self.layout.made(generation)):
            for path in files_below(top):
                if os.path.isfile(path) and any(text.encode() in read_file(path) for text in texts):
                    raise StageError(
                        f"{os.path.relpath(path, top)} of the release has the password of the database, so a rehearsal could reach the "
                        "real one: nothing is rehearsed. Take it out of the code."
                    )

    def check_connection(self, host: str) -> None:
        """:raises StageError: when this host does not get to the copy."""
        try:
            socket.create_connection((host, self.copy.copy_port), CONNECT_SECONDS).close()
        except OSError as error:
            raise StageError(
                f"The copy of the database at {host}:{self.copy.copy_port} does not answer ({error.strerror or error}): let the hosts of "
                "the app through to the ports behind its own, or leave out forge_rehearsal."
            ) from None

    def candidate(self, generation: str, smoke: list[dict[str, Any]], command: str) -> Candidate:
        processes = Processes(self.layout, generation + REHEARSED)
        return Candidate(processes, self.health, self.params["drain_seconds"], smoke, command)

    def tests_of_the_old(self) -> tuple[list[dict[str, Any]], str, str]:
        """Which smoke tests the generation that serves passes before anything is migrated: others say nothing of the migration.

        :returns: the requests, and the command, that it passes; and why it cannot be tried at all, empty when it can.
        """
        smoke, command = self.params["smoke"], self.params["smoke_command"]
        if not self.old:
            return [], "", ""
        passed: list[dict[str, Any]] = []
        commands: list[str] = []

        def ask(candidate: Candidate) -> None:
            passed.extend(
                each for each in smoke if not smoke_problem(candidate.processes.socket, each, candidate.health.deadline)
            )
            candidate.smoke = []
            try:
                candidate.run_smoke_tests()
                commands.append(command)
            except RolloutError:
                pass  # the command fails already

        try:
            self.candidate(self.old, [], command).try_alone(ask)
        except RolloutError as error:
            return [], "", self.named(str(error))
        return passed, "".join(commands), ""

    def way_back(self, smoke: list[dict[str, Any]], command: str, problem: str) -> dict[str, str]:
        """Whether what serves now works with the migrated database.

        :returns: ``release``; ``state``, one of :data:`WORKS`, :data:`FAILS` and :data:`UNKNOWN`; and ``reason``.
        """
        if not self.old:
            return {}
        release = self.layout.read_record(self.old).release
        if problem:
            reason = f"it does not start with the copy as it was: {problem}"
            return {"release": release, "state": UNKNOWN, "reason": reason}
        try:
            self.candidate(self.old, smoke, command).try_alone()
        except RolloutError as error:
            return {"release": release, "state": FAILS, "reason": self.named(str(error))}
        return {"release": release, "state": WORKS, "reason": ""}

    def migrate(self, result: dict[str, Any]) -> None:
        """Run the commands on the copy, and note which locks they take."""
        transient = Transient(self.layout, self.new + REHEARSED)
        with self.watching(transient, result):
            for command in self.params["commands"]:
                run(transient, command, self.params["timeout"], result)

    @contextmanager
    def watching(self, transient: Transient, result: dict[str, Any]) -> Iterator[None]:
        """Look at the locks of the copy while the block runs."""
        seconds = len(self.params["commands"]) * self.params["timeout"] + SLACK
        argv = ["python", "-c", inspect.getsource(database_session), variable_of_the_database(transient), "watch"]
        with transient.running(argv, seconds) as beside:
            yield
        answers = [line for line in (beside.first + beside.rest).splitlines() if line.startswith("{")]
        found = json.loads(answers[-1]) if answers else {"problem": "its Python did not start"}
        result["locks"] = found.get("locks", [])
        result["locks_problem"] = found.get("problem", "")

    def clear(self) -> None:
        """Remove what a rehearsal has made; also one that was killed."""
        for name in rehearsed(self.layout):
            self.candidate(name[: -len(REHEARSED)], [], "").discard()
            for unit in os.listdir(self.layout.units):
                if f"@{name}." in unit and unit.startswith(self.layout.app):
                    os.unlink(os.path.join(self.layout.units, unit))
            shutil.rmtree(self.layout.generation(name), ignore_errors=True)


def rehearsed(layout: Layout) -> list[str]:
    """Ids of what rehearsals have made of generations."""
    names = os.listdir(layout.generations) if os.path.isdir(layout.generations) else []
    return sorted(name for name in names if name.endswith(REHEARSED))
