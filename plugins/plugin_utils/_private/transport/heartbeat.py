# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repeats something in the background, for as long as a run of Ansible lasts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

TICK = 0.5


def start(beat: Callable[[], bool], interval: float, until: Callable[[], bool]) -> None:
    """Fork a process that repeats ``beat``, and return at once.

    A task ends before the run does; what outlasts it can only be a process of its own.

    :param beat: whether to go on. One that raises did not get through, which is nothing to stop for: the next may.
    :param interval: seconds between two beats; the first comes after one.
    :param until: whether to end; asked twice a second.
    """
    if os.fork():
        return
    try:
        close_files()
        next_beat = time.monotonic() + interval
        while not until():
            if time.monotonic() >= next_beat:
                if not attempt(beat):
                    break
                next_beat = time.monotonic() + interval
            time.sleep(TICK)
    finally:
        os._exit(0)


def close_files() -> None:
    """Let nobody wait for this process by a pipe of the task."""
    os.closerange(0, 1024)
    for mode in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY):
        os.open(os.devnull, mode)


def attempt(beat: Callable[[], bool]) -> bool:
    try:
        return beat()
    except Exception:
        return True
