# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a rollout on one host, one run at a time, and what the ledger and the records say of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import systemd
from .candidate import Candidate
from .connections import most_of_a_worker
from .ended import Ended
from .errors import STILL_SERVES, RolloutError, TakenBack, text_of
from .exclusive import LockHeld, exclusive_lock, make_private
from .generations import Generations
from .layout import Layout
from .probe import HealthCheck
from .processes import STOP_MARGIN, Processes
from .records import GenerationRecord, LedgerEvent
from .serving import is_converged, serving_generation
from .switch import Switch

# What step=switch may go on with in the same call, in this order.
SERVING_STEPS = ("switch", "watch", "finish")
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
        # What to go back to, empty when nothing served; None when this step, and none before it, has switched.
        self.way_back: str | None = self.previous if self.previous != self.generation else params["previous"]
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
        step = self.params["step"]
        try:
            # The other two know what there was to go back to, and do less than this asks for.
            if step not in ("finish", "take_back") and is_converged(
                self.layout, self.generation, self.processes.units()
            ):
                return
            self.result["changed"] = True
            if check_mode:
                return
            if step == "take_back":
                self.request_take_back()
            with exclusive_lock(self.layout.kernel_lock("rollout"), self.params["drain_seconds"] + STOP_MARGIN):
                self.take_step()
        except LockHeld:
            raise RolloutError(
                f"Another rollout of {self.layout.app} is at work on this host: run again when it is done."
            ) from None
        except RolloutError as error:
            self.record_failure(error)
        except (systemd.SystemdError, OSError) as error:
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
        if self.params["previous"] is None:  # else it goes on with a switch of its own rollout
            self.generations.reconcile()
        step = self.params["step"]
        if step == "discard":
            self.candidate.discard()
        elif step == "candidate":
            if not self.record.drains:
                self.warn(drop_warning(self.record))
            self.candidate.start()
            self.measure_connections()
        elif step == "take_back":
            self.take_back()
        else:
            self.serve()

    def measure_connections(self) -> None:
        """Say how many connections to the database a worker of the candidate has, and when that is more than it was to be."""
        found, said = most_of_a_worker(self.layout, self.generation), self.params["worker_connections"]
        self.result["connections"] = found
        if 0 < said < found:
            self.warn(
                f"A worker of {self.generation} has {found} connections to its database, and forge_worker_connections says {said}: "
                "raise that, so that workers and max_connections are counted with it."
            )

    def repair_current(self) -> None:
        """Let ``current`` name what serves, before anything trusts it. Nothing is started or stopped for it."""
        serving = serving_generation(self.layout)
        if not serving or self.layout.live() == serving:
            return
        lost = self.layout.live()
        aside = self.layout.point_current(serving)
        was = f"named {lost}" if lost else f"was no link (it is now {aside})" if aside else "was not there"
        self.warn(f"{self.layout.current} {was}, while {serving} serves: it names that again.")

    def serve(self) -> None:
        """Take the steps of a switch that are asked for, from ``step`` through ``through``."""
        first, last = self.params["step"], self.params["through"] or self.params["step"]
        asked = SERVING_STEPS[SERVING_STEPS.index(first) : SERVING_STEPS.index(last) + 1]
        ended = Ended(self.processes)
        try:
            if "switch" in asked:
                if self.previous != self.generation:
                    self.record_event("switching")
                self.result["switched_in"] = round(self.switch.run(), 2)
            if "watch" in asked:
                self.switch.watch_after_flip(self.way_back)
                self.record_switch()
            if "finish" in asked:
                self.switch.finish(self.way_back)
                self.result["removed"] = self.generations.prune(self.params["keep"])
        except TakenBack:
            self.record_event("taken back")
            self.result["taken_back"] = True
        finally:
            self.result["ended"] = ended.read()

    def record_switch(self) -> None:
        known = {name: self.params[name] for name in ("schema", "way_back") if self.params[name]}
        self.generations.set_state(self.generation, "good", drop_warning=drop_warning(self.record), **known)
        if self.way_back and self.params["action"] == "rollback":
            self.generations.set_state(self.way_back, "left")
        if self.way_back is not None:
            self.record_event("switched")

    def request_take_back(self) -> None:
        """Tell a rollout that watches on this host to go back by itself; without one it is done here, under the lock."""
        make_private(self.layout.locks)
        with open(self.layout.take_back_request, "w", encoding="ascii"):
            pass

    def take_back(self) -> None:
        """Bring back what served before on a host whose own release went well; stop a candidate that was not switched to."""
        self.switch.forget_take_back()
        previous = self.params["previous"]
        if self.layout.live() != self.generation:
            self.candidate.discard()
        elif previous:
            self.switch.go_back(previous)
            self.result["taken_back"] = True
            if not self.generations.live_since():  # its switch was recorded
                if self.params["action"] == "rollback":  # which had left it
                    self.generations.set_state(previous, "good")
                else:
                    self.generations.set_state(self.generation, "left")
                back = LedgerEvent(
                    action="rollback", by=self.params["by"], previous=self.generation, generation=previous,
                    result="switched", reason="taken back", seconds=self.seconds(),
                )  # fmt: skip
                self.generations.record_event(back)
        else:  # it keeps what it was released
            self.switch.finish(None)
        self.result["serves"] = serving_generation(self.layout)

    def record_failure(self, error: RolloutError) -> None:
        """Mark the generation bad, unless it served before.

        :raises RolloutError: the error, unless it is that of a candidate, which is a result.
        """
        try:
            if self.way_back is not None:
                self.generations.set_state(self.generation, "bad", reason=str(error))
            self.record_event("failed", str(error))
        except OSError as second:
            error = RolloutError(f"{error} It could not be recorded: {second.strerror}.", error.journal)
        if self.params["step"] != "candidate":
            raise error
        reason = f"{error} {STILL_SERVES}" if self.previous else str(error)
        self.result.update(healthy=False, reason=reason, journal=error.journal)

    def record_event(self, outcome: str, reason: str = "") -> None:
        previous = self.previous_generation()
        schemas = [self.layout.read_record(each).schema for each in (previous, self.generation)]
        self.generations.record_event(
            LedgerEvent(
                action=self.params["action"], by=self.params["by"], previous=previous, generation=self.generation,
                result=outcome, reason=reason, seconds=self.seconds(), schema_before=schemas[0], schema=schemas[1],
                way_back=self.params["way_back"],
            )
        )  # fmt: skip

    def previous_generation(self) -> str:
        return self.way_back if self.way_back is not None else self.previous

    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 2)


def drop_warning(record: GenerationRecord) -> str:
    """What a release of this generation may lose; empty when nothing."""
    server = record.worker_class or "The asgi worker of Gunicorn"
    return "" if record.drains else CANNOT_DRAIN.format(server=server)
