# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs of one generation, its web process and its other processes: units, start, stop, and whether it is alive."""

from __future__ import annotations

import os
import re
import time

from . import systemd
from .errors import RolloutError
from .layout import Layout, write_atomically
from .masking import mask, secrets_below
from .probe import PROBE_TIMEOUT, HealthCheck
from .serving import installed_text, timer_of

PAUSE = 0.02  # seconds between two checks; a check takes half as long
# Seconds that systemd and Gunicorn add to the drain: see graceful_timeout and TimeoutStopSec in the service role.
STOP_MARGIN = 30


class Processes:
    """The units of one generation."""

    def __init__(self, layout: Layout, generation: str) -> None:
        self.layout = layout
        self.generation = generation
        self.record = layout.read_record(generation)
        self.service = layout.service(generation)
        self.socket = layout.private_socket(generation)
        self.since = time.time()  # of its journal

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
        """Start the web process with its private socket; it is not waited for."""
        if systemd.properties(self.service, "ActiveState")["ActiveState"] == "failed":
            systemd.systemctl("reset-failed", self.service)
        systemd.systemctl("start", self.layout.socket(self.generation))
        systemd.systemctl("start", "--no-block", self.service)

    def wait_until_healthy(self, health: HealthCheck) -> None:
        """:raises RolloutError: when the generation exits, or is not healthy at the deadline."""
        deadline = time.monotonic() + health.deadline
        passes, seen = 0, "it did not answer"
        while time.monotonic() < deadline:
            self.check_alive()
            problem = health.problem(self.socket, min(PROBE_TIMEOUT, max(PAUSE, deadline - time.monotonic())))
            if problem:
                passes, seen = 0, problem
                time.sleep(PAUSE)
                continue
            passes += 1
            if passes >= health.passes:
                return
        raise RolloutError(f"Candidate {self.generation} was not healthy within {health.deadline} s: {seen}.")

    def check_alive(self) -> None:
        """A process that has ended is not waited for.

        :raises RolloutError: when the web process has exited.
        """
        status = exit_status(self.service)
        if status:
            raise RolloutError(f"Generation {self.generation} exited (status {status}): its journal says why.")

    def check_other_processes(self) -> None:
        """:raises RolloutError: when a process that should run has exited; what a timer starts may."""
        names = self.layout.processes(self.generation)
        for unit in names:
            if not unit.endswith(".service") or timer_of(unit) in names:
                continue
            status = exit_status(unit)
            if status:
                name = unit.partition("@")[0].partition(".")[2]
                raise RolloutError(
                    f"Process {name} of {self.generation} exited (status {status}): its journal says why."
                )

    def journal(self) -> list[str]:
        """What the generation has written since this object was made, secrets masked."""
        secrets = secrets_below(self.layout.generation(self.generation))
        units = [self.service]
        if self.layout.processes(self.generation):
            units.append(f"{self.layout.app}.*@{self.generation}.service")
        return [mask(line, secrets) for unit in units for line in systemd.journal(unit, self.since)]

    def stop(self, drain_seconds: int, keep_web: bool = False, timeout: float = 0) -> None:
        """Stop the generation; it drains. Its socket goes first, or a late probe would start it again.

        :param keep_web: stop only its other processes.
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
        systemd.systemctl("stop", *web, *others, timeout=timeout or seconds + STOP_MARGIN)

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


def exit_status(unit: str) -> str:
    """Exit status of a service that has ended or was restarted; empty while it runs."""
    state = systemd.properties(unit, "ActiveState", "SubState", "NRestarts", "Job", "ExecMainStatus")
    dead = state["ActiveState"] in ("failed", "inactive") and not state.get("Job", "").strip("0")
    if dead or state["SubState"] == "auto-restart" or state.get("NRestarts", "0") != "0":
        return state.get("ExecMainStatus", "?")
    return ""
