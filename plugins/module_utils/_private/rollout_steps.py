# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a rollout on one host, one run at a time, and what the ledger and the records say of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import systemd
from .candidate import Candidate
from .ended import Ended
from .errors import STILL_SERVES, RolloutError, text_of
from .exclusive import LockHeld, exclusive_lock
from .generations import Generations
from .layout import Layout
from .probe import HealthCheck
from .processes import STOP_MARGIN, Processes
from .records import GenerationRecord, LedgerEvent
from .serving import is_converged, serving_generation
from .switch import Switch

CANNOT_DRAIN = "{server} can neither stand by nor drain: a release or a stop may cut requests that are under way on its connections."


class RolloutSteps:
    """
    :param params: of the module ``rollout``.
    :param warn: what takes a warning for the user.
    """

    def __init__(self, params: dict[str, Any], warn: Callable[[str], None]) -> None:
        self.params = params
        self.warn = warn
        self.layout = Layout(params["root"], params["app"])
        self.generations = Generations(self.layout)
        self.generation: str = params["generation"]
        self.processes = Processes(self.layout, self.generation)
        self.record = self.processes.record
        self.health = HealthCheck(
            params["health_path"], params["health_status"], params["health_passes"], params["health_deadline"]
        )
        self.candidate = Candidate(
            self.processes, self.health, params["drain_seconds"], params["smoke"], params["smoke_command"]
        )
        self.switch = Switch(self.processes, self.health, params["drain_seconds"], params["watch_seconds"])
        self.previous = serving_generation(self.layout)
        self.started = time.monotonic()
        self.result: dict[str, Any] = {
            "from": self.previous, "to": self.generation, "changed": False, "seconds": 0.0,
            **({"healthy": True, "reason": ""} if params["step"] == "candidate" else {}),
        }  # fmt: skip

    def run(self, check_mode: bool) -> None:
        """Take the step, unless its work is done; ``result`` says how it went, also that a candidate did not pass.

        :raises RolloutError: when it failed.
        """
        if not self.record.state:
            if not check_mode:
                raise RolloutError(f"Generation {self.generation} is not staged on this host: stage it first.")
            self.result["changed"] = True
            return
        self.check_take_over()
        try:
            if is_converged(self.layout, self.generation, self.processes.units()):
                return
            self.result["changed"] = True
            if check_mode:
                return
            with exclusive_lock(self.layout.kernel_lock("rollout"), self.params["drain_seconds"] + STOP_MARGIN):
                self.take_step()
        except LockHeld:
            raise RolloutError(
                f"Another rollout of {self.layout.app} is at work on this host: run again when it is done."
            ) from None
        except RolloutError as error:
            self.record_failure(error)
        except (systemd.SystemdError, OSError) as error:
            step = self.params["step"]
            reason = self.processes.masked(text_of(error))
            raise RolloutError(f"Rollout of {self.generation} stopped at step {step}: {reason}") from None
        finally:
            self.result["seconds"] = self.seconds()

    def check_take_over(self) -> None:
        """Say what is taken over.

        :raises RolloutError: when there is something of somebody else's that may not be, or cannot be, taken over.
        """
        take_over = self.switch.take_over
        foreign = take_over.foreign()
        if not foreign or self.params["step"] == "discard":
            return
        problem = take_over.old.problem() if take_over.socket in foreign else ""
        if "unit" not in self.params["take_over"]:
            problem = (
                f"{', '.join(foreign)} on this host was made by somebody else: take it over with forge_take_over: [unit], or "
                "give forge_app another name."
            )
        if problem:
            raise RolloutError(f"{problem} Nothing was started or stopped.")

    def take_step(self) -> None:
        problem = self.generations.repair_ledger()
        if problem:
            self.warn(problem)
        self.repair_current()
        self.generations.reconcile()
        step = self.params["step"]
        if step == "discard":
            self.candidate.discard()
        elif step == "candidate":
            if not self.record.drains:
                self.warn(drop_warning(self.record))
            self.candidate.start()
        else:
            self.take_switch()

    def repair_current(self) -> None:
        """Let ``current`` name what serves, before anything trusts it. Nothing is started or stopped for it."""
        serving = serving_generation(self.layout)
        if not serving or self.layout.live() == serving:
            return
        lost = self.layout.live()
        aside = self.layout.point_current(serving)
        was = f"named {lost}" if lost else f"was no link (it is now {aside})" if aside else "was not there"
        self.warn(f"{self.layout.current} {was}, while {serving} serves: it names that again.")

    def take_switch(self) -> None:
        """Switch, record it, and remove what is not needed any more."""
        switches = self.previous != self.generation
        if switches:
            self.record_event("switching")
        ended = Ended(self.processes)
        self.result["switched_in"] = round(self.switch.run(), 2)
        self.result["ended"] = ended.read()
        schema = {"schema": self.params["schema"]} if self.params["schema"] else {}
        self.generations.set_state(self.generation, "good", drop_warning=drop_warning(self.record), **schema)
        if self.previous and switches and self.params["action"] == "rollback":
            self.generations.set_state(self.previous, "left")
        if switches:
            self.record_event("switched")
        self.result["removed"] = self.generations.prune(self.params["keep"])

    def record_failure(self, error: RolloutError) -> None:
        """Mark the generation bad, unless it served before.

        :raises RolloutError: the error, unless it is that of a candidate, which is a result.
        """
        try:
            if self.previous != self.generation:
                self.generations.set_state(self.generation, "bad", reason=str(error))
            self.record_event("failed", str(error))
        except OSError as second:
            error = RolloutError(f"{error} It could not be recorded: {second.strerror}.", error.journal)
        if self.params["step"] != "candidate":
            raise error
        reason = f"{error} {STILL_SERVES}" if self.previous else str(error)
        self.result.update(healthy=False, reason=reason, journal=error.journal)

    def record_event(self, outcome: str, reason: str = "") -> None:
        self.generations.record_event(
            LedgerEvent(
                action=self.params["action"], by=self.params["by"], previous=self.previous, generation=self.generation,
                result=outcome, reason=reason, seconds=self.seconds(),
            )
        )  # fmt: skip

    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 2)


def drop_warning(record: GenerationRecord) -> str:
    """What a release of this generation may lose; empty when nothing."""
    server = record.worker_class or "The asgi worker of Gunicorn"
    return "" if record.drains else CANNOT_DRAIN.format(server=server)
