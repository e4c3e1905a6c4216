#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_lock
short_description: One deploy at a time per app
version_added: 1.0.0
description:
  - A lock on one host that stands for the fleet. It says who holds it, why, since when and until when. It expires soon
    unless it is refreshed, and the controller refreshes it in the background for as long as its run lasts. So a long
    migration does not lose it, and a controller that died does not hold it.
  - Only its holder releases it. A lock of a controller process that is dead on the same machine is taken over.
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
  state:
    description:
      - V(held) takes it, V(kept) refreshes it when it is still the holder's own, V(released) gives it back,
        V(broken) removes it whoever holds it.
    type: str
    default: held
    choices: [held, kept, released, broken]
  reason:
    description: Why it is taken, for whoever has to wait.
    type: str
    default: ""
  seconds:
    description: Seconds after which it expires unless refreshed.
    type: int
    default: 120
  wait:
    description: Seconds to wait for another holder.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    details: Takes no lock in check mode.
  diff_mode:
    support: none
  idempotent:
    support: full
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
holder:
  description: Who holds the lock now, with C(user), C(host), C(reason), C(since) and C(expires); empty when nobody does.
  returned: always
  type: dict
"""

import fcntl
import json
import os
import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.layout import Layout, write_atomically
from ..module_utils._private.records import LockHolder


def stamp(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def shown(holder: LockHolder | None) -> dict:
    return holder.to_dict() if holder else {}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "state": {"type": "str", "default": "held", "choices": ["held", "kept", "released", "broken"]},
            "reason": {"type": "str", "default": ""},
            "seconds": {"type": "int", "default": 120},
            "wait": {"type": "int", "default": 60},
            "_owner": {"type": "dict", "default": {}},
            "_over": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given, owner = module.params, module.params["_owner"]
    layout = Layout(given["root"], given["app"])
    if module.check_mode:
        module.exit_json(changed=False, holder=shown(layout.lock_holder()), refused=False)
    os.umask(0o022)
    os.makedirs(layout.home, mode=0o755, exist_ok=True)
    with open(os.path.join(layout.home, ".lock"), "w", encoding="ascii") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        holder = shown(layout.lock_holder())
        mine = holder.get("token") == owner.get("token")
        if given["state"] == "kept" and not mine:
            module.exit_json(changed=False, refused=True, holder=holder)
        if given["state"] in ("held", "kept"):
            if holder and not mine and holder.get("token") != given["_over"]:
                module.exit_json(changed=False, refused=True, holder=holder)
            now = time.time()
            since, reason = (holder["since"], holder["reason"]) if mine else (stamp(now), given["reason"])
            new = {**owner, "reason": reason, "since": since, "expires": now + given["seconds"]}
            write_atomically(layout.lock, (json.dumps(new) + "\n").encode(), 0o644)
            module.exit_json(changed=not mine, refused=False, holder=new)
        remove = bool(holder) and (mine or given["state"] == "broken")
        if remove:
            os.unlink(layout.lock)
        module.exit_json(changed=remove, refused=False, holder={} if remove else holder)


if __name__ == "__main__":
    main()
