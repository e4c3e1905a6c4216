# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a set as an Ansible inventory."""

from __future__ import annotations

import json

from .machine import KEY, LabError, say
from .state import SSH_OPTIONS, USER, check_set, complete


def inventory(set_name: str) -> dict[str, dict[str, object]]:
    groups: dict[str, list[str]] = {}
    hostvars: dict[str, dict[str, str]] = {}
    for node in complete(check_set(set_name)):
        hostvars[node.name] = {
            # one that is off stays in the fleet, unreachable as a real one
            "ansible_host": node.address or f"{node.name}.off.invalid",
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(KEY),
            "ansible_ssh_common_args": " ".join(SSH_OPTIONS),
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        for group in node.groups:
            groups.setdefault(group, []).append(node.name)
    return {**{name: {"hosts": hosts} for name, hosts in groups.items()}, "_meta": {"hostvars": hostvars}}


def show(set_name: str) -> None:
    """Print it; no lab is an inventory without hosts, not an error."""
    try:
        found = inventory(set_name)
        hint = f"No lab nodes in set {set_name}: `tests/lab/lab up --set {set_name} app=debian13:forge_app` makes one."
    except LabError as error:
        found, hint = {"_meta": {"hostvars": {}}}, f"No lab nodes: {error}"
    if not found["_meta"]["hostvars"]:
        say(hint)
    print(json.dumps(found, indent=2))
