# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A candidate: a generation that is started beside the live one, tested on its private socket, and serves nobody yet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from . import systemd
from .cause import explain
from .errors import RolloutError
from .probe import HealthCheck, smoke_problem
from .processes import Processes
from .serving import address_problem, lost_socket, open_addresses
from .takeover import TakeOver, is_foreign
from .transient import Transient, TransientError, argv_of

DISCARD_SECONDS = 5
ROOM = 1 << 20  # bytes; what a switch writes is some kilobytes


class Candidate:
    def __init__(
        self,
        processes: Processes,
        health: HealthCheck,
        drain_seconds: int,
        smoke: list[dict] | None = None,
        smoke_command: str = "",
    ) -> None:
        """
        :param smoke: requests, see :func:`probe.smoke_problem`.
        :param smoke_command: a command that must succeed; none when empty.
        """
        self.processes = processes
        self.layout = processes.layout
        self.generation = processes.generation
        self.health = health
        self.drain_seconds = drain_seconds
        self.smoke = smoke or []
        self.smoke_command = smoke_command

    def start(self) -> None:
        """Start the generation and put it through its tests. One that cannot stand by, or takes over, is stopped again.

        :raises RolloutError: when it does not pass; it is stopped by then.
        """
        self.check_address()
        self.check_private_socket()
        self.stop_orphans()
        alone = not self.processes.record.drains or self.takes_over()
        try:
            self.check_room()
            self.processes.install_units(own_only=True, trial=alone)
            self.processes.start_web()
            self.processes.wait_until_healthy(self.health)
            self.run_smoke_tests()
            if not alone:
                self.check_public_socket()
        except (RolloutError, systemd.SystemdError, OSError) as error:
            failure = self.processes.explained(error)
            self.discard()
            raise failure from None
        if alone:
            self.processes.stop(self.drain_seconds)
            self.processes.install_units(own_only=True)

    def try_alone(self, ask: Callable[[Candidate], None] = lambda candidate: candidate.run_smoke_tests()) -> None:
        """Start the generation on its private socket alone, put it through its tests, and stop it.

        :param ask: what is asked of it once it is healthy; its smoke tests, unless said otherwise.
        :raises RolloutError: when it does not pass; it is stopped by then.
        """
        try:
            self.check_room()
            self.processes.install_units(own_only=True, trial=True)
            self.processes.start_web()
            self.processes.wait_until_healthy(self.health)
            ask(self)
        except (RolloutError, systemd.SystemdError, OSError) as error:
            raise self.processes.explained(error) from None
        finally:
            self.discard()

    def takes_over(self) -> bool:
        """Does somebody else's service run under the app's name? Then its port is opened at the switch."""
        return TakeOver(self.layout, self.generation, self.processes.units()).is_due()

    def stop_orphans(self) -> None:
        """Stop what a killed rollout left behind: all but the live one. Also a candidate of this generation, which may
        have crashed over and over since.
        """
        for generation in systemd.running(self.layout.app):
            if generation != self.layout.live():
                Processes(self.layout, generation).stop(self.drain_seconds)

    def check_room(self) -> None:
        """:raises RolloutError: when a disk is full: the switch could not be made, or not be recorded."""
        for directory in (self.layout.home, os.path.dirname(self.layout.run), self.layout.units):
            if shutil.disk_usage(directory).free < ROOM:
                raise RolloutError(
                    f"Candidate {self.generation} was not started: {directory} has less than {ROOM >> 20} MB free."
                )

    def run_smoke_tests(self) -> None:
        """:raises RolloutError: naming the request, or the command, that failed."""
        for request in self.smoke:
            problem = smoke_problem(self.processes.socket, request, self.health.deadline)
            if problem:
                raise RolloutError(f"Candidate {self.generation} failed a smoke test: {problem}.")
        if not self.smoke_command:
            return
        failed = f"Candidate {self.generation} failed the smoke test {self.smoke_command!r}"
        try:
            argv = [f"FORGE_SOCKET={self.processes.socket}", *argv_of(self.smoke_command)]
            rc, output, _seconds = Transient(self.layout, self.generation).run(argv, self.health.deadline)
        except TransientError as error:
            raise RolloutError(f"{failed}: {error}") from None
        if rc:
            sentence, shown = explain(f"{failed} with exit code {rc}", output.splitlines())
            raise RolloutError(sentence, shown)

    def check_address(self) -> None:
        """:raises RolloutError: before anything starts, when the public socket could not be opened where it should."""
        problem = address_problem(self.layout, self.processes.units())
        if problem:
            raise RolloutError(f"Candidate {self.generation} was not started. {problem}")

    def check_private_socket(self) -> None:
        """:raises RolloutError: when what serves cannot be asked any more; it is not stopped for that."""
        serves = self.generation == self.layout.live() and self.generation in systemd.instances(self.layout.app)
        problem = lost_socket(self.layout, self.generation) if serves else ""
        if problem:
            raise RolloutError(f"{self.generation} serves, but {problem}.")

    def check_public_socket(self) -> None:
        """:raises RolloutError: when a first release does not listen where it should."""
        unit = f"{self.layout.app}.socket"
        if self.processes.record.drains and not self.layout.live() and not open_addresses(self.layout):
            systemd.systemctl("start", unit)  # once more, for what systemd says

    def discard(self) -> None:
        """Stop the candidate. It has served nobody, so one that hangs is not waited for."""
        if self.generation == self.layout.live():
            return
        try:
            self.processes.stop(self.drain_seconds, timeout=DISCARD_SECONDS)
        except systemd.SystemdError:
            systemd.systemctl("kill", "--signal=SIGKILL", self.processes.service)
            self.processes.stop(self.drain_seconds)
        if not self.layout.live() and not is_foreign(self.layout, f"{self.layout.app}.socket"):
            # Nothing can serve yet: an open public socket would only fail over and over.
            systemd.systemctl("stop", f"{self.layout.app}.socket")
