# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which one generation serves and another is staged, without systemd."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import addresses, probe
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import candidate as candidate_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import layout as layout_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.candidate import Candidate
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.probe import HealthCheck
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.processes import Processes
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.switch import Switch
from fake_systemd import FakeSystemd, point, stage

OLD, NEW, ORPHAN = "aaaaaaaaaaaa-00000000", "bbbbbbbbbbbb-00000000", "cccccccccccc-00000000"
PUBLIC = ("forge.service", "forge.socket")
DRAIN_SECONDS = 20


class Host:
    """OLD serves and NEW is staged."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = Layout(str(tmp_path / "srv"), "forge", str(tmp_path / "units"), str(tmp_path / "run"))
        monkeypatch.setattr(layout_module.os, "fchown", lambda *_arguments: None)
        self.systemd = FakeSystemd(self.layout)
        self.systemd.install(monkeypatch)
        self.systemd.listens = ["0.0.0.0:8000"]
        quick(monkeypatch, self.systemd)
        self.answers: dict[str, list[int]] = {}
        self.smoke = ""
        self.address_problem = ""
        monkeypatch.setattr(addresses, "problem", lambda *_arguments: self.address_problem)
        monkeypatch.setattr(probe, "ask", self.ask)
        monkeypatch.setattr(candidate_module, "smoke_problem", lambda *_arguments: self.smoke)
        for generation in (OLD, NEW):
            stage(self.layout, generation)
        self.serve(OLD)

    def serve(self, generation: str) -> None:
        point(self.layout, generation)
        self.systemd.active = {*PUBLIC, self.layout.service(generation), self.layout.socket(generation)}
        self.systemd.enabled = set(PUBLIC)
        self.systemd.open_private_socket(generation)

    def ask(self, socket: str, _path: str, _timeout: float) -> tuple[int, str]:
        """Answers of a generation in turn, the last one for ever; 200 where the test has none."""
        generation = os.path.basename(socket).removesuffix(".sock")
        if generation not in self.systemd.instances("forge"):
            raise ConnectionRefusedError
        waiting = self.answers.get(generation, [200])
        status = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if status == 0:
            raise TimeoutError
        return status, ""

    def processes(self, generation: str = NEW) -> Processes:
        return Processes(self.layout, generation)

    def candidate(
        self, generation: str = NEW, smoke: list[dict] | None = None, smoke_command: str = "", **health: int
    ) -> Candidate:
        check = HealthCheck(**{"deadline": 30, **health})  # type: ignore[arg-type]
        return Candidate(self.processes(generation), check, DRAIN_SECONDS, smoke, smoke_command)

    def switch(self, generation: str = NEW, watch_seconds: int = 10) -> Switch:
        return Switch(self.processes(generation), HealthCheck(deadline=30), DRAIN_SECONDS, watch_seconds)

    def switch_to(self, generation: str = NEW, watch_seconds: int = 10) -> float:
        switch, previous = self.switch(generation, watch_seconds), self.layout.live()
        return switch_wholly(switch, None if previous == generation else previous)

    def nothing_was_released(self) -> None:
        os.unlink(self.layout.current)
        self.systemd.active, self.systemd.enabled, self.systemd.listens = set(), set(), []

    @property
    def running(self) -> list[str]:
        return self.systemd.instances("forge")

    def stopped(self) -> list[str]:
        """Units in the order in which they were stopped."""
        units = [unit for verb, *units in self.systemd.calls if verb == "stop" for unit in units]
        return [unit for unit in units if "*" not in unit and "[" not in unit]


def quick(monkeypatch: pytest.MonkeyPatch, fake: FakeSystemd) -> None:
    """A second passes with every pause."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += max(1.0, seconds)
        fake.tick()

    def monotonic() -> float:
        clock[0] += 0.001
        return clock[0]

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", monotonic)


def with_processes(host: Host, generation: str, *names: str) -> None:
    """Give a generation other processes: units without their instance, such as ``forge.worker@.service``."""
    directory = Path(host.layout.generation(generation)) / "units"
    for name in names:
        text = "[Service]\nTimeoutStopSec=5\n" if name.endswith("service") else "[Timer]\n"
        (directory / name.replace("@", f"@{generation}")).write_text(text)
    started = [name for name in names if name.replace(".service", ".timer") not in names or name.endswith(".timer")]
    wants = " ".join([f"forge@{generation}.service", *(name.replace("@", f"@{generation}") for name in started)])
    (directory / host.layout.target(generation)).write_text(f"[Unit]\nWants={wants}\n")


def switch_wholly(switch: Switch, previous: str | None = OLD) -> float:
    """All that a switch is, with a step after the other."""
    switched_in = switch.run()
    switch.watch_after_flip(previous)
    switch.finish(previous)
    return switched_in
