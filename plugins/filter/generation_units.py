# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shlex
from typing import Any

from ..module_utils._private.once import NOT_RUN, RUNNER
from ..module_utils._private.ownership import mark
from ..module_utils._private.settings import are_sealed, launched
from ..module_utils._private.transient import sandbox

DOCUMENTATION = r"""
name: generation_units
short_description: Units of one generation, its web process and its other processes
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - Other processes run as the web process does, with its user, sandbox, environment and working directory.
  - One target a generation stands for all of them, so that booting and switching start one unit.
options:
  _input:
    description: Unit of the web process.
    type: str
    required: true
  app:
    description: Name of the app.
    type: str
    required: true
  processes:
    description: Name to settings, as C(forge_processes).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show the units of a generation
  ansible.builtin.debug:
    msg: "{{ '[Service]\nUser=shop\n' | thecodeforge.fastapi.generation_units(app='shop', processes=processes) }}"
  vars:
    processes: {worker: {command: celery worker}, nightly: {command: report, schedule: daily}}
"""

RETURN = r"""
_value:
  description: Name to text. The names are templates, to be installed for each generation.
  type: dict
"""

STOP_SECONDS = 60
LOOK_SECONDS = 300  # as in roles/service/files/forge_process.py


def generation_units(web: str, app: str, processes: dict[str, dict[str, Any]] | None = None) -> dict[str, str]:
    """See above. A dot sets a process apart: names of apps have none."""
    units = {f"{app}@.service": web}
    started = [f"{app}@%i.service"]
    for name, process in (processes or {}).items():
        schedule, count = process.get("schedule"), int(process.get("count", 1))
        for number in range(1, count + 1):
            title = f"{app}.{name}" if count == 1 else f"{app}.{name}.{number}"
            units[f"{title}@.service"] = service(web, app, name, process)
            if schedule:
                units[f"{title}@.timer"] = timer(app, name, str(schedule), bool(process.get("once")))
            started.append(f"{title}@%i.{'timer' if schedule else 'service'}")
    return {**units, f"{app}@.target": target(app, started)}


def head(app: str) -> str:
    return f"# {mark(app)}: changes by hand are replaced.\n"


def target(app: str, wanted: list[str]) -> str:
    names = " ".join(wanted)
    return (
        f"{head(app)}[Unit]\nDescription={app}: generation %i with its processes\nPartOf={app}.service\n"
        "# By default a target comes after what it is part of: that is what starts it, and waits for it.\n"
        f"DefaultDependencies=no\nWants={names}\nAfter={names}\n"
    )


def service(web: str, app: str, name: str, process: dict[str, Any]) -> str:
    schedule, command = str(process.get("schedule", "")), shlex.split(str(process["command"]))
    if not process.get("once"):
        command = launched(web, command)
    else:
        head_of_once = ["scheduled", app, name, schedule] if schedule else ["kept", app, name]
        command = [*RUNNER, *head_of_once, "--", *command]
    # systemd takes the signal of a stop for a failure where the type is oneshot, and for none elsewhere.
    kind = (
        f"Type=oneshot\nSuccessExitStatus=SIGTERM{f' {NOT_RUN}' if process.get('once') else ''}"
        if schedule
        else "Type=exec\nRestart=always\nRestartSec=1"
    )
    if process.get("on_failure"):
        telling = line([*RUNNER, "tell", app, name, str(process["on_failure"])])
        kind += f"\nExecStopPost={apart(web, telling) if are_sealed(web) else telling}"
    shaped = "\n".join(sandbox(web, "%i"))
    return (
        f"{head(app)}[Unit]\nDescription={app}: {name} of generation %i\nPartOf={app}@%i.target\n"
        "After=network-online.target\nStartLimitIntervalSec=0\n\n"
        f"[Service]\n{kind}\nExecStart={line(command)}\nKillMode=mixed\n"
        f"TimeoutStopSec={int(process.get('stop_seconds', STOP_SECONDS))}\n{shaped}\n"
    )


def timer(app: str, name: str, schedule: str, once: bool = False) -> str:
    """:param once: whether it also looks, now and then, for a run that no host of the fleet has made."""
    looks = f"# For a run that was missed.\nOnActiveSec=1\nOnUnitInactiveSec={LOOK_SECONDS}\n" if once else ""
    return (
        f"{head(app)}[Unit]\nDescription={app}: when {name} of generation %i runs\nPartOf={app}@%i.target\n\n"
        f"[Timer]\nOnCalendar={schedule}\n{looks}AccuracySec=1s\n"
    )


def line(words: list[str]) -> str:
    """A command, its program found on the PATH of the service."""
    return " ".join(["/usr/bin/env", *map(quoted, ["--", *words])])


def apart(web: str, command: str) -> str:
    """A command line after the end of a service, when that is given no credentials any more: in a unit of its own, with its sandbox."""
    words = ["--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"]
    words += [f"--setenv={name}" for name in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS")]
    words += [f"--property={directive}" for directive in sandbox(web, "%i")]
    # What stands in a unit has its % as a unit has it.
    return " ".join(["+/usr/bin/systemd-run", *(quoted(word).replace("%%", "%") for word in words), "--", command])


def quoted(word: str) -> str:
    """A word as ExecStart= reads it back: systemd.service(5), "Command lines"."""
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(character, escaped)
    return f'"{word}"'


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"generation_units": generation_units}
