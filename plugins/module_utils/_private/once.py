# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that run once for the fleet, as forge_process.py (of the service role) has them, seen from a host."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .settings import LAUNCHER
from .transient import Transient, TransientError

RUNNER = ["python", "-m", "forge_process"]
NOT_RUN = 75  # exit status of a run that was asked for while another host is at it, as in forge_process.py
SECONDS = 30  # that a question to the database may take


def commands_in(unit: str) -> list[list[str]]:
    """Words of what a unit of another process starts, as the filter generation_units has written them."""
    commands = [
        [
            re.sub(r"\\(.)", r"\1", word).replace("%%", "%").replace("$$", "$")
            for word in re.findall(r'"((?:[^"\\]|\\.)*)"', command)
        ]
        for command in re.findall(r'^ExecStart=/usr/bin/env "--" (.+)$', unit, re.MULTILINE)
    ]
    return [words[len(LAUNCHER) :] if words[: len(LAUNCHER)] == LAUNCHER else words for words in commands]


def process_of(unit: str) -> str:
    """Name of the process that a unit is of."""
    return unit.partition("@")[0].partition(".")[2]


def problems(transient: Transient, units: dict[str, str], question: str) -> Iterator[tuple[str, str]]:
    """Ask of each process that runs once for the fleet, and yield its name and what is wrong.

    :param units: of the generation, name to text.
    :param question: ``--check``, whether the hosts can agree; ``--last``, how its last run went.
    """
    for name, text in units.items():
        for words in commands_in(text):
            if words[:3] != RUNNER:
                continue
            try:
                rc, output, _seconds = transient.run([*words[: words.index("--")], question], SECONDS)
            except TransientError as error:
                yield process_of(name), str(error).rstrip(".")
                continue
            said = [line.strip() for line in output.splitlines() if line.strip()]
            if rc:
                yield process_of(name), said[-1] if said else f"it ended with exit code {rc}"
