#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_lock
short_description: One deploy at a time per app
version_added: 1.0.0
description:
  - A lock on a host. It says who holds it, why, since when and until when. It expires soon unless it is refreshed, and
    the controller refreshes it in the background for as long as its run lasts. So a long migration does not lose it, and
    a controller that died does not hold it.
  - A deploy takes it on each host that takes part, or on none. So two deploys exclude each other when they have a host in
    common, and no host has to be there for the others.
  - Only its holder releases it. A lock of a controller process that is dead on the same machine is taken over, and so is
    a lock file that cannot be read.
author: The Code Forge (@thecodeforge)
options:
  state:
    description:
      - V(held) takes it, V(refreshed) refreshes it when it is still the holder's own, V(released) gives it back,
        V(free) waits until nobody else holds it, V(broken) removes it whoever holds it.
    type: str
    default: held
    choices: [held, refreshed, released, free, broken]
  reason:
    description: Why it is taken, for whoever has to wait.
    type: str
    default: ""
  seconds:
    description: Seconds after which it expires unless refreshed.
    type: int
    default: 120
  unlock:
    description: Whether the playbook unlock breaks this lock, which is said to whoever has waited in vain.
    type: bool
    default: true
  project:
    description:
      - What tells the project from others, keys of C(project.json), for V(held) and V(broken). The lock of another project
        is not broken.
    type: dict
    default: {}
  take_over:
    description: With V(project) in it, the lock of another project is broken, too.
    type: list
    elements: str
    default: []
  _owner:
    description: For the action plugin, who asks.
    type: dict
    default: {}
  _dead:
    description: For the action plugin, token of a holder that has ended.
    type: str
    default: ""
  wait:
    description: Seconds to wait for another holder.
    type: int
    default: 60
  only_try:
    description: With V(held), do not wait for another holder, but return C(refused).
    type: bool
    default: false
extends_documentation_fragment:
  - thecodeforge.fastapi._app
  - thecodeforge.fastapi._attributes
attributes:
  check_mode:
    details: Takes no lock in check mode.
"""

EXAMPLES = r"""
- name: Take the lock
  thecodeforge.fastapi.deploy_lock:
    app: forge
    root: /srv
    reason: deploy
  run_once: true
"""

RETURN = r"""
refused:
  description: Whether somebody else holds it.
  returned: always
  type: bool
holder:
  description: Who holds the lock now, with C(user), C(host), C(reason) and C(since); empty when nobody does.
  returned: always
  type: dict
seconds_left:
  description: Seconds after which it expires when its holder does not refresh it, as the host counts them.
  returned: always
  type: float
"""

import dataclasses
import json
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.errors import tells_what_the_host_refuses
from ..module_utils._private.exclusive import exclusive_lock
from ..module_utils._private.layout import Layout, read_json, set_aside, write_atomically
from ..module_utils._private.lock_file import boot_id, read_lock, seconds_left, since_boot
from ..module_utils._private.ownership import is_same_project
from ..module_utils._private.records import LockHolder, ProjectRecord

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "state": {"type": "str", "default": "held", "choices": ["held", "refreshed", "released", "free", "broken"]},
    "reason": {"type": "str", "default": ""},
    "seconds": {"type": "int", "default": 120},
    "wait": {"type": "int", "default": 60},  # for the action
    "only_try": {"type": "bool", "default": False},  # for the action
    "unlock": {"type": "bool", "default": True},  # for the action
    "project": {"type": "dict", "default": {}},
    "take_over": {"type": "list", "elements": "str", "default": []},
    "_owner": {"type": "dict", "default": {}},  # who asks, in the keys of LockHolder
    "_dead": {"type": "str", "default": ""},  # token of a holder that the controller knows to be dead
}


class LockOfAnother(Exception):
    """Raised when the lock is another project's."""


class Lock:
    """The lock of one app, for as long as the guard is held: decisions and what follows from them are one step."""

    def __init__(self, layout: Layout, params: dict[str, Any]) -> None:
        self.layout, self.path, self.params = layout, layout.lock, params
        self.owner = LockHolder.from_dict(params["_owner"])
        self.holder, self.problem = read_lock(self.path)
        self.is_own = self.holder is not None and self.holder.token == self.owner.token

    def change(self) -> dict[str, Any]:
        """Bring the lock into the state that is asked for, and return the result of the module."""
        if self.params["state"] == "broken":
            self.check_project()
        if self.params["state"] in ("released", "broken"):
            return self.remove()
        other = self.holder is not None and not self.is_own and self.holder.token != self.params["_dead"]
        if other or (self.params["state"] == "refreshed" and not self.is_own):
            return self.result(changed=False, refused=True)
        if self.params["state"] == "free":
            return self.result(changed=False)
        return self.write()

    def check_project(self) -> None:
        """:raises LockOfAnother: when another project holds the lock; of an earlier version, whose the installation is."""
        if not self.holder or self.is_own or "project" in self.params["take_over"]:
            return
        theirs = ProjectRecord.from_dict(self.holder.project or read_json(self.layout.project))
        if not is_same_project(theirs, ProjectRecord.from_dict(self.params["project"])):
            raise LockOfAnother(
                f"The lock is held by {self.holder.user} on {self.holder.host} since {self.holder.since} for another project, "
                f"{theirs.owner()}: name your own app, or say with forge_take_over: [project] that it is the same. It was not "
                "broken."
            )

    def write(self) -> dict[str, Any]:
        now, seconds = time.time(), float(self.params["seconds"])
        since, reason = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)), self.params["reason"]
        if self.holder and self.is_own:
            since, reason = self.holder.since, self.holder.reason
        self.holder = dataclasses.replace(
            self.owner, since=since, reason=reason, expires=now + seconds, seconds=seconds, boot=boot_id(),
            refreshed=since_boot(), project=self.params["project"],
        )  # fmt: skip
        write_atomically(self.path, (json.dumps(self.holder.to_dict()) + "\n").encode(), 0o644)
        return self.result(changed=not self.is_own)

    def remove(self) -> dict[str, Any]:
        is_broken = self.params["state"] == "broken" and bool(self.holder or self.problem)
        removed = self.is_own or is_broken
        if removed:
            if not set_aside(self.path):
                os.unlink(self.path)
            self.holder = None
        return self.result(changed=removed)

    def result(self, changed: bool, refused: bool = False) -> dict[str, Any]:
        result: dict[str, Any] = {"changed": changed, "refused": refused, "holder": {}, "seconds_left": 0.0}
        if self.holder:
            result.update(holder=self.holder.to_dict(), seconds_left=round(seconds_left(self.holder), 1))
        return result


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    layout = Layout(module.params["root"], module.params["app"])
    if module.check_mode or (module.params["state"] != "held" and not os.path.lexists(layout.lock)):
        # Also of an app that was removed meanwhile: nothing is made only to be looked into.
        lock = Lock(layout, module.params)
        result = lock.result(changed=False, refused=module.params["state"] == "refreshed")
    else:
        os.umask(0o022)
        os.makedirs(layout.home, mode=0o755, exist_ok=True)
        with exclusive_lock(layout.kernel_lock("lock"), None):
            lock = Lock(layout, module.params)
            try:
                result = lock.change()
            except LockOfAnother as error:
                module.fail_json(msg=str(error))
    if lock.problem:
        module.warn(lock.problem)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
