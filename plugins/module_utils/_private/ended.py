# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release ended before it had ended by itself: answers, connections and processes of the other generations."""

from __future__ import annotations

import json
import os
from contextlib import suppress

from . import systemd
from .processes import Processes

ENDED = "ended"  # as in roles/service/files/forge_server.py, and so are the kinds
KINDS = ("stream", "request", "websocket", "background task")
MOST = 1 << 20  # bytes that are read


class Ended:
    """Made before the others are stopped, and read afterwards: systemd removes the files, but not what is open."""

    def __init__(self, processes: Processes) -> None:
        """
        :param processes: of the generation that is to serve.
        """
        self.files: list[int] = []
        self.stop_seconds: dict[str, int] = {}
        for other in processes.others():
            path = os.path.join(other.layout.worker_states(other.generation), ENDED)
            with suppress(OSError):  # of an earlier version, or one that has no workers any more
                # The directory is the app's: what lies there may be anything.
                self.files.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
                os.lseek(self.files[-1], 0, os.SEEK_END)  # of this release, not of workers that were replaced
            names = [name for name in other.layout.processes(other.generation) if name.endswith(".service")]
            states = systemd.states(*names)
            self.stop_seconds |= {name: other.stop_seconds(name) for name in names if states.get(name) == "active"}

    def read(self) -> list[str]:
        """Such as "2 streams" and "process mail, killed after 5 s"."""
        counts = dict.fromkeys(KINDS, 0)
        for file in self.files:
            with suppress(OSError), os.fdopen(file, "rb") as handle:
                for line in handle.read(MOST).splitlines():
                    for kind, count in counts_of(line).items():
                        counts[kind] += count
        killed = [unit for unit in self.stop_seconds if systemd.properties(unit, "Result").get("Result") == "timeout"]
        return [
            *(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items() if count),
            *(
                f"process {unit.partition('@')[0].partition('.')[2]}, killed after {self.stop_seconds[unit]} s"
                for unit in killed
            ),
        ]


def counts_of(line: bytes) -> dict[str, int]:
    """What a worker has written; nothing of what it cannot have."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    known = said.items() if isinstance(said, dict) else ()
    return {kind: count for kind, count in known if kind in KINDS and isinstance(count, int) and 0 < count < 10**9}
