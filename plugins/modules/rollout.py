#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

DOCUMENTATION = r"""
module: rollout
short_description: Bring a staged generation into service on a host without losing a request
version_added: 1.0.0
description:
  - V(candidate) starts the generation beside the live one and waits until it answers on its private socket.
    It receives no public request yet. When it fails it is stopped, and the live generation has not noticed.
  - V(switch) flips C(current), waits until the new workers accept public requests, then stops the old
    generation, which drains. When nothing has to be done nothing is done.
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
    choices: [candidate, switch]
  health_path:
    description: What is asked of the candidate.
    type: str
    default: /healthz
  health_status:
    description: The status it must answer.
    type: int
    default: 200
  health_deadline:
    description: Seconds until the candidate must have answered.
    type: int
    default: 60
  drain_seconds:
    description: Seconds that the old generation may take to finish what it serves.
    type: int
    default: 20
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
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
workers:
  description: Workers that accept public requests after the switch.
  returned: step=switch
  type: int
"""

import http.client
import json
import os
import pwd
import socket
import time
from typing import NoReturn

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private import systemd
from ..module_utils._private.environment import read_environment
from ..module_utils._private.layout import Layout, sync_directory, write_atomically
from ..module_utils._private.masking import mask, secrets_of
from ..module_utils._private.settled import is_settled, needs_new_socket

PAUSE = 0.05
PROBE_TIMEOUT = 5.0
# systemd and Gunicorn add a little to the drain itself: see graceful_timeout and TimeoutStopSec in the service role.
STOP_MARGIN = 30


class RolloutError(Exception):
    """One sentence for the user: what is wrong, where, what to do."""

    def __init__(self, sentence: str, journal: list[str] | None = None) -> None:
        super().__init__(sentence)
        self.journal = journal or []


class PrivateConnection(http.client.HTTPConnection):
    """HTTP over the private socket of a generation."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path: str, target: str, timeout: float) -> int:
    """Status that a generation answers.

    :raises OSError, http.client.HTTPException: when there is no answer within ``timeout`` seconds.
    """
    connection = PrivateConnection(path, timeout)
    try:
        connection.request("GET", target, headers={"User-Agent": "thecodeforge.fastapi", "Connection": "close"})
        return connection.getresponse().status
    finally:
        connection.close()


class Rollout:
    def __init__(self, params: dict) -> None:
        self.given = params
        self.layout = Layout(params["root"], params["app"])
        self.generation: str = params["generation"]
        self.service = self.layout.service(self.generation)
        self.socket = self.layout.socket(self.generation)
        self.record = self.layout.read_record(self.generation)
        self.began = time.time()

    def units(self) -> dict[str, str]:
        """Unit files that belong to the generation, name to text."""
        directory = os.path.join(self.layout.generation(self.generation), "units")
        found = {}
        for name in sorted(os.listdir(directory)):
            with open(os.path.join(directory, name), encoding="utf-8") as handle:
                found[name] = handle.read()
        return found

    def secrets(self) -> list[str]:
        path = os.path.join(self.layout.generation(self.generation), "environment")
        with open(path, encoding="utf-8") as handle:
            return secrets_of(read_environment(handle.read()))

    # -- candidate ---------------------------------------------------------------------------------

    def start_candidate(self) -> None:
        self.stop_strays()
        if self.running(self.generation) and self.layout.live() == self.generation:
            return
        if systemd.properties(self.service, "ActiveState")["ActiveState"] == "failed":
            systemd.systemctl("reset-failed", self.service)
        systemd.systemctl("start", self.socket)
        systemd.systemctl("start", "--no-block", self.service)
        try:
            self.wait_for_health()
        except RolloutError as error:
            self.give_up(error)

    def give_up(self, error: RolloutError) -> NoReturn:
        """Stop the candidate; what it wrote goes with the error."""
        error.journal = [mask(line, self.secrets()) for line in systemd.journal(self.service, self.began)]
        self.stop(self.generation)
        if not self.layout.live():
            # Nothing can serve yet: an open public socket would only fail over and over.
            systemd.systemctl("stop", f"{self.layout.app}.socket")
        raise error

    def running(self, generation: str) -> bool:
        return generation in systemd.instances(self.layout.app)

    def stop_strays(self) -> None:
        """Stop what a killed rollout left behind: neither live nor asked for."""
        for generation in systemd.instances(self.layout.app):
            if generation not in (self.layout.live(), self.generation):
                self.stop(generation)

    def wait_for_health(self) -> None:
        deadline = time.monotonic() + self.given["health_deadline"]
        path = self.layout.private_socket(self.generation)
        seen = "it did not answer"
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                status = ask(path, self.given["health_path"], min(PROBE_TIMEOUT, deadline - time.monotonic()))
            except TimeoutError:
                seen = "it did not answer"
                continue
            except (OSError, http.client.HTTPException):
                time.sleep(PAUSE)
                continue
            if status == self.given["health_status"]:
                return
            seen = f"GET {self.given['health_path']} answered {status}, not {self.given['health_status']}"
            time.sleep(PAUSE)
        raise RolloutError(
            f"Candidate {self.generation} was not healthy within {self.given['health_deadline']} s: {seen}. "
            "It has been stopped; what served before still serves."
        )

    def check_alive(self) -> None:
        state = systemd.properties(self.service, "ActiveState", "SubState", "NRestarts", "Job", "ExecMainStatus")
        dead = state["ActiveState"] in ("failed", "inactive") and not state.get("Job", "").strip("0")
        if dead or state["SubState"] == "auto-restart" or state.get("NRestarts", "0") != "0":
            raise RolloutError(
                f"Candidate {self.generation} exited while starting (status {state.get('ExecMainStatus', '?')}): "
                "its journal says why. It has been stopped; what served before still serves."
            )

    def stop(self, generation: str) -> None:
        """Stop a generation; it drains. Its socket goes first, or a late probe would start it again."""
        units = [self.layout.socket(generation), self.layout.service(generation)]
        systemd.systemctl("stop", *units, timeout=self.given["drain_seconds"] + STOP_MARGIN)

    # -- switch ------------------------------------------------------------------------------------

    def switch(self) -> int:
        if needs_new_socket(self.layout, self.units()):
            return self.move_socket()
        before = self.layout.live()
        self.install_shared_units()
        self.point_current(self.generation)
        try:
            workers = self.wait_until_public()
        except RolloutError as error:
            self.point_current(before) if before else os.unlink(self.layout.current)
            self.give_up(error)
        self.hold_at_boot()
        for generation in systemd.instances(self.layout.app):
            if generation != self.generation:
                self.stop(generation)
        return workers

    def install_shared_units(self) -> None:
        changed = False
        for name, text in self.units().items():
            path = os.path.join(self.layout.units, name)
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
        temporary = f"{self.layout.current}.{os.getpid()}.tmp"
        os.symlink(os.path.join("generations", generation), temporary)
        os.rename(temporary, self.layout.current)
        sync_directory(self.layout.home)

    def wait_until_public(self) -> int:
        """Wait until every worker accepts public requests. A worker class that does not say so is not waited for."""
        if not self.record.get("drains", True):
            return self.record.get("workers", 0)
        wanted = self.record.get("workers", 1)
        deadline = time.monotonic() + self.given["health_deadline"]
        public = 0
        while time.monotonic() < deadline:
            self.check_alive()
            public = self.public_workers()
            if public >= wanted:
                return public
            time.sleep(PAUSE)
        raise RolloutError(
            f"After the switch {public} of {wanted} workers of {self.generation} accepted public requests within "
            f"{self.given['health_deadline']} s: went back to what served before."
        )

    def public_workers(self) -> int:
        directory = self.layout.worker_states(self.generation)
        count = 0
        for name in os.listdir(directory) if os.path.isdir(directory) else []:
            if not name.isdigit():
                continue
            try:
                with open(os.path.join(directory, name), encoding="ascii") as handle:
                    count += handle.read().strip() == "public"
            except OSError:
                continue
        return count

    def hold_at_boot(self) -> None:
        names = (f"{self.layout.app}.socket", f"{self.layout.app}.service")
        if not all(systemd.is_enabled(name) for name in names):
            systemd.systemctl("enable", "--quiet", *names)
        systemd.systemctl("start", *names)

    def move_socket(self) -> int:
        """Listen elsewhere: the one change that needs a restart, because a bound socket cannot move."""
        name = f"{self.layout.app}.service"
        systemd.systemctl("stop", name, f"{self.layout.app}.socket", timeout=self.given["drain_seconds"] + STOP_MARGIN)
        self.stop(self.generation)
        self.install_shared_units()
        self.point_current(self.generation)
        self.hold_at_boot()
        return self.wait_until_public()

    def note(self, before: str, seconds: float) -> None:
        """Write the ledger and the state of the generation."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "from": before,
            "to": self.generation,
            "result": "switched",
            "seconds": round(seconds, 2),
            "by": os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name,
        }
        with open(self.layout.ledger, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(entry) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        text = json.dumps({**self.record, "state": "good"}, indent=2, sort_keys=True) + "\n"
        write_atomically(self.layout.record(self.generation), text.encode(), 0o644)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "generation": {"type": "str", "required": True},
            "step": {"type": "str", "required": True, "choices": ["candidate", "switch"]},
            "health_path": {"type": "str", "default": "/healthz"},
            "health_status": {"type": "int", "default": 200},
            "health_deadline": {"type": "int", "default": 60},
            "drain_seconds": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    rollout = Rollout(module.params)
    before = rollout.layout.live()
    result = {"from": before, "to": rollout.generation, "changed": False, "seconds": 0.0}
    started = time.monotonic()
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
        if module.params["step"] == "candidate":
            rollout.start_candidate()
        else:
            result["workers"] = rollout.switch()
            rollout.note(before, time.monotonic() - started)
    except RolloutError as error:
        module.fail_json(msg=str(error), journal=error.journal, **result)
    except (systemd.SystemdError, OSError) as error:
        module.fail_json(msg=f"Rollout of {rollout.generation} stopped at step {module.params['step']}: {error}", **result)
    result["seconds"] = round(time.monotonic() - started, 2)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
