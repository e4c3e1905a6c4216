# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Controller's side of the lock: who asks, whether the process that holds it is still there, and the heartbeat."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils._private.transport.controller import Controller, is_dead
from ..plugin_utils._private.transport.host_call import call

PAUSE = 2.0
HEARTBEATS = 4  # in the time after which the lock expires: it survives some that do not get through


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.deploy_lock``."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = {**self._task.args, "_owner": Controller.this().as_owner()}
        deadline = time.monotonic() + int(arguments.get("wait", 60))
        while True:
            answer = call(self, "deploy_lock", arguments, task_vars)
            if answer.get("failed") or not answer.pop("refused", False):
                if answer.get("changed") and arguments.get("state", "held") == "held":
                    self._keep({**arguments, "state": "kept"}, answer["holder"], task_vars)
                return {**result, **answer}
            holder = answer["holder"]
            if is_dead(holder):
                arguments["_over"] = holder["token"]
                continue
            if time.monotonic() >= deadline:
                raise AnsibleActionFail(
                    f"{holder['user']} on {holder['host']} holds the lock since {holder['since']} ({holder['reason']}): "
                    f"wait until it is done. If it is not running any more, the lock expires by itself in "
                    f"{max(0, holder['expires'] - time.time()):.0f} s, or break it: "
                    "ansible-playbook thecodeforge.fastapi.unlock."
                )
            self._display.display(f"Waiting for {holder['user']} on {holder['host']}, who holds the lock.")
            time.sleep(PAUSE)

    def _keep(self, arguments: dict[str, Any], owner: dict[str, Any], task_vars: dict[str, Any] | None) -> None:
        """Refresh the lock from a process in the background, until it is given back or this run of Ansible has ended.

        This task ends at once; what outlasts it can only be a process of its own. It ends with the run's main process,
        however that ends, and a lock that nobody refreshes expires.
        """
        if os.fork():
            return
        try:
            os.closerange(0, 1024)  # nobody is to wait for this process by a pipe of the task
            for mode in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY):
                os.open(os.devnull, mode)
            self._display.verbosity = 0
            pause = int(arguments.get("seconds", 120)) / HEARTBEATS
            beat = time.monotonic() + pause
            while not is_dead(owner):
                if time.monotonic() >= beat:
                    answer = self._beat(arguments, task_vars)
                    if answer.get("refused"):
                        break
                    beat = time.monotonic() + pause
                time.sleep(0.5)
        finally:
            os._exit(0)

    def _beat(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """One refresh. One that does not get through is nothing to stop for: the next may."""
        try:
            return call(self, "deploy_lock", arguments, task_vars)
        except Exception:
            return {}
