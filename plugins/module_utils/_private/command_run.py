# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of an operator in the sandbox, settings and user of what serves: started, read while it runs, and written down."""

from __future__ import annotations

import glob
import os
import shlex
from typing import Any

from . import systemd
from .errors import StageError
from .exclusive import make_private
from .generations import Generations
from .layout import Layout
from .masking import mask
from .records import LedgerEvent
from .serving import serving_generation
from .settings import launched
from .transient import Transient, argv_of, sandbox

LARGEST = 256 << 10  # bytes of output that one look brings
ENDED = ("inactive", "failed")


class CommandRun:
    """
    :param name: tells this run from others, 12 hexadecimal digits.
    :raises StageError: when nothing serves.
    :raises TransientError: when what serves is not there in whole.
    """

    def __init__(self, layout: Layout, name: str) -> None:
        self.layout = layout
        self.live = serving_generation(layout)
        if not self.live:
            raise StageError("Nothing was ever released on this host: there is nothing to run with. Run site.yml.")
        self.transient = Transient(layout, self.live)
        self.unit = f"{layout.app}-command-{name}.service"
        self.log = os.path.join(layout.locks, f"command-{name}.log")

    def start(self, command: str, seconds: int, memory_mb: int) -> None:
        """Start it; it ends by itself after so many seconds, whatever becomes of the controller.

        :param memory_mb: MiB that it may take; that of the service when 0.
        :raises TransientError: when the command cannot be read.
        :raises SystemdError: when it cannot be started.
        """
        argv = argv_of(command)
        make_private(self.layout.locks)
        self.remove_old_logs()
        properties = [
            each
            for each in sandbox(self.transient.unit, self.live)
            if not (memory_mb and each.startswith("MemoryMax="))
        ]
        properties += [f"MemoryMax={memory_mb}M"] if memory_mb else []
        properties += [
            f"RuntimeMaxSec={seconds}",
            f"StandardOutput=append:{self.log}",
            f"StandardError=append:{self.log}",
        ]
        options = [word for each in properties for word in ("--property", each)]
        systemd.run_transient(
            [
                "--unit",
                self.unit,
                "--quiet",
                "--service-type=exec",
                *options,
                "--",
                "/usr/bin/env",
                "--",
                *launched(self.transient.unit, argv),
            ]
        )

    def remove_old_logs(self) -> None:
        """Remove the output of runs whose controller has died, once they have ended: it may have secrets."""
        for path in glob.glob(os.path.join(self.layout.locks, "command-*.log")):
            name = os.path.basename(path)[: -len(".log")]
            if systemd.properties(f"{self.layout.app}-{name}.service", "ActiveState")["ActiveState"] in ENDED:
                os.unlink(path)

    def read(self, offset: int) -> dict[str, Any]:
        """What it has printed since, whole lines while it runs, and how it has ended.

        :returns: ``lines``, secrets masked; ``offset`` for the next look; ``ended``; ``rc``; and ``reason``, why it was ended, else empty.
        """
        state = systemd.properties(self.unit, "ActiveState", "ExecMainStatus", "Result")
        text = b""
        if os.path.exists(self.log):
            with open(self.log, "rb") as handle:
                handle.seek(offset)
                text = handle.read(LARGEST)
        if len(text) < LARGEST and state["ActiveState"] not in ENDED:
            text = text[: text.rfind(b"\n") + 1]
        ended = state["ActiveState"] in ENDED and len(text) < LARGEST
        lines = mask(text.decode("utf-8", "replace"), self.transient.secrets).splitlines()
        reasons = {
            "timeout": "it took too long and was ended",
            "oom-kill": "it took more memory than it may and was ended",
        }
        reason = reasons.get(state.get("Result", ""), "") if ended else ""
        code = int(state.get("ExecMainStatus") or 0) if state["ActiveState"] == "failed" else 0
        return {"lines": lines, "offset": offset + len(text), "ended": ended, "rc": code, "reason": reason}

    def end(self, command: str, by: str, seconds: float, found: dict[str, Any]) -> None:
        """Write it down, and leave nothing behind."""
        problem = found["reason"] or (f"exit code {found['rc']}" if found["rc"] else "")
        shown = mask(command, self.transient.secrets)
        Generations(self.layout).record_event(
            LedgerEvent(
                action=f"run {shlex.join(argv_of(shown))}", by=by, previous=self.live, generation=self.live,
                result="failed" if problem else "ended", reason=problem, seconds=seconds,
            )
        )  # fmt: skip
        if os.path.exists(self.log):
            os.unlink(self.log)
        systemd.forget(self.unit)
