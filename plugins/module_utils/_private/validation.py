# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a staged generation load on this host, as the service would run it?"""

from __future__ import annotations

import inspect
import json
import os
import re

from . import app_check, systemd
from .errors import STILL_SERVES, StageError
from .layout import Layout
from .transient import Transient, TransientError


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
        """Check the host, load the app, and ask its worker class.

        :returns: whether the server stands by and drains.
        :raises StageError: naming what is absent, or what keeps the app from loading.
        """
        self.check_host()
        self.load_app()
        return self.can_drain()

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
        for name, text in self.units.items():
            for schedule in re.findall(r"^OnCalendar=(.+)$", text, re.MULTILINE):
                if not systemd.is_schedule(schedule):
                    process = name.partition("@")[0].partition(".")[2]
                    raise StageError(
                        f"forge_processes: {process}: systemd cannot read the schedule {schedule!r} "
                        f"(see systemd.time(7), OnCalendar). {STILL_SERVES}"
                    )

    def load_app(self) -> None:
        """:raises StageError: with the problems that app_check found, or how it died."""
        script = inspect.getsource(app_check)
        try:
            transient = Transient(self.layout, self.generation)
            rc, output, _seconds = transient.run(["python", "-", self.target], self.load_seconds, script)
        except TransientError as error:
            raise StageError(f"{self.target} could not be loaded: {error} {STILL_SERVES}") from None
        answer = next((line for line in reversed(output.splitlines()) if line.startswith('{"problems"')), "")
        if not answer:
            last = " ".join(output.split()[-60:])
            raise StageError(f"{self.target} died while it was loaded (exit code {rc}): {last} {STILL_SERVES}")
        problems = json.loads(answer)["problems"]
        if problems:
            raise StageError(" ".join([*problems, STILL_SERVES]))

    def can_drain(self) -> bool:
        """Does the server stand by and drain? An app's own worker class is asked in the layer that it will run in.

        :raises StageError: when there is no such class.
        """
        worker_class = self.record.worker_class
        if not worker_class:
            return self.record.server != "gunicorn-asgi"
        try:
            argv = ["python", "-m", "forge_worker", worker_class]
            _rc, output, _seconds = Transient(self.layout, self.generation).run(argv, self.load_seconds)
        except TransientError as error:
            raise StageError(
                f"forge_worker_class: {worker_class} could not be loaded: {error} {STILL_SERVES}"
            ) from None
        answer = (output.strip().splitlines() or ["problem: it prints nothing"])[-1]
        if answer not in ("drains", "cannot drain"):
            why = answer.partition(" ")[2]
            raise StageError(f"forge_worker_class: {worker_class} cannot be loaded: {why}. {STILL_SERVES}")
        return answer == "drains"
