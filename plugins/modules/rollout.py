#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

DOCUMENTATION = r"""
module: rollout
short_description: Bring a staged generation into service on a host without losing a request
version_added: 1.0.0
description:
  - V(candidate) starts the generation beside the live one, and waits until it is healthy and passes the smoke
    tests on its private socket. It receives no public request yet. When it fails it is stopped and marked bad, and
    the live generation has not noticed; the answer says RV(healthy=false).
  - V(abandon) stops a candidate, because another host's failed.
  - V(switch) flips C(current), waits until the new workers accept public requests, and tells the old generation to stand
    by; it accepts nothing more, and answers what it has accepted. Its other processes end before those of the new one
    start. Then the new one is watched. When it fails, the old one serves again at once; when all is well, the old one
    stops.
  - A server that can neither stand by nor drain is tried on its private socket alone and stopped again. At the switch
    it starts beside the old generation, and serves as soon as it can.
  - A step that finds its work done does nothing.
author: The Code Forge (@thecodeforge)
options:
  app:
    description: Name of the app.
    type: str
    required: true
  root:
    description: Directory that holds the apps.
    type: path
    required: true
  generation:
    description: Id of a staged generation.
    type: str
    required: true
  step:
    description: Which step to take.
    type: str
    required: true
    choices: [candidate, abandon, switch]
  action:
    description: What the ledger calls it.
    type: str
    default: deploy
    choices: [deploy, rollback]
  by:
    description: Who does it, and from where, for the ledger.
    type: str
    default: ""
  health_path:
    description: What is asked of the candidate.
    type: str
    default: /healthz
  health_status:
    description: The status it must answer.
    type: int
    default: 200
  health_passes:
    description: How many times in a row.
    type: int
    default: 1
  health_deadline:
    description: Seconds until the candidate must have answered.
    type: int
    default: 60
  smoke:
    description:
      - Requests that the candidate must answer after it is healthy. Each has a C(path), and may have a C(method), a
        C(body), C(headers), the C(status) it must answer, and a text that the answer C(contains).
    type: list
    elements: dict
    default: []
  smoke_command:
    description: A command that must succeed, run as the service; C(FORGE_SOCKET) is the private socket.
    type: str
    default: ""
  watch_seconds:
    description: Seconds after the switch during which a failure makes the host go back.
    type: int
    default: 10
  drain_seconds:
    description: Seconds that the old generation may take to finish what it serves.
    type: int
    default: 20
  keep:
    description: Good generations to keep.
    type: int
    default: 5
  schema:
    description: Version of the database's schema that the generation was migrated to; a rollback compares it.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Start the candidate
  thecodeforge.fastapi.rollout:
    app: forge
    root: /srv
    generation: 0123456789ab-01234567
    step: candidate
"""

RETURN = r"""
from:
  description: Id of the generation that served before; empty when none did.
  returned: always
  type: str
to:
  description: Id of the generation asked for.
  returned: always
  type: str
seconds:
  description: Seconds the step took on the host.
  returned: always
  type: float
healthy:
  description: Did the candidate pass?
  returned: step=candidate
  type: bool
reason:
  description: Why the candidate did not pass; empty when it did.
  returned: step=candidate
  type: str
journal:
  description: What a generation that failed wrote last, secrets masked.
  returned: when one failed
  type: list
  elements: str
switched_in:
  description: Seconds from the flip until every new worker accepted public requests.
  returned: step=switch
  type: float
removed:
  description: Generations that were pruned.
  returned: step=switch
  type: list
  elements: str
"""

import http.client
import os
import re
import shlex
import shutil
import time
from contextlib import suppress
from typing import NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private import systemd
from ..module_utils._private.alone import Busy, alone
from ..module_utils._private.generations import Generations
from ..module_utils._private.layout import Layout, sync_directory, write_atomically
from ..module_utils._private.masking import mask, secrets_below
from ..module_utils._private.probe import ask, smoke_problem
from ..module_utils._private.settled import idle_processes, installed, is_settled, needs_new_socket, public_workers
from ..module_utils._private.transient import Transient, TransientError

PAUSE = 0.02  # seconds between two looks; a look takes half as long
PROBE_TIMEOUT = 5.0
# systemd and Gunicorn add a little to the drain itself: see graceful_timeout and TimeoutStopSec in the service role.
STOP_MARGIN = 30
# Lets a probe fail once while the machine is busy, before the host goes back.
WATCH_FAILURES = 3
ABANDON_SECONDS = 5
# Workers look ten times a second; those of an earlier version of this collection never do.
STAND_BY_SECONDS = 2
# What a switch writes is some kilobytes.
ROOM = 1 << 20
STILL_SERVES = "What served before still serves."
CANNOT_DRAIN = "{server} can neither stand by nor drain: a release or a stop may cut requests that are under way on its connections."


class RolloutError(Exception):
    """One sentence for the user: what is wrong, where, what to do."""

    def __init__(self, sentence: str, journal: list[str] | None = None) -> None:
        super().__init__(sentence)
        self.journal = journal or []


class Rollout:
    def __init__(self, params: dict) -> None:
        self.given = params
        self.layout = Layout(params["root"], params["app"])
        self.generations = Generations(self.layout)
        self.generation: str = params["generation"]
        self.service = self.layout.service(self.generation)
        self.record = self.layout.read_record(self.generation)
        self.drains: bool = self.record.get("drains", True)
        server = self.record.get("worker_class") or "The asgi worker of Gunicorn"
        self.loses = "" if self.drains else CANNOT_DRAIN.format(server=server)
        self.began = time.time()

    def units(self) -> dict[str, str]:
        """Unit files that belong to the generation, name to text."""
        directory = os.path.join(self.layout.generation(self.generation), "units")
        found = {}
        for name in sorted(os.listdir(directory)):
            with open(os.path.join(directory, name), encoding="utf-8") as handle:
                found[name] = handle.read()
        return found

    def journal(self) -> list[str]:
        secrets = secrets_below(self.layout.generation(self.generation))
        units = [self.service]
        if self.layout.processes(self.generation):
            units.append(f"{self.layout.app}.*@{self.generation}.service")
        return [mask(line, secrets) for unit in units for line in systemd.journal(unit, self.began)]

    # -- candidate ---------------------------------------------------------------------------------

    def start_candidate(self) -> None:
        """Start the generation and put it through its tests.

        :raises RolloutError: when it does not pass; it is stopped by then.
        """
        self.stop_strays()
        try:
            self.check_room()
            self.install_units(own_only=True, trial=not self.drains)
            self.start_web()
            self.wait_for_health()
            self.smoke()
            self.check_socket()
        except (RolloutError, systemd.SystemdError, OSError) as error:
            failure = RolloutError(str(error), self.journal())
            self.abandon()
            raise failure from None
        if not self.drains:
            self.stop(self.generation)
            self.install_units(own_only=True)

    def check_socket(self) -> None:
        """:raises RolloutError: when a first release cannot listen where it should."""
        unit = f"{self.layout.app}.socket"
        if self.drains and not self.layout.live() and systemd.states(unit).get(unit) != "active":
            listens = ", ".join(self.record.get("listen", []))
            raise RolloutError(
                f"{unit} could not be opened: something else on this host listens on {listens}. Give this app another "
                f"forge_listen, or stop what is there."
            )

    def start_web(self) -> None:
        if systemd.properties(self.service, "ActiveState")["ActiveState"] == "failed":
            systemd.systemctl("reset-failed", self.service)
        systemd.systemctl("start", self.layout.socket(self.generation))
        systemd.systemctl("start", "--no-block", self.service)

    def stop_strays(self) -> None:
        """Stop what a killed rollout left behind: all but the live one. Also a candidate of this generation, which may
        have crashed over and over since.
        """
        for generation in systemd.running(self.layout.app):
            if generation != self.layout.live():
                self.stop(generation)

    def check_room(self) -> None:
        """:raises RolloutError: when a disk is full: the switch could not be made, or not be written down."""
        for directory in (self.layout.home, os.path.dirname(self.layout.run), self.layout.units):
            if shutil.disk_usage(directory).free < ROOM:
                raise RolloutError(
                    f"Candidate {self.generation} was not started: {directory} has less than {ROOM >> 20} MB free."
                )

    def wait_for_health(self) -> None:
        deadline = time.monotonic() + self.given["health_deadline"]
        passes, seen = 0, "it did not answer"
        while time.monotonic() < deadline:
            self.check_alive()
            problem = self.health_problem(min(PROBE_TIMEOUT, max(PAUSE, deadline - time.monotonic())))
            if problem:
                passes, seen = 0, problem
                time.sleep(PAUSE)
                continue
            passes += 1
            if passes >= self.given["health_passes"]:
                return
        raise RolloutError(
            f"Candidate {self.generation} was not healthy within {self.given['health_deadline']} s: {seen}."
        )

    def health_problem(self, timeout: float) -> str:
        path = self.given["health_path"]
        try:
            status, _text = ask(self.layout.private_socket(self.generation), path, timeout)
        except (OSError, http.client.HTTPException):
            return "it did not answer"
        wanted = self.given["health_status"]
        return "" if status == wanted else f"GET {path} answered {status}, not {wanted}"

    def smoke(self) -> None:
        for request in self.given["smoke"]:
            problem = smoke_problem(self.layout.private_socket(self.generation), request, self.given["health_deadline"])
            if problem:
                raise RolloutError(f"Candidate {self.generation} failed a smoke test: {problem}.")
        command = self.given["smoke_command"]
        if command:
            words = [f"FORGE_SOCKET={self.layout.private_socket(self.generation)}", *shlex.split(command)]
            try:
                rc, output, _seconds = Transient(self.layout, self.generation).run(words, self.given["health_deadline"])
            except TransientError as error:
                raise RolloutError(f"Candidate {self.generation} failed the smoke test {command!r}: {error}") from None
            if rc:
                last = output.strip().splitlines()[-1:] or ["it printed nothing"]
                raise RolloutError(
                    f"Candidate {self.generation} failed the smoke test {command!r} with exit code {rc}: {last[0]}"
                )

    def check_alive(self) -> None:
        """A process that has ended is not waited for.

        :raises RolloutError: when the generation exited.
        """
        status = exited(self.service)
        if status:
            raise RolloutError(f"Generation {self.generation} exited (status {status}): its journal says why.")

    def check_processes(self) -> None:
        """:raises RolloutError: when a process that should run has exited."""
        for unit in self.layout.processes(self.generation):
            status = exited(unit) if not self.starts_by_timer(unit) and unit.endswith(".service") else ""
            if status:
                name = unit.partition("@")[0].partition(".")[2]
                raise RolloutError(
                    f"Process {name} of {self.generation} exited (status {status}): its journal says why."
                )

    def starts_by_timer(self, unit: str) -> bool:
        return unit.replace(".service", ".timer") in self.layout.processes(self.generation)

    def stop(self, generation: str, only_processes: bool = False, within: float = 0) -> None:
        """Stop a generation; it drains. Its socket goes first, or a late probe would start it again.

        :param only_processes: leave its web process.
        :param within: seconds; those of its drain when 0.
        """
        web = [] if only_processes else [self.layout.socket(generation), self.layout.service(generation)]
        # By pattern: what a lost directory had named is stopped too, and what was never loaded is no failure.
        own = f"{self.layout.app}.*@{generation}."
        others = [f"{self.layout.app}@{generation}.[t]arget", f"{own}timer", f"{own}service"]
        seconds = self.given["drain_seconds"]
        if self.layout.processes(generation):
            if web:
                systemd.systemctl("stop", "--no-block", *web)
            seconds = max(seconds, self.finish_scheduled(generation))
        systemd.systemctl("stop", *web, *others, timeout=within or seconds + STOP_MARGIN)

    def finish_scheduled(self, generation: str) -> int:
        """Wait for a command that a timer has started, as long as it may take to stop.

        :returns: seconds that any process of the generation may take to stop.
        """
        names = self.layout.processes(generation)
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
        found = re.search(r"^TimeoutStopSec=(\d+)$", installed(self.layout, unit), re.MULTILINE)
        return int(found[1]) if found else 0

    def abandon(self) -> None:
        """Stop the candidate. It has served nobody, so one that hangs is not waited for."""
        if self.generation == self.layout.live():
            return
        try:
            self.stop(self.generation, within=ABANDON_SECONDS)
        except systemd.SystemdError:
            systemd.systemctl("kill", "--signal=SIGKILL", self.service)
            self.stop(self.generation)
        if not self.layout.live():
            # Nothing can serve yet: an open public socket would only fail over and over.
            systemd.systemctl("stop", f"{self.layout.app}.socket")

    # -- switch ------------------------------------------------------------------------------------

    def switch(self) -> float:
        """Flip, drain the old generation, watch the new one. Returns the seconds of the flip itself.

        :raises RolloutError: when the new generation failed; the host has gone back by then.
        """
        before = self.layout.live()
        if before == self.generation:
            self.lift(before)
            self.install_units()
            self.stop_others()
            self.hold_at_boot()
            if idle_processes(self.layout, self.generation):
                self.check_processes()
            return 0.0
        if self.drains:
            self.check_alive()
        flipped = time.monotonic()
        try:
            if needs_new_socket(self.layout, self.units()):
                self.move_socket()
            else:
                self.install_units()
                if not self.drains:
                    self.start_web()
                    self.wait_for_health()
                self.point_current(self.generation)
                self.wait_until_public()
            switched_in = time.monotonic() - flipped
            # Watched, the new one may turn out sick: then the old one can serve again at once.
            self.stop_others(only_processes=self.given["watch_seconds"] > 0 and self.others_stand_by())
            self.hold_at_boot()
            processes = self.layout.processes(self.generation)
            if before or processes:
                # Other processes have started only now.
                self.watch((time.monotonic() if processes else flipped) + self.given["watch_seconds"])
            if systemd.running(self.layout.app) != [self.generation]:
                self.drain_others()
        except (RolloutError, systemd.SystemdError, OSError) as error:
            self.go_back(before, RolloutError(str(error), self.journal()))
        return switched_in

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
            try:
                with open(path, encoding="utf-8") as handle:
                    same = handle.read() == text
            except OSError:
                same = False
            if not same:
                write_atomically(path, text.encode(), 0o644)
                changed = True
        if changed:
            systemd.systemctl("daemon-reload")

    def point_current(self, generation: str) -> None:
        """The switch: one rename(2). Whoever reads ``current`` sees the old generation or the new one."""
        self.lift(generation)
        temporary = f"{self.layout.current}.tmp"
        if os.path.lexists(temporary):
            os.unlink(temporary)  # of a rollout that was killed here
        os.symlink(os.path.join("generations", generation), temporary)
        os.rename(temporary, self.layout.current)
        sync_directory(self.layout.home)

    def lift(self, generation: str) -> None:
        """A generation that stands by serves again."""
        with suppress(FileNotFoundError):
            os.unlink(self.layout.stand_by(generation))

    def wait_until_public(self) -> None:
        """Wait until every worker accepts public requests. A server that does not say so is asked for its health."""
        if not self.drains:
            return self.wait_for_health()
        wanted = self.record.get("workers", 1)
        deadline = time.monotonic() + self.given["health_deadline"]
        public = 0
        while time.monotonic() < deadline:
            self.check_alive()
            public = public_workers(self.layout, self.generation)
            if public >= wanted:
                return
            time.sleep(PAUSE)
        raise RolloutError(
            f"After the switch {public} of {wanted} workers of {self.generation} accepted public requests "
            f"within {self.given['health_deadline']} s."
        )

    def hold_at_boot(self) -> None:
        names = (f"{self.layout.app}.socket", f"{self.layout.app}.service")
        if not all(systemd.is_enabled(name) for name in names):
            systemd.systemctl("enable", "--quiet", *names)
        systemd.systemctl("start", *names)
        systemd.systemctl("start", self.layout.target(self.generation))

    def others_stand_by(self) -> bool:
        """Tell other generations to accept nothing more, and to answer what they have accepted.

        :returns: whether they do; not every server can.
        """
        others = [each for each in systemd.instances(self.layout.app) if each != self.generation]
        if not all(self.layout.read_record(each).get("drains", True) for each in others):
            return False
        for each in others:
            with suppress(FileExistsError, FileNotFoundError):
                os.close(os.open(self.layout.stand_by(each), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        deadline = time.monotonic() + STAND_BY_SECONDS
        while any(public_workers(self.layout, each) for each in others):
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE)
        return True

    def drain_others(self) -> None:
        """:raises RolloutError: when the new generation turned sick meanwhile."""
        self.stop_others()
        self.watch(time.monotonic())

    def stop_others(self, only_processes: bool = False) -> None:
        for generation in systemd.running(self.layout.app):
            if generation != self.generation:
                self.stop(generation, only_processes)

    def move_socket(self) -> None:
        """Listen elsewhere: the one change that needs a restart, because a bound socket cannot move."""
        names = (f"{self.layout.app}.service", f"{self.layout.app}.socket")
        systemd.systemctl("stop", *names, timeout=self.given["drain_seconds"] + STOP_MARGIN)
        self.stop_others()  # they are on their way out: wait for it, so that no two versions work at once
        self.stop(self.generation)
        self.install_units()
        self.point_current(self.generation)
        self.hold_at_boot()
        self.wait_until_public()

    def watch(self, until: float) -> None:
        """See that the new generation stays well for a while; at least once, as the drain may have taken all of it.

        :raises RolloutError: when it died, or its health failed several times in a row.
        """
        failures = 0
        while True:
            self.check_alive()
            self.check_processes()
            problem = self.health_problem(PROBE_TIMEOUT)
            failures = failures + 1 if problem else 0
            if failures >= WATCH_FAILURES:
                raise RolloutError(f"Generation {self.generation} was healthy, and then {problem}.")
            left = until - time.monotonic()
            if left <= 0 and not failures:
                return
            time.sleep(min(0.5, left) if left > 0 else 0.5)

    def go_back(self, before: str, error: RolloutError) -> NoReturn:
        """Bring back what served before. Connections wait in the public socket meanwhile, which stays open."""
        if not before:
            os.unlink(self.layout.current)
            self.abandon()
            raise error
        old = Rollout({**self.given, "generation": before, "smoke": [], "smoke_command": "", "watch_seconds": 0})
        try:
            self.stop(self.generation, only_processes=True)
            if before not in systemd.instances(self.layout.app):
                systemd.systemctl("start", self.layout.socket(before))
                systemd.systemctl("start", "--no-block", self.layout.service(before))
                old.wait_for_health()
            if needs_new_socket(self.layout, old.units()):
                old.move_socket()
            else:
                old.install_units()
                old.point_current(before)
                old.wait_until_public()
            systemd.systemctl("start", self.layout.target(before))
        except (RolloutError, systemd.SystemdError, OSError) as second:
            raise RolloutError(f"{error} Going back to {before} failed too: {second}", error.journal) from None
        self.stop(self.generation)
        raise RolloutError(f"{error} The host went back to {before}.", error.journal)


def exited(unit: str) -> str:
    """Exit status of a service that has ended or was restarted; empty while it runs."""
    state = systemd.properties(unit, "ActiveState", "SubState", "NRestarts", "Job", "ExecMainStatus")
    dead = state["ActiveState"] in ("failed", "inactive") and not state.get("Job", "").strip("0")
    if dead or state["SubState"] == "auto-restart" or state.get("NRestarts", "0") != "0":
        return state.get("ExecMainStatus", "?")
    return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "generation": {"type": "str", "required": True},
            "step": {"type": "str", "required": True, "choices": ["candidate", "abandon", "switch"]},
            "action": {"type": "str", "default": "deploy", "choices": ["deploy", "rollback"]},
            "by": {"type": "str", "default": ""},
            "health_path": {"type": "str", "default": "/healthz"},
            "health_status": {"type": "int", "default": 200},
            "health_passes": {"type": "int", "default": 1},
            "health_deadline": {"type": "int", "default": 60},
            "smoke": {"type": "list", "elements": "dict", "default": []},
            "smoke_command": {"type": "str", "default": ""},
            "watch_seconds": {"type": "int", "default": 10},
            "drain_seconds": {"type": "int", "default": 20},
            "keep": {"type": "int", "default": 5},
            "schema": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    given = module.params
    rollout = Rollout(given)
    before = rollout.layout.live()
    result = {"from": before, "to": rollout.generation, "changed": False, "seconds": 0.0}
    if given["step"] == "candidate":
        result.update(healthy=True, reason="")
    started = time.monotonic()

    def seconds() -> float:
        return round(time.monotonic() - started, 2)

    def note(outcome: str, reason: str = "") -> None:
        rollout.generations.note(
            action=given["action"], by=given["by"], **{"from": before, "to": rollout.generation},
            result=outcome, reason=reason, seconds=seconds(),
        )  # fmt: skip

    def take_step() -> None:
        rollout.generations.catch_up()
        if given["step"] == "abandon":
            rollout.abandon()
        elif given["step"] == "candidate":
            if rollout.loses:
                module.warn(rollout.loses)
            rollout.start_candidate()
        else:
            if before != rollout.generation:
                note("switching")
            result["switched_in"] = round(rollout.switch(), 2)
            schema = {"schema": given["schema"]} if given["schema"] else {}
            loses = {"loses": rollout.loses} if rollout.loses else {}
            rollout.generations.set_state(rollout.generation, "good", **schema, **loses)
            if before and before != rollout.generation and given["action"] == "rollback":
                rollout.generations.set_state(before, "left")
            if before != rollout.generation:
                note("switched")
            result["removed"] = rollout.generations.prune(given["keep"])

    try:
        if not rollout.record:
            if module.check_mode:
                module.exit_json(**{**result, "changed": True})
            raise RolloutError(f"Generation {rollout.generation} is not staged on this host: stage it first.")
        if is_settled(rollout.layout, rollout.generation, rollout.units()):
            module.exit_json(**result)
        result["changed"] = True
        if module.check_mode:
            module.exit_json(**result)
        with alone(os.path.join(rollout.layout.home, ".rollout.lock"), given["drain_seconds"] + STOP_MARGIN):
            take_step()
    except Busy:
        module.fail_json(
            msg=f"Another rollout of {given['app']} is at work on this host: run again when it is done.", **result
        )
    except RolloutError as error:
        result["seconds"] = seconds()
        if not rollout.record:
            module.fail_json(msg=str(error), **result)
        try:
            if before != rollout.generation:
                rollout.generations.set_state(rollout.generation, "bad", reason=str(error))
            note("failed", str(error))
        except OSError as second:
            error = RolloutError(f"{error} It could not be written down: {second.strerror}.", error.journal)
        if given["step"] == "candidate":
            reason = f"{error} {STILL_SERVES}" if before else str(error)
            module.exit_json(**{**result, "healthy": False, "reason": reason, "journal": error.journal})
        module.fail_json(msg=str(error), journal=error.journal, **result)
    except (systemd.SystemdError, OSError) as error:
        module.fail_json(msg=f"Rollout of {rollout.generation} stopped at step {given['step']}: {error}", **result)
    result["seconds"] = seconds()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
