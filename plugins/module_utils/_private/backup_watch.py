# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at the backups between two runs of Ansible, and tells somebody. For a timer on the host."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from typing import Any

from .backup import STATE, Limits, problems, read_document, state_of, unit_instance, write_document

AGAIN = 24 * 3600  # seconds after which somebody is told once more of what goes on


def kinds(found: list[str]) -> list[str]:
    """What tells problems apart: not how many hours they last."""
    return [re.sub(r"\d+", "", each) for each in found]


def is_to_be_told(found: list[str], told: dict[str, Any], now: float) -> bool:
    """Whether somebody is to be told, of what is wrong or that nothing is any more.

    :param told: what was told last: ``problems`` and ``at``; and ``problem``, where it could not be.
    """
    before = told.get("problems", [])
    if told.get("problem") or kinds(found) != kinds(before):
        return bool(found or before)
    return bool(found) and now - told.get("at", 0.0) >= AGAIN


def watch(settings: dict[str, Any], now: float, tell: Callable[[str, str, dict[str, str], str], str]) -> list[str]:
    """Look, and tell whom the settings name.

    :param tell: as in forge_notice.py.
    :returns: what is wrong, and why nobody could be told of it.
    """
    cluster, port = settings["cluster"], settings["port"]
    path = os.path.join(STATE, f"watch-{unit_instance(cluster)}.json")
    told = read_document(path)
    state = {**state_of(cluster, port, now), "told": ""}
    found = problems(state, Limits(**settings["limits"]))
    host, problem = socket.gethostname(), ""
    if settings["on_failure"] and is_to_be_told(found, told, now):
        text = " ".join(found) or "Nothing is wrong any more."
        details = {"host": host, "cluster": cluster}
        problem = tell(
            settings["on_failure"], f"Backups of {cluster} on {host}: {text}", details, "forge_backup_on_failure"
        )
        told = {"problems": found, "at": now, "problem": problem}
        write_document(path, told)
    if settings["heartbeat"] and not found:
        problem = problem or tell(
            settings["heartbeat"], f"Backups of {cluster} on {host} are well.", {}, "forge_backup_heartbeat"
        )
        write_document(path, {**told, "problem": problem})
    return [*found, *([problem] if problem else [])]
