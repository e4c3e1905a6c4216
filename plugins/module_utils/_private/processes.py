# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs of one generation, its web process and its other processes: units, start, stop, and whether it is alive."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress

from . import systemd
from .cause import explain
from .errors import RolloutError, text_of
from .layout import Layout, write_atomically
from .masking import mask, secrets_below
from .probe import PROBE_TIMEOUT, HealthCheck
from .serving import PUBLIC, STANDBY, WorkerDeaths, installed_text, timer_of, workers_in

FINAL_ANSWERS = 3  # in a row, until it is believed that they stay
PAUSE = 0.02  # seconds between two checks; a check takes half as long
# Seconds that systemd and Gunicorn add to the drain: see graceful_timeout and TimeoutStopSec in the service role.
STOP_MARGIN = 30
# Workers of a candidate that may die: it has no load yet, so there is nothing that could excuse them.
WORKER_DEATHS = 2
# As systemd writes it: "Main process exited, code=killed, status=9/KILL".
MAIN_EXITED = re.compile(r"Main process exited, code=(\w+), status=(\d+)")


class Processes:
    """The units of one generation."""

    def __init__(self, layout: Layout, generation: str) -> None:
        self.layout = layout
        self.generation = generation
        self.record = layout.read_record(generation)
        self.service = layout.service(generation)
        self.socket = layout.private_socket(generation)
        self.since = time.monotonic()  # of its journal
        self._secrets: list[str] = []

    def others(self) -> list[Processes]:
        """Other generations of the app of which anything runs."""
        running = systemd.running(self.layout.app)
        return [Processes(self.layout, name) for name in running if name != self.generation]

    def units(self) -> dict[str, str]:
        """Unit files that belong to the generation, name to text; none when its directory is gone."""
        directory = os.path.join(self.layout.generation(self.generation), "units")
        found = {}
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
            with open(os.path.join(directory, name), encoding="utf-8") as handle:
                found[name] = handle.read()
        return found

    def install_units(self, own_only: bool = False, trial: bool = False) -> None:
        """Put the generation's units, and unless ``own_only`` the shared ones as it has them, where systemd reads them.

        :param trial: without the public socket.
        """
        changed = False
        for name, text in self.units().items():
            path = os.path.join(self.layout.units, name)
            if own_only and f"@{self.generation}." not in name and os.path.exists(path):
                continue
            if trial and name == self.service:
                text = text.replace(f"Sockets={self.layout.app}.socket ", "Sockets=")
            if installed_text(self.layout, name) != text:
                write_atomically(path, text.encode(), 0o644)
                changed = True
        if changed:
            systemd.systemctl("daemon-reload")

    def start_web(self) -> None:
        """Start the web process with its private socket; it is not waited for.

        One that systemd starts over and over is stopped before: it serves nobody, its faults may be mended by now, and to systemd a
        start would be no new one.
        """
        state = systemd.properties(self.service, "ActiveState", "SubState", "NRestarts")
        if state["ActiveState"] == "failed":
            systemd.systemctl("reset-failed", self.service)
        elif state["SubState"] == "auto-restart" or (
            state["SubState"] != "running" and state["NRestarts"] not in ("", "0")
        ):
            systemd.systemctl("stop", self.service)
        systemd.systemctl("start", self.layout.socket(self.generation))
        systemd.systemctl("start", "--no-block", self.service)

    def wait_until_healthy(self, health: HealthCheck) -> None:
        """Wait until the generation passes its health check, and every worker of it stands by or serves.

        :raises RolloutError: when it exits, when its workers die over and over, or at the deadline.
        """
        deadline = time.monotonic() + health.deadline
        deaths = WorkerDeaths(self.service, self.record)
        passes, finals, seen = 0, 0, "it did not answer"
        while time.monotonic() < deadline:
            self.check_alive()
            if deaths.count() > WORKER_DEATHS:
                raise RolloutError(f"Candidate {self.generation} is not healthy: its workers die, one after the other.")
            problem = health.problem(self.socket, min(PROBE_TIMEOUT, max(PAUSE, deadline - time.monotonic())))
            problem = problem or self.missing_workers()
            if problem:
                passes, seen = 0, problem
                finals = finals + 1 if health.is_final(problem) else 0
                if finals >= FINAL_ANSWERS:
                    raise RolloutError(
                        f"Candidate {self.generation} is not healthy: {seen}. Give forge_health_path a route that answers "
                        "so, or say with forge_health_status what it answers."
                    )
                time.sleep(PAUSE)
                continue
            passes += 1
            if passes >= health.passes:
                return
        raise RolloutError(f"Candidate {self.generation} was not healthy within {health.deadline} s: {seen}.")

    def missing_workers(self) -> str:
        """Which workers neither stand by nor serve; empty when all do."""
        ready, wanted = workers_in(self.layout, self.generation, STANDBY, PUBLIC), self.record.workers
        return f"{ready} of {wanted} workers have started" if ready < wanted else ""

    def check_alive(self) -> None:
        """A process that has ended is not waited for.

        :raises RolloutError: when the web process has ended.
        """
        if has_ended(self.service):
            raise RolloutError(f"Generation {self.generation} {self.end_of(self.service)}.", unit=self.service)

    def check_other_processes(self) -> None:
        """:raises RolloutError: when a process that should run has ended; what a timer starts may."""
        names = self.layout.processes(self.generation)
        for unit in names:
            if not unit.endswith(".service") or timer_of(unit) in names or not has_ended(unit):
                continue
            name = unit.partition("@")[0].partition(".")[2]
            raise RolloutError(f"Process {name} of {self.generation} {self.end_of(unit)}.", unit=unit)

    def end_of(self, unit: str) -> str:
        """How a service has ended the first time. One that systemd has started again knows it no more, its journal does."""
        state = systemd.properties(unit, "ExecMainCode", "ExecMainStatus")
        code, status = state.get("ExecMainCode", "0"), state.get("ExecMainStatus", "0")
        first = MAIN_EXITED.search("\n".join(systemd.journal(unit, self.since)))
        if first:
            code, status = first[1], first[2]
        if code in ("killed", "dumped", "2", "3"):
            name = signal.Signals(int(status)).name
            return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"exited (status {status})"

    def since_start(self) -> None:
        """Count its journal from the start of its private socket, which comes before its first process."""
        self.since = min(self.since, systemd.active_since(self.layout.socket(self.generation)) or self.since)

    def journal(self, *units: str) -> list[str]:
        """What the generation, or a unit of it, has written in this try; nothing when nobody knows what to mask in it."""
        if not os.path.exists(self.layout.generation(self.generation)):
            return []
        names = [*units] or [self.service]
        if not units and self.layout.processes(self.generation):
            names.append(f"{self.layout.app}.*@{self.generation}.service")
        return [self.masked(line) for unit in names for line in systemd.journal(unit, self.since)]

    def masked(self, text: str) -> str:
        """A text without the generation's secrets."""
        if not self._secrets:
            with suppress(OSError):
                self._secrets = secrets_below(self.layout.generation(self.generation))
        return mask(text, self._secrets)

    def explained(self, error: Exception) -> RolloutError:
        """An error with its first cause, and the journal from there on."""
        if isinstance(error, RolloutError) and error.journal:
            return error  # it has its own
        unit = getattr(error, "unit", "")
        lines = self.journal(unit) if unit else self.journal()
        sentence, shown = explain(self.masked(text_of(error)), lines, ended=bool(unit))
        return RolloutError(sentence, shown)

    def stop(self, drain_seconds: int, keep_web: bool = False, timeout: float = 0, wait: bool = True) -> None:
        """Stop the generation; it drains. Its socket goes first, or a late probe would start it again.

        :param keep_web: stop only its other processes.
        :param wait: until it has stopped.
        :param timeout: seconds; those of its drain when 0.
        :raises SystemdError: when it has not stopped by then.
        """
        web = [] if keep_web else [self.layout.socket(self.generation), self.service]
        # By pattern: what a lost directory had named is stopped too, and what was never loaded is no failure.
        pattern = f"{self.layout.app}.*@{self.generation}."
        others = [f"{self.layout.app}@{self.generation}.[t]arget", f"{pattern}timer", f"{pattern}service"]
        seconds = drain_seconds
        if self.layout.processes(self.generation):
            if web:
                systemd.systemctl("stop", "--no-block", *web)
            seconds = max(seconds, self.finish_scheduled())
        no_block = [] if wait else ["--no-block"]
        systemd.systemctl("stop", *no_block, *web, *others, timeout=timeout or seconds + STOP_MARGIN)

    def finish_scheduled(self) -> int:
        """Wait for a command that a timer has started, as long as it may take to stop.

        :returns: seconds that any process of the generation may take to stop.
        """
        names = self.layout.processes(self.generation)
        timers = [name for name in names if name.endswith(".timer")]
        if timers:
            systemd.systemctl("stop", *timers)
            scheduled = [name.replace(".timer", ".service") for name in timers]
            deadline = time.monotonic() + max(map(self.stop_seconds, scheduled))
            while time.monotonic() < deadline and {"active", "activating"} & set(systemd.states(*scheduled).values()):
                time.sleep(PAUSE)
        return max(map(self.stop_seconds, names), default=0)

    def stop_seconds(self, unit: str) -> int:
        """``TimeoutStopSec`` of a unit file; 0 where it has none."""
        found = re.search(r"^TimeoutStopSec=(\d+)$", installed_text(self.layout, unit), re.MULTILINE)
        return int(found[1]) if found else 0


def has_ended(unit: str) -> bool:
    """Has a service ended, or was it started again since?"""
    state = systemd.properties(unit, "ActiveState", "SubState", "NRestarts", "Job")
    dead = state["ActiveState"] in ("failed", "inactive") and not state.get("Job", "").strip("0")
    return dead or state["SubState"] == "auto-restart" or state.get("NRestarts", "0") != "0"
