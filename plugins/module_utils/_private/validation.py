# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a staged generation load on this host, as the service would run it?"""

from __future__ import annotations

import inspect
import json
import os
import re
from typing import Any

from . import app_check, systemd
from .cause import explain, hint
from .errors import STILL_SERVES, StageError
from .layout import Layout
from .once import RUNNER, commands_in, problems, process_of
from .serving import address_problem
from .transient import Transient, TransientError

MAX_USER_NAMESPACES = "/proc/sys/user/max_user_namespaces"


class Validation:
    def __init__(
        self, layout: Layout, generation: str, release: str, target: str, units: dict[str, str], load_seconds: int
    ) -> None:
        """
        :param target: package.module:app.
        :param units: unit files of the generation, name to text.
        :param load_seconds: that loading may take.
        """
        self.layout = layout
        self.generation = generation
        self.release = release
        self.target = target
        self.units = units
        self.load_seconds = load_seconds
        self.record = layout.read_record(generation)

    def run(self) -> bool:
        """Check the host, load the app, and make its server ready.

        :returns: whether the server stands by and drains.
        :raises StageError: naming what is absent, or what keeps the app or its server from starting.
        """
        self.check_host()
        drains = self.load_app()
        self.check_processes()
        return drains

    def check_host(self) -> None:
        """:raises StageError: when something that the units name is not on the host."""
        unit = self.units.get(self.layout.service(self.generation), "")
        for directory in re.findall(r"^WorkingDirectory=(.+)$", unit, re.MULTILINE):
            if not os.path.isdir(directory):
                inside = os.path.relpath(directory, self.layout.release(self.release))
                raise StageError(f"forge_directory: the release has no directory {inside}. {STILL_SERVES}")
        for path in " ".join(re.findall(r"^ReadWritePaths=(.+)$", unit, re.MULTILINE)).split():
            if not os.path.exists(path):
                raise StageError(f"forge_writable_paths: {path} is not on this host: make it first. {STILL_SERVES}")
        if re.search(r"^PrivateUsers=(?i:yes|true|on|1)$", unit, re.MULTILINE) and not user_namespaces():
            raise StageError(
                "This host lets nobody make a user namespace (user.max_user_namespaces): allow it, or set forge_sandbox: "
                f"{{PrivateUsers: false}}. {STILL_SERVES}"
            )
        for name, text in self.units.items():
            for schedule in re.findall(r"^OnCalendar=(.+)$", text, re.MULTILINE):
                if not systemd.is_schedule(schedule):
                    raise StageError(
                        f"forge_processes: {process_of(name)}: systemd cannot read the schedule {schedule!r} "
                        f"(see systemd.time(7), OnCalendar). {STILL_SERVES}"
                    )

        problem = address_problem(self.layout, self.units)
        if problem:
            raise StageError(f"{problem} {STILL_SERVES}")

    def load_app(self) -> bool:
        """Load the app and what serves it, in one process.

        :returns: whether the server stands by and drains.
        :raises StageError: with the problems that app_check found, or how it died.
        """
        script = inspect.getsource(app_check)
        try:
            transient = Transient(self.layout, self.generation)
            argv = ["python", "-", self.target, json.dumps(self.service())]
            rc, output, _seconds = transient.run(argv, self.load_seconds, script)
        except TransientError as error:
            raise StageError(f"{self.target} could not be loaded: {error} {STILL_SERVES}") from None
        answer = next((line for line in reversed(output.splitlines()) if line.startswith('{"problems"')), "")
        if not answer:
            sentence, _shown = explain(f"{self.target} died while it was loaded (exit code {rc})", output.splitlines())
            raise StageError(f"{sentence} {STILL_SERVES}")
        found = json.loads(answer)
        if found["problems"]:
            sentence = " ".join(found["problems"])
            raise StageError(" ".join(filter(None, (sentence, hint(sentence), STILL_SERVES))))
        return bool(found["drains"])

    def check_processes(self) -> None:
        """:raises StageError: when the hosts cannot agree on who runs a process that is to run once for the fleet."""
        for process, problem in problems(Transient(self.layout, self.generation), self.units, "--check"):
            raise StageError(f"forge_processes: {process}: once: {problem}. {STILL_SERVES}")

    def service(self) -> dict[str, Any]:
        """What app_check has to know of the service."""
        server = self.record.server or "gunicorn"
        name = "uvicorn.json" if server == "uvicorn" else "gunicorn.conf.py"
        return {
            "server": server,
            "configuration": os.path.join(self.layout.generation(self.generation), name),
            "worker_class": self.record.worker_class,
            "programs": self.programs(),
        }

    def programs(self) -> dict[str, str]:
        """Programs of the other processes, name to what is looked for on the PATH."""
        found = {}
        for name, text in self.units.items():
            for words in commands_in(text):
                command = words[words.index("--") + 1 :] if words[:3] == RUNNER else words
                found[process_of(name)] = next((word for word in command if "=" not in word), "")
        return found


def user_namespaces() -> int:
    """How many user namespaces this host allows; none where its kernel has none."""
    try:
        with open(MAX_USER_NAMESPACES, encoding="ascii") as handle:
            return int(handle.read())
    except OSError:
        return 0
