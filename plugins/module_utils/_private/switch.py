# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switch from one generation to another: flip, standby of the old one, watch of the new one, its end, and the way back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from . import systemd
from .addresses import are_disjoint
from .candidate import Candidate
from .errors import RolloutError, TakenBack
from .probe import HealthCheck
from .processes import PAUSE, STOP_MARGIN, Processes
from .serving import (
    address_problem,
    idle_processes,
    needs_new_socket,
    open_addresses,
    public_units,
    public_workers,
    wanted_addresses,
)
from .takeover import TakeOver

WATCH_PAUSE = 0.5  # seconds
TAKE_BACK_PAUSE = 0.1  # seconds between two looks at whether that is asked for
# Lets a probe fail once while the machine is busy, before the host goes back.
WATCH_FAILURES = 3
# Workers look ten times a second; those of an earlier version of this collection never do.
STANDBY_SECONDS = 2


class Switch:
    def __init__(self, processes: Processes, health: HealthCheck, drain_seconds: int, watch_seconds: int) -> None:
        """
        :param processes: of the generation that is to serve.
        :param watch_seconds: after the flip, during which a failure makes the host go back.
        """
        self.processes = processes
        self.layout = processes.layout
        self.generation = processes.generation
        self.health = health
        self.drain_seconds = drain_seconds
        self.watch_seconds = watch_seconds
        self.take_over = TakeOver(self.layout, self.generation, processes.units())

    def run(self) -> float:
        """Flip, and let the old generation stand by: watched, the new one may turn out sick, and then that can serve again
        at once.

        :returns: seconds until every new worker accepted public requests.
        :raises RolloutError: when the new generation failed; the host has gone back by then.
        """
        self.forget_take_back()
        if self.layout.live() == self.generation:
            self.resume()
            return 0.0
        self.processes.since_start()
        takes_over = self.take_over.is_due()
        if self.processes.record.drains and not takes_over:
            self.processes.check_alive()
        flipped = time.monotonic()
        with self.way_back(self.layout.live()):
            if takes_over:
                self.flip_beside()
            else:
                self.flip()
            switched_in = time.monotonic() - flipped
            self.stop_others(keep_web=self.others_stand_by())
            self.enable_units()
        return switched_in

    def resume(self) -> None:
        """Do what a rollout that was killed after its flip had left to do, but for the end of what stands by."""
        self.clear_standby()
        self.processes.install_units()
        self.stop_others(keep_web=True)
        if self.take_over.is_due():
            self.take_over.end_old(self.drain_seconds + STOP_MARGIN)
        self.enable_units()
        if idle_processes(self.layout, self.generation):
            self.processes.check_other_processes()

    def watch_after_flip(self, previous: str | None) -> None:
        """Watch the new generation until its time after the flip is over.

        :param previous: generation to go back to, empty when nothing served before; None when there is no way back.
        :raises TakenBack: when that was asked for meanwhile; the host has gone back by then.
        :raises RolloutError: when it failed; the host has gone back by then.
        """
        has_processes = bool(self.layout.processes(self.generation))
        if not previous and not has_processes:
            return
        # Other processes have started only after the flip.
        remaining = self.watch_seconds if has_processes else self.watch_seconds - self.seconds_since_flip()
        with self.way_back(previous):
            self.watch(time.monotonic() + remaining, may_be_taken_back=bool(previous))

    def finish(self, previous: str | None) -> None:
        """Stop the old generation, which drains.

        :param previous: as for :meth:`watch_after_flip`.
        :raises RolloutError: when the new generation turned sick meanwhile; the host has gone back by then.
        """
        if systemd.running(self.layout.app) == [self.generation]:
            return
        with self.way_back(previous):
            self.stop_others()
            self.watch(time.monotonic())

    def seconds_since_flip(self) -> float:
        """Seconds, by the host's clock; none when that was set back since."""
        return max(0.0, time.time() - os.lstat(self.layout.current).st_mtime)

    @contextmanager
    def way_back(self, previous: str | None) -> Iterator[None]:
        """Go back when what is done here fails.

        :param previous: as for :meth:`watch_after_flip`.
        :raises TakenBack: when that was asked for; the host has gone back by then.
        :raises RolloutError: for any other failure.
        """
        try:
            yield
        except TakenBack:
            self.go_back(previous or "")
            raise
        except (RolloutError, systemd.SystemdError, OSError) as error:
            failure = self.processes.explained(error)
            if previous is None:
                raise failure from None
            try:
                self.go_back(previous)
            except RolloutError as second:
                raise RolloutError(f"{failure} {second}", failure.journal) from None
            if not previous:
                raise failure from None
            raise RolloutError(f"{failure} The host went back to {previous}.", failure.journal) from None

    def forget_take_back(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.layout.take_back_request)

    def flip(self) -> None:
        """Make the generation live, and wait until it accepts public requests."""
        if needs_new_socket(self.layout, self.processes.units()):
            self.move_socket()
            return
        self.processes.install_units()
        if not self.processes.record.drains:
            self.processes.start_web()
            self.processes.wait_until_healthy(self.health)
        self.point_current()
        self.wait_until_public()

    def flip_beside(self) -> None:
        """Take over from somebody else's service: it serves until this generation does, and while that is watched."""
        self.take_over.open_beside()
        self.processes.start_web()
        self.processes.wait_until_healthy(self.health)
        self.take_over.give_way()
        self.processes.install_units()
        self.point_current()
        self.wait_until_public()
        self.take_over.hand_over()
        if not self.layout.processes(self.generation):  # which start only when the old service has ended
            self.watch(time.monotonic() + self.watch_seconds)
        self.take_over.end_old(self.drain_seconds + STOP_MARGIN)

    def point_current(self) -> None:
        """The switch: whoever reads ``current`` sees the old generation or the new one."""
        self.clear_standby()
        self.layout.point_current(self.generation)

    def clear_standby(self) -> None:
        """Let a generation that stands by serve again."""
        with suppress(FileNotFoundError):
            os.unlink(self.layout.standby_request(self.generation))

    def wait_until_public(self) -> None:
        """Wait until every worker accepts public requests. A server that does not say so is asked for its health.

        :raises RolloutError: when they do not by the deadline.
        """
        if not self.processes.record.drains:
            return self.processes.wait_until_healthy(self.health)
        wanted, public = self.processes.record.workers, 0
        deadline = time.monotonic() + self.health.deadline
        while time.monotonic() < deadline:
            self.processes.check_alive()
            public = public_workers(self.layout, self.generation)
            if public >= wanted:
                return
            time.sleep(PAUSE)
        raise RolloutError(
            f"After the switch {public} of {wanted} workers of {self.generation} accepted public requests "
            f"within {self.health.deadline} s."
        )

    def move_socket(self) -> None:
        """Listen elsewhere. What serves goes on at the old addresses until the new ones are open and served.

        :raises RolloutError: when a new address is taken; nothing has been stopped then.
        """
        units = self.processes.units()
        problem = address_problem(self.layout, units)
        if problem:
            raise RolloutError(problem)
        if not are_disjoint(wanted_addresses(self.layout, units), open_addresses(self.layout)):
            self.rebind_socket()
            return
        self.processes.stop(self.drain_seconds)  # it was given the old sockets, and has served nobody
        # What serves keeps its own hold on the old sockets. Alone: stopping these units stops every generation.
        systemd.systemctl("stop", "--job-mode=ignore-dependencies", *public_units(self.layout.app))
        self.processes.install_units()
        systemd.systemctl("start", f"{self.layout.app}.socket")
        self.processes.start_web()
        self.processes.wait_until_healthy(self.health)
        self.point_current()
        self.wait_until_public()

    def rebind_socket(self) -> None:
        """Open the public socket anew, where a new address cannot be open beside an old one: this needs a restart."""
        systemd.systemctl("stop", *public_units(self.layout.app), timeout=self.drain_seconds + STOP_MARGIN)
        self.stop_others()  # they are on their way out: wait for it, so that no two versions work at once
        self.processes.stop(self.drain_seconds)
        self.processes.install_units()
        self.point_current()
        self.enable_units()
        self.wait_until_public()

    def enable_units(self) -> None:
        """Have the app started at boot, and start what of the generation does not run yet."""
        names = public_units(self.layout.app)
        if not systemd.are_enabled(*names):
            systemd.systemctl("enable", "--quiet", *names)
        systemd.systemctl("start", *names)
        systemd.systemctl("start", self.layout.target(self.generation))

    def others_stand_by(self) -> bool:
        """Tell other generations to accept nothing more, and to answer what they have accepted.

        :returns: whether they do; not every server can.
        """
        others = [each for each in systemd.instances(self.layout.app) if each != self.generation]
        if not all(self.layout.read_record(each).drains for each in others):
            return False
        if not all(os.path.isdir(self.layout.worker_states(each)) for each in others):
            return False  # it was removed, and with it the way to tell them
        for each in others:
            with suppress(FileExistsError, FileNotFoundError):
                os.close(os.open(self.layout.standby_request(each), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        deadline = time.monotonic() + STANDBY_SECONDS
        while any(public_workers(self.layout, each) for each in others):
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE)
        return True

    def stop_others(self, keep_web: bool = False) -> None:
        """Stop all other generations, which drain.

        :param keep_web: only their other processes.
        """
        for other in self.processes.others():
            other.stop(self.drain_seconds, keep_web)

    def watch(self, until: float, may_be_taken_back: bool = False) -> None:
        """Watch that the new generation stays well; ask at least once, as the drain may have taken all of the time.

        :param until: a time of the monotonic clock.
        :param may_be_taken_back: end when that is asked for.
        :raises TakenBack: when it was.
        :raises RolloutError: when it died, or its health failed several times in a row.
        """
        failures = 0
        while True:
            self.processes.check_alive()
            self.processes.check_other_processes()
            problem = self.health.problem(self.processes.socket)
            failures = failures + 1 if problem else 0
            if failures >= WATCH_FAILURES:
                raise RolloutError(f"Generation {self.generation} was healthy, and then {problem}.")
            remaining = until - time.monotonic()
            if remaining <= 0 and not failures:
                return
            pause_until = time.monotonic() + (min(WATCH_PAUSE, remaining) if remaining > 0 else WATCH_PAUSE)
            while time.monotonic() < pause_until:
                if may_be_taken_back and os.path.exists(self.layout.take_back_request):
                    raise TakenBack
                time.sleep(min(TAKE_BACK_PAUSE, max(0, pause_until - time.monotonic())))

    def go_back(self, previous: str) -> None:
        """Bring back what served before. Connections wait in the public socket meanwhile, which stays open.

        :param previous: generation; empty when there was none: then nothing serves.
        :raises RolloutError: when that fails too.
        """
        if not previous:
            with suppress(FileNotFoundError):
                os.unlink(self.layout.current)
            self.take_over.undo()
            Candidate(self.processes, self.health, self.drain_seconds).discard()
            self.take_over.revive()
            return
        back = Switch(Processes(self.layout, previous), self.health, self.drain_seconds, watch_seconds=0)
        try:
            self.processes.stop(self.drain_seconds, keep_web=True)
            if previous not in systemd.instances(self.layout.app):
                back.processes.install_units(own_only=True)
                back.processes.start_web()
                back.processes.wait_until_healthy(self.health)
            if needs_new_socket(self.layout, back.processes.units()):
                back.rebind_socket()
            else:
                back.processes.install_units()
                back.point_current()
                back.wait_until_public()
            systemd.systemctl("start", self.layout.target(previous))
        except (RolloutError, systemd.SystemdError, OSError) as error:
            reason = back.processes.explained(error)
            raise RolloutError(f"Going back to {previous} failed: {reason}") from None
        self.processes.stop(self.drain_seconds, wait=False)  # other hosts wait for this one
