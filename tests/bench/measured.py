# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command until the app answers as expected; write wall and CPU seconds of all its processes as JSON.

usage: measured.py RESULT EXPECTED URL[,URL...] COMMAND...

The time ends when every URL answers JSON that has what EXPECTED (JSON) has. Background processes that the command has
left, such as SSH's shared connections, are ours by then (a subreaper's): they are ended and counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 60


def answer(url: str) -> dict[str, object]:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return json.load(reply)
    except (OSError, ValueError):
        return {}


def main() -> None:
    result, expected, urls = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3].split(",")
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    done = subprocess.run(sys.argv[4:], stdin=subprocess.DEVNULL)
    ended = time.monotonic()
    waiting = urls if done.returncode == 0 else []
    while waiting and time.monotonic() - ended < PATIENCE:
        waiting = [url for url in waiting if not expected.items() <= answer(url).items()]
        time.sleep(0.02 if waiting else 0)
    wall = time.monotonic() - began

    for _ in range(100):
        for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        time.sleep(0.02)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    problem = (
        f"exit status {done.returncode}" if done.returncode else f"no {expected} from {waiting}" if waiting else ""
    )
    result.write_text(json.dumps({"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "problem": problem}))


if __name__ == "__main__":
    main()
