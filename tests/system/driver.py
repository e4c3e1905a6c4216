# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one module of the collection on a node as Ansible would, and kills it at a point. Tests put it there.

Standard input: {"module": name, "arguments": {...}, "die": "unit.Class.function:before" | ":after" | ":SECONDS" | ""}
The unit is a file of module_utils/_private. With seconds, it dies that long after the function was entered. Prints what the
module answers.
"""

import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from ansible.module_utils.testing import patch_module_args


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(function: Callable[..., Any], moment: str) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if moment == "before":
            die()
        elif moment != "after":
            timer = threading.Timer(float(moment), die)
            timer.daemon = True
            timer.start()
        answer = function(*arguments, **named)
        if moment == "after":
            die()
        return answer

    return wrapped


PLUGINS = "ansible_collections.thecodeforge.fastapi.plugins"
asked = json.load(sys.stdin)
module = importlib.import_module(f"{PLUGINS}.modules.{asked['module']}")
if asked.get("die"):
    where, moment = asked["die"].split(":")
    unit_name, owner_name, function_name = where.split(".")
    owner = getattr(importlib.import_module(f"{PLUGINS}.module_utils._private.{unit_name}"), owner_name)
    setattr(owner, function_name, deadly(getattr(owner, function_name), moment))
with patch_module_args(asked["arguments"]):
    module.main()
