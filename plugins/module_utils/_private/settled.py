# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""What of a generation serves, and whether anything is left to do for it."""

from __future__ import annotations

import os
import re

from . import systemd
from .layout import Layout


def is_settled(layout: Layout, generation: str, units: dict[str, str]) -> bool:
    """Nothing is left to do for this generation on this host. Looks only; compares state, not history."""
    if layout.live() != generation or systemd.instances(layout.app) != [generation]:
        return False
    if systemd.properties(layout.service(generation), "ActiveState")["ActiveState"] != "active":
        return False
    for unit in (f"{layout.app}.service", f"{layout.app}.socket"):
        if systemd.properties(unit, "ActiveState")["ActiveState"] != "active" or not systemd.is_enabled(unit):
            return False
    return shared_units_stand(layout, units) and not needs_new_socket(layout, units)


def shared_units_stand(layout: Layout, units: dict[str, str]) -> bool:
    """Are the units that all generations share installed as this generation has them?"""
    return all(installed(layout, name) == text for name, text in units.items())


def installed(layout: Layout, unit: str) -> str:
    try:
        with open(os.path.join(layout.units, unit), encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def needs_new_socket(layout: Layout, units: dict[str, str]) -> bool:
    """Does the public socket listen elsewhere than this generation wants, or not at all? Only a restart moves a socket."""
    unit = f"{layout.app}.socket"
    if systemd.properties(unit, "ActiveState")["ActiveState"] != "active":
        return bool(layout.live())  # it cannot be opened beside an active service
    shown = systemd.systemctl("show", unit, "--property", "Listen")
    bound = re.findall(r"^Listen=(.+) \(Stream\)$", shown, re.MULTILINE)
    wanted = re.findall(r"^ListenStream=(.+)$", units.get(unit, ""), re.MULTILINE)
    return sorted(bound) != sorted(wanted)


def public_workers(layout: Layout, generation: str) -> int:
    """How many workers of a generation say that they accept public requests."""
    directory = layout.worker_states(generation)
    count = 0
    for name in os.listdir(directory) if generation and os.path.isdir(directory) else []:
        try:
            with open(os.path.join(directory, name), encoding="ascii") as handle:
                count += name.isdigit() and handle.read().strip() == "public"
        except (OSError, UnicodeDecodeError):
            continue
    return count
