# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a generation serves, and whether a host has converged on it."""

from __future__ import annotations

import os
import re

from . import systemd
from .generations import Generations
from .layout import Layout

PUBLIC = "public"  # what a worker that accepts public requests says: as in roles/service/files/forge_server.py


def is_converged(layout: Layout, generation: str, units: dict[str, str]) -> bool:
    """Is nothing left to do for this generation on this host? Reads only; compares state, not history.

    :param units: unit files of the generation, name to text.
    """
    if layout.live() != generation or systemd.running(layout.app) != [generation]:
        return False
    if not Generations(layout).live_since():  # a rollout was killed before it could record the switch
        return False
    if systemd.properties(layout.service(generation), "ActiveState")["ActiveState"] != "active":
        return False
    if idle_processes(layout, generation):
        return False
    for unit in (f"{layout.app}.service", f"{layout.app}.socket"):
        if systemd.properties(unit, "ActiveState")["ActiveState"] != "active" or not systemd.is_enabled(unit):
            return False
    shared_installed = all(installed_text(layout, name) == text for name, text in units.items())
    return shared_installed and not needs_new_socket(layout, units)


def idle_processes(layout: Layout, generation: str) -> list[str]:
    """Units of a generation's other processes that should run and do not; what a timer starts is its own matter."""
    names = layout.processes(generation)
    wanted = [name for name in names if name.endswith(".timer") or timer_of(name) not in names]
    states = systemd.states(*wanted)
    return [name for name in wanted if states.get(name) != "active"]


def timer_of(service: str) -> str:
    return service.replace(".service", ".timer")


def installed_text(layout: Layout, unit: str) -> str:
    """Text of a unit file as systemd reads it; empty when there is none."""
    try:
        with open(os.path.join(layout.units, unit), encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def needs_new_socket(layout: Layout, units: dict[str, str]) -> bool:
    """Does the public socket listen elsewhere than this generation wants, or not at all? Only a restart moves it."""
    unit = f"{layout.app}.socket"
    if systemd.properties(unit, "ActiveState")["ActiveState"] != "active":
        return bool(layout.live())  # it cannot be opened beside an active service
    shown = systemd.systemctl("show", unit, "--property", "Listen")
    present = re.findall(r"^Listen=(.+) \(Stream\)$", shown, re.MULTILINE)
    wanted = re.findall(r"^ListenStream=(.+)$", units.get(unit, ""), re.MULTILINE)
    return sorted(present) != sorted(wanted)


def public_workers(layout: Layout, generation: str) -> int:
    """How many workers of a generation accept public requests: those that say so, or all of a server that cannot say."""
    if not layout.read_record(generation).drains:
        return len(children(systemd.properties(layout.service(generation), "MainPID").get("MainPID", "0")))
    directory = layout.worker_states(generation)
    count = 0
    for name in os.listdir(directory) if generation and os.path.isdir(directory) else []:
        try:
            with open(os.path.join(directory, name), encoding="ascii") as handle:
                count += name.isdigit() and handle.read().strip() == PUBLIC
        except (OSError, UnicodeDecodeError):
            continue
    return count


def children(pid: str) -> list[str]:
    """Ids of the processes that a process has started."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as handle:
            return handle.read().split()
    except OSError:
        return []
