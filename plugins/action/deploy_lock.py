# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's side of the lock: who asks, whether the process that holds it is still alive, and the heartbeat."""

from __future__ import annotations

import random
import time
from typing import Any

from ansible.errors import AnsibleActionFail

from ..plugin_utils._private.transport import heartbeat
from ..plugin_utils._private.transport.controller import Controller, is_dead
from ..plugin_utils._private.transport.host_call import HostAction, call, validated

PAUSE = 2.0  # seconds between two tries
SPREAD = (
    2.0  # seconds, at most, that pass before who has waited tries again: two who wait for the same do not meet again
)
HEARTBEATS = 4  # in the time after which the lock expires: it survives some that do not get through


class ActionModule(HostAction):
    """See the documentation of the module ``thecodeforge.fastapi.deploy_lock``."""

    MODULE = "deploy_lock"

    def run_module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        arguments = {**arguments, "_owner": Controller.this().as_owner()}
        params = validated(self.MODULE, arguments).validated_parameters
        deadline = time.monotonic() + params["wait"]
        while True:
            result = super().run_module(arguments, task_vars)
            if result.get("failed") or not result["refused"]:
                if result.get("changed") and params["state"] == "held":
                    self._refresh(arguments, params["seconds"], task_vars)
                if params["state"] == "free":
                    time.sleep(random.uniform(0, SPREAD))  # noqa: S311
                return result
            holder = result["holder"]
            if is_dead(holder):
                arguments["_dead"] = holder["token"]
                continue
            if params["only_try"]:
                return result
            if time.monotonic() >= deadline:
                raise AnsibleActionFail(message_of(holder, result["seconds_left"], params["unlock"]))
            # Not on the standard output, where a callback may be writing JSON.
            self._display.display(f"Waiting for {holder['user']} on {holder['host']}, who holds the lock.", stderr=True)
            time.sleep(PAUSE)

    def _refresh(self, arguments: dict[str, Any], seconds: int, task_vars: dict[str, Any] | None) -> None:
        """Refresh the lock in the background, until it is released or this run of Ansible has ended, however it ends."""

        def beat() -> bool:
            self._display.verbosity = 0
            return not call(self, self.MODULE, {**arguments, "state": "refreshed"}, task_vars).get("refused")

        heartbeat.start(beat, interval=seconds / HEARTBEATS, until=lambda: is_dead(arguments["_owner"]))


def message_of(holder: dict[str, Any], seconds_left: float, unlock: bool) -> str:
    """Return the sentence for who has waited long enough.

    :param seconds_left: as the host counts them: the clocks of two machines may differ.
    :param unlock: whether the playbook of that name breaks the lock.
    """
    breaking = ", or break it: ansible-playbook thecodeforge.fastapi.unlock" if unlock else ""
    return (
        f"{holder['user']} on {holder['host']} holds the lock since {holder['since']} ({holder['reason']}): "
        f"wait until it is done. If it is not running any more, the lock expires by itself in "
        f"{max(0, seconds_left):.0f} s{breaking}."
    )
