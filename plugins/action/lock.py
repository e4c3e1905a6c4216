# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Controller's side of the lock: who asks, and whether the process that holds it is still there."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils._private.controller import Controller, is_dead
from ..plugin_utils._private.host_call import call

PAUSE = 2.0


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.lock``."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = {**self._task.args, "_owner": Controller.this().as_owner()}
        deadline = time.monotonic() + int(arguments.get("wait", 60))
        while True:
            answer = call(self, "lock", arguments, task_vars)
            if answer.get("failed") or not answer.pop("refused", False):
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
