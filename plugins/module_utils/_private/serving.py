# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a generation serves, and whether a host has converged on it."""

from __future__ import annotations

import os
import re

from . import addresses, systemd
from .generations import Generations
from .layout import Layout
from .records import GenerationRecord

# What a worker says that has started, and that accepts public requests: as in roles/service/files/forge_server.py
STANDBY, PUBLIC = "standby", "public"


def is_converged(layout: Layout, generation: str, units: dict[str, str]) -> bool:
    """Is nothing left to do for this generation on this host? Reads only; compares state, not history.

    :param units: unit files of the generation, name to text.
    """
    if layout.live() != generation or systemd.running(layout.app) != [generation]:
        return False
    if not Generations(layout).live_since():  # a rollout was killed before it could record the switch
        return False
    if idle_processes(layout, generation) or lost_socket(layout, generation):
        return False
    public = public_units(layout.app)
    states = systemd.states(layout.service(generation), *public)
    if set(states.values()) != {"active"} or not systemd.are_enabled(*public):
        return False
    shared_installed = all(installed_text(layout, name) == text for name, text in units.items())
    return shared_installed and not needs_new_socket(layout, units)


def public_units(app: str) -> tuple[str, str]:
    """The unit that starts what is live, and the one of the public socket."""
    return f"{app}.service", f"{app}.socket"


def idle_processes(layout: Layout, generation: str) -> list[str]:
    """Units of a generation's other processes that should run and do not; what a timer starts is its own matter."""
    names = layout.processes(generation)
    wanted = [name for name in names if name.endswith(".timer") or timer_of(name) not in names]
    states = systemd.states(*wanted)
    return [name for name in wanted if states.get(name) != "active"]


def failed_processes(layout: Layout, generation: str) -> list[str]:
    """Services that a timer has started and that have failed, the last time they ran."""
    names = layout.processes(generation)
    states = systemd.states(*(name for name in names if timer_of(name) in names and timer_of(name) != name))
    return [name for name, state in states.items() if state == "failed"]


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
    present, wanted = open_addresses(layout), wanted_addresses(layout, units)
    if not present:
        return bool(layout.live())  # it cannot be opened beside an active service
    return bool(wanted) and sorted(present) != sorted(wanted)


def open_addresses(layout: Layout) -> list[str]:
    """Addresses at which the public socket is open, as its unit has them."""
    shown = systemd.systemctl("show", f"{layout.app}.socket", "--property", "ActiveState,Listen")
    if "ActiveState=active\n" not in shown:
        return []
    return re.findall(r"^Listen=(.+) \(Stream\)$", shown, re.MULTILINE)


def damage(layout: Layout, serving: str) -> str:
    """What of a generation that serves is lost or was changed by hand, and does not show in its answers; empty when nothing.

    A deploy mends all of it, but for the files below /run, which only a restart makes anew.
    """
    if layout.live() != serving:
        named = f"names {layout.live()}" if layout.live() else "is no link to it"
        return f"{serving} serves, and {layout.current} {named}"
    if not layout.read_record(serving).state:
        return f"{layout.record(serving)} cannot be read"
    if not installed_text(layout, layout.service(serving)):
        return f"{os.path.join(layout.units, layout.service(serving))} is missing or masked"
    public = public_units(layout.app)
    for unit, state in systemd.states(*public).items():
        if state != "active":
            return f"{unit} is not active"
    for unit in public:
        if not systemd.are_enabled(unit):
            return f"{unit} is not enabled, so that nothing would serve after a boot"
    return lost_socket(layout, serving)


def lost_socket(layout: Layout, serving: str) -> str:
    """What to do when the private socket of a generation that serves was removed; empty when it is there."""
    path = layout.private_socket(serving)
    if os.path.exists(path):
        return ""
    return f"{path} was removed: systemctl restart {layout.app} makes it anew, and so does the next change that is deployed"


def wanted_addresses(layout: Layout, units: dict[str, str]) -> list[str]:
    """Addresses at which units have the public socket."""
    return re.findall(r"^ListenStream=(.+)$", units.get(f"{layout.app}.socket", ""), re.MULTILINE)


def address_problem(layout: Layout, units: dict[str, str]) -> str:
    """A sentence on an address that the public socket is to have and cannot be opened; empty when all can."""
    present, wanted = open_addresses(layout), wanted_addresses(layout, units)
    if sorted(present) == sorted(wanted):
        return ""
    return addresses.problem(layout.app, wanted, present)


def serving_generation(layout: Layout) -> str:
    """Id of the generation that serves, as systemd and its workers say it; empty when there is none.

    ``current`` may be lost, or name another one than serves. Where nothing says that it is public, ``current`` has it.
    """
    named = layout.live()
    if named and workers_in(layout, named, PUBLIC):
        return named
    public = {each: workers_in(layout, each, PUBLIC) for each in systemd.instances(layout.app)}
    silent = [each for each in public if not os.path.isdir(layout.worker_states(each))]  # its states were removed
    found = [each for each, count in public.items() if count] or silent
    if named in found or not found:
        return named
    return max(found, key=lambda each: public[each])


def public_workers(layout: Layout, generation: str) -> int:
    """How many workers of a generation accept public requests: those that say so, or all of a server that cannot say."""
    return workers_in(layout, generation, PUBLIC)


def workers_in(layout: Layout, generation: str, *states: str) -> int:
    """How many workers of a generation say one of these states; all that run of a server that cannot say."""
    if not layout.read_record(generation).drains:
        return len(children(systemd.properties(layout.service(generation), "MainPID").get("MainPID", "0")))
    directory = layout.worker_states(generation)
    count = 0
    for name in os.listdir(directory) if generation and os.path.isdir(directory) else []:
        try:
            with open(os.path.join(directory, name), encoding="ascii") as handle:
                count += name.isdigit() and handle.read().strip() in states and is_alive(name)
        except (OSError, UnicodeDecodeError):
            continue
    return count


def is_alive(pid: str) -> bool:
    """Does this process run? A worker that was killed leaves its last word behind."""
    return os.path.exists(f"/proc/{pid}")


def children(pid: str) -> list[str]:
    """Ids of the processes that a process has started."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as handle:
            return handle.read().split()
    except OSError:
        return []


class WorkerDeaths:
    """Workers of a generation that have ended since the first look. Gunicorn starts others in their place, for ever."""

    def __init__(self, service: str, record: GenerationRecord) -> None:
        self.service = service
        self.has_workers = record.server != "uvicorn"  # which is one process
        self.main = ""
        self.present: set[str] = set()
        self.dead = 0

    def count(self) -> int:
        """Look again; how many have ended so far."""
        if self.has_workers and not self.main:
            state = systemd.properties(self.service, "ActiveState", "MainPID")
            # Before that Gunicorn reads its configuration, which may run commands.
            self.main = state.get("MainPID", "") if state["ActiveState"] == "active" else ""
        if self.main:
            present = set(children(self.main))
            self.dead += len(self.present - present)
            self.present = present
        return self.dead
