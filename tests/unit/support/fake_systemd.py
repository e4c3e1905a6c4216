# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd as the modules see it, in memory. Tests of the real one are in tests/system."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import by_hand, serving, systemd
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ownership import mark


class FakeSystemd:
    """Units and their states. Workers of a generation are public from when ``current`` names it until they are told to
    stand by, as the real ones are."""

    def __init__(self, layout: Layout, workers: int = 2) -> None:
        self.layout = layout
        self.workers = workers
        self.active: set[str] = set()
        self.enabled: set[str] = set()
        self.calls: list[tuple[str, ...]] = []
        self.dies_at_start: set[str] = set()
        self.never_public: set[str] = set()
        self.public: set[str] = set()
        self.ends_after: dict[str, int] = {}
        self.ended: list[str] = []
        self.on_start: Callable[[list[str]], object] = lambda _units: None
        self.listens: list[str] = []
        self.wrote: list[str] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("systemctl", "properties", "are_enabled", "instances", "running", "states", "journal"):
            monkeypatch.setattr(systemd, name, getattr(self, name))
        monkeypatch.setattr(by_hand, "show", lambda unit, names: self.systemctl("show", unit, "--property", names))
        monkeypatch.setattr(serving, "is_alive", lambda _pid: True)
        monkeypatch.setattr(serving, "children", lambda _pid: self.children())

    def systemctl(self, verb: str, *arguments: str, timeout: float = 120) -> str:
        self.calls.append((verb, *arguments))
        units = [argument for argument in arguments if not argument.startswith("-")]
        alone = "--job-mode=ignore-dependencies" in arguments
        if verb == "start":
            if f"{self.layout.app}.service" in set(units) - self.active:  # starts what current names
                live = self.layout.live()
                units += [self.layout.target(live), self.layout.socket(live)]
            for target in [unit for unit in units if unit.endswith(".target")]:
                units += self.wanted_by(target)
            if any(unit.startswith(f"{self.layout.app}@") and unit.endswith(".service") for unit in units):
                units.append(f"{self.layout.app}.socket")  # Sockets=
            self.active |= set(units) - self.dies_at_start
            for unit in units:
                if unit.endswith(".socket") and "@" in unit:
                    self.open_private_socket(unit.partition("@")[2][: -len(".socket")])
            self.on_start(units)
        elif verb == "stop":
            self.active = {unit for unit in self.active if not any(fnmatch(unit, pattern) for pattern in units)}
            shared = {f"{self.layout.app}.service", f"{self.layout.app}.socket"}
            if shared & set(units) and not alone:  # PartOf
                self.active = {unit for unit in self.active if "@" not in unit}
        elif verb == "enable":
            self.enabled |= set(units)
        elif verb == "show":
            state = "active" if units[0] in self.active else "inactive"
            return f"ActiveState={state}\n" + "".join(f"Listen={address} (Stream)\n" for address in self.listens)
        self.tick()
        return ""

    def tick(self) -> None:
        """Workers look at ``current`` and say what they do; what ends by itself comes nearer to it."""
        for unit in self.active & self.ends_after.keys():
            self.ends_after[unit] -= 1
            if self.ends_after[unit] <= 0:
                self.active.discard(unit)
                self.ended.append(unit)
        instances = self.instances(self.layout.app)
        self.public = {each for each in {*self.public, self.layout.live()} if each in instances} - self.never_public
        for generation in instances:
            states = Path(self.layout.worker_states(generation))
            states.mkdir(parents=True, exist_ok=True)
            public = generation in self.public and not os.path.exists(self.layout.standby_request(generation))
            for number in range(self.workers):
                (states / str(100 + number)).write_text("public\n" if public else "standby\n")

    def properties(self, unit: str, *_names: str) -> dict[str, str]:
        self.tick()
        state = "active" if unit in self.active else "failed" if unit in self.dies_at_start else "inactive"
        sub = "auto-restart" if unit in self.dies_at_start else "running"
        known = {"NRestarts": "0", "Job": "0", "ExecMainCode": "1", "ExecMainStatus": "3", "MainPID": "99"}
        return {"ActiveState": state, "SubState": sub, **known}

    def open_private_socket(self, generation: str) -> None:
        os.makedirs(self.layout.run, exist_ok=True)
        Path(self.layout.private_socket(generation)).touch()

    def children(self) -> list[str]:
        """Processes of any generation, none of which ever ends."""
        return [str(100 + number) for number in range(self.workers)]

    def wanted_by(self, target: str) -> list[str]:
        path = Path(self.layout.units, target)
        generation = target.partition("@")[2].rpartition(".")[0]
        text = path.read_text() if path.exists() else f"Wants={self.layout.app}@%i.service"
        return [unit.replace("%i", generation) for unit in text.rpartition("Wants=")[2].split()]

    def states(self, *units: str) -> dict[str, str]:
        return {unit: self.properties(unit)["ActiveState"] for unit in units}

    def are_enabled(self, *units: str) -> bool:
        return set(units) <= self.enabled

    def instances(self, app: str) -> list[str]:
        return sorted(
            unit[len(app) + 1 : -len(".service")]
            for unit in self.active
            if unit.startswith(f"{app}@") and unit.endswith(".service")
        )

    def running(self, app: str) -> list[str]:
        names = [unit for unit in self.active if "@" in unit and unit.endswith((".service", ".timer"))]
        return sorted({name.partition("@")[2].rpartition(".")[0] for name in names})

    def journal(self, _unit: str, _since: float) -> list[str]:
        return self.wrote


def stage(layout: Layout, generation: str, **record: object) -> None:
    """Put a staged generation where the modules look."""
    home = Path(layout.generation(generation))
    (home / "units").mkdir(parents=True)
    (home / "environment").write_text('FORGE_SECRET_KEY="hunter22-hunter22"\n')
    (home / "units" / layout.service(generation)).write_text(f"# {generation}\n")
    (home / "units" / f"{layout.app}.socket").write_text(f"# {mark(layout.app)}\n[Socket]\nListenStream=0.0.0.0:8000\n")
    release = generation.partition("-")[0]
    known = {
        "generation": generation,
        "release": release,
        "layer": f"{release}-py3.11",
        "workers": 2,
        "state": "validated",
    }
    Path(layout.record(generation)).write_text(json.dumps({**known, **record}))
    os.makedirs(layout.release(release), exist_ok=True)
    os.makedirs(layout.layer(f"{release}-py3.11"), exist_ok=True)
    os.makedirs(layout.units, exist_ok=True)
    os.makedirs(os.path.dirname(layout.run), exist_ok=True)


def point(layout: Layout, generation: str) -> None:
    if os.path.lexists(layout.current):
        os.unlink(layout.current)
    os.symlink(f"generations/{generation}", layout.current)
