# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the ledger who deploys, and from where; takes a host back at once when another one of its wave has failed."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from ansible import constants as C

from ..plugin_utils._private.transport.controller import Controller
from ..plugin_utils._private.transport.host_call import HostAction, is_switched_on

PAUSE = 0.1  # seconds between two looks at the other hosts
LONGEST = 3600  # seconds that a watch and all before it may take, until a wave that says nothing is not waited for
BACK = ("app", "root", "generation", "by", "action", "drain_seconds")  # what step=take_back takes of the others


def in_this_run(what: str, arguments: dict[str, Any], host: str = "") -> Path:
    """A file by which hosts of this run of Ansible know of each other: its processes share the directory."""
    return Path(C.DEFAULT_LOCAL_TMP, f"wave-{what}-{arguments['app']}{'-' if host else ''}{host}")


class ActionModule(HostAction):
    """See the documentation of the module ``thecodeforge.fastapi.rollout``."""

    MODULE = "rollout"

    def run_module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        arguments = {"by": str(Controller.this()), **arguments}
        if arguments.get("if_failed_on"):
            return self.take_back_if_failed(arguments, task_vars or {})
        if not arguments.get("together") or self._task.check_mode:
            return super().run_module(arguments, task_vars)
        return self.run_with_the_wave(arguments, task_vars or {})

    def take_back_if_failed(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Wait until the hosts of the wave are done; take this one, of an earlier wave, back at once when one of them fails."""
        wave = arguments.pop("if_failed_on")
        ended = time.monotonic() + LONGEST + arguments.get("health_deadline", 0) + arguments.get("drain_seconds", 0)
        if self._task.check_mode or not is_switched_on(self, task_vars):
            return {"changed": False}
        while time.monotonic() < ended:
            done = all(in_this_run("done", arguments, host).exists() for host in wave)
            if in_this_run("failed", arguments).exists():  # a host says so before it is done
                return {**super().run_module(arguments, task_vars), "taken_back": True}
            if done:
                break
            time.sleep(PAUSE)
        return {"changed": False}

    def run_with_the_wave(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the step, unless another host of the wave fails: then do not begin it, or have it taken back.

        Ansible waits for all hosts of a task, so each looks by itself whether another one has failed.
        """
        failed = in_this_run("failed", arguments)
        if failed.exists():
            return {"changed": False, "withheld": True}
        with ThreadPoolExecutor(1) as threads:
            step = threads.submit(super().run_module, arguments, task_vars)
            try:
                if is_switched_on(self, task_vars):  # Ansible's own way is for one call at a time
                    self.take_back_when(failed, step, arguments, task_vars)
                result = step.result()
            except BaseException:
                failed.touch()
                raise
        if result.get("failed"):
            failed.touch()
        in_this_run("done", arguments, str(task_vars.get("inventory_hostname", ""))).touch()
        return result

    def take_back_when(
        self, failed: Path, step: Future[dict[str, Any]], arguments: dict[str, Any], task_vars: dict[str, Any]
    ) -> None:
        """Wait for the step; ask the host to go back when another host has failed."""
        while not wait([step], PAUSE).done:
            if failed.exists():
                back = {name: arguments[name] for name in BACK if name in arguments}
                super().run_module({**back, "step": "take_back"}, task_vars)
                return
