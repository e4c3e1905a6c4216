# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host knows of its generations: their records, and the ledger of what happened.

States of a generation: ``staged`` (its files are there), ``validated`` (its code loads with its settings), ``good``
(it has served), ``bad`` (it failed; the reason is with it), ``left`` (a rollback went away from it).
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from contextlib import suppress
from typing import Any

from . import systemd
from .layout import GENERATION_ID, LARGEST, REHEARSED, Layout, read_file, set_aside, twin_of, write_atomically
from .records import GenerationRecord, LedgerEvent

LEDGER_ENTRIES = 2000
OLDER_LOCKS = (".lock", ".stage.lock", ".rollout.lock", ".migrate.lock")


class Generations:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def all(self) -> dict[str, GenerationRecord]:
        """Id to record of every generation whose files are complete."""
        try:
            names = sorted(os.listdir(self.layout.generations))
        except OSError:
            return {}
        records = {name: self.layout.read_record(name) for name in names if GENERATION_ID.match(name)}
        return {name: record for name, record in records.items() if record.state}

    def write_record(self, generation: str, record: GenerationRecord) -> None:
        text = json.dumps(record.to_dict(), indent=2, sort_keys=True) + "\n"
        write_atomically(self.layout.record(generation), text.encode(), 0o644)

    def update_record(self, generation: str, **changes: Any) -> None:
        self.write_record(generation, dataclasses.replace(self.layout.read_record(generation), **changes))

    def set_state(self, generation: str, state: str, reason: str = "", **changes: Any) -> None:
        """Record a state and the reason for it, with other keys of the record."""
        self.update_record(generation, state=state, reason=reason, **changes)

    def record_event(self, event: LedgerEvent) -> None:
        """Add a line to the ledger, with the time; it is kept through pruning.

        The order of the lines is that of the events, whatever the clock said. A last line that a power cut left
        half-written is ended first.
        """
        event = dataclasses.replace(event, time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        line = json.dumps(event.to_dict(), sort_keys=True) + "\n"
        torn = bool(self._ledger_text()) and not self._ledger_text().endswith("\n")
        with open(self.layout.ledger, "a", encoding="utf-8") as handle:
            handle.write("\n" + line if torn else line)
            handle.flush()
            os.fsync(handle.fileno())

    def ledger(self) -> list[LedgerEvent]:
        """What happened, oldest first; a line that cannot be read is passed over."""
        documents = []
        for line in self._ledger_text().splitlines():
            with suppress(ValueError, RecursionError):
                documents.append(json.loads(line))
        return [LedgerEvent.from_dict(document) for document in documents if isinstance(document, dict)]

    def _ledger_text(self) -> str:
        try:
            return read_file(self.layout.ledger).decode("utf-8", errors="replace")
        except OSError:
            return ""

    def repair_ledger(self) -> str:
        """Make way for the ledger where something else is in its place; a sentence when that is so."""
        aside = set_aside(self.layout.ledger)
        return f"{self.layout.ledger} was no file (it is now {aside}): a new ledger begins." if aside else ""

    def shorten_ledger(self) -> None:
        """Years of releases stay, but not forever: the oldest go when there are many."""
        lines = self._ledger_text().splitlines()
        if len(lines) > 2 * LEDGER_ENTRIES or sum(map(len, lines)) > LARGEST // 2:
            remaining = "".join(line + "\n" for line in lines[-LEDGER_ENTRIES:])
            write_atomically(self.layout.ledger, remaining.encode(), 0o644)

    def _last_switch(self) -> LedgerEvent:
        switches = [event for event in self.ledger() if event.result == "switched"]
        return switches[-1] if switches else LedgerEvent()

    def served(self, *states: str) -> list[str]:
        """Generations in a state that have served, the latest first, by the ledger and never by file times."""
        records, order = self.all(), list[str]()
        for event in reversed(self.ledger()):
            name = event.generation
            if event.result == "switched" and name in records and records[name].state in states and name not in order:
                order.append(name)
        return order

    def reconcile(self) -> None:
        """Record a switch whose rollout was killed before it could: ``current`` says so, the ledger does not yet."""
        live = self.layout.live()
        if not live or self.live_since():
            return
        intents = [event for event in self.ledger() if event.result == "switching" and event.generation == live]
        intent = intents[-1] if intents else LedgerEvent(generation=live)
        if intent.action == "rollback" and self.layout.read_record(intent.previous).state:
            self.set_state(intent.previous, "left")
        if self.layout.read_record(live).state:
            self.set_state(live, "good")
        reason = "interrupted, found by a later run"
        self.record_event(dataclasses.replace(intent, result="switched", reason=reason, seconds=0.0))

    def previous_good(self) -> str:
        """The good generation that served before the live one; empty when there is none."""
        same = self.layout.live(), twin_of(self.layout.live())
        return next((name for name in self.served("good") if name not in same), "")

    def was_rolled_back(self) -> bool:
        """Was the last switch a rollback? A refresh changes nothing of that."""
        actions = [event.action for event in self.ledger() if event.result == "switched" and event.action != "refresh"]
        return actions[-1:] == ["rollback"]

    def live_since(self) -> str:
        """When the live generation was switched to; empty when the ledger does not know it as live."""
        live, switch = self.layout.live(), self._last_switch()
        return switch.time if switch.generation == live else ""

    def owns(self, generation: str, unit: str) -> bool:
        """Is this unit file of that generation of this app?"""
        name, _at, instance = unit.partition("@")
        return name.partition(".")[0] == self.layout.app and instance.rpartition(".")[0] == generation

    def prune(self, keep: int) -> list[str]:
        """Remove what is not needed any more: all but ``keep`` generations that have served, then layers and releases
        without one.

        Never the live one, the one to go back to, or one that runs. What the live one took over from as its twin goes: it is the same.

        :returns: ids of the generations that were removed.
        """
        served = [name for name in self.served("good", "left") if name != twin_of(self.layout.live())][:keep]
        needed = {self.layout.live(), self.previous_good(), *served, *systemd.running(self.layout.app)}
        removed = [name for name in self.all() if name not in needed]
        killed = [
            name for name in os.listdir(self.layout.generations) if name.endswith(REHEARSED) and name not in needed
        ]
        for name in [*removed, *killed]:
            self._remove(name)
        # systemd forgets units that do not run by itself, and reads its directories again when the next one is staged.
        self.shorten_ledger()
        remaining = self.all().values()
        for directory, in_use in (
            (self.layout.releases, {record.release for record in remaining}),
            (self.layout.layers, {record.layer for record in remaining}),
        ):
            for name in os.listdir(directory):
                if name not in in_use and not name.startswith("."):
                    shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
        self._remove_pythons()
        self._remove_leftovers()
        return removed

    def _remove_pythons(self) -> None:
        """Remove standalone Pythons that no layer runs with any more."""
        pythons, layers = self.layout.pythons, self.layout.layers
        links = [os.path.join(layers, layer, "bin", "python") for layer in os.listdir(layers)]
        in_use = {os.readlink(link) for link in links if os.path.islink(link)}
        for name in os.listdir(pythons) if os.path.isdir(pythons) else ():
            home = os.path.join(pythons, name)
            if not name.startswith(".") and not any(path.startswith(home + os.sep) for path in in_use):
                shutil.rmtree(home, ignore_errors=True)

    def _remove(self, generation: str) -> None:
        """Remove a generation; its record before its files, so that one that is half removed is none."""
        systemd.systemctl("stop", self.layout.socket(generation))
        units = [unit for unit in os.listdir(self.layout.units) if self.owns(generation, unit)]
        for path in [*(os.path.join(self.layout.units, unit) for unit in units), self.layout.record(generation)]:
            if os.path.exists(path):
                os.unlink(path)
        shutil.rmtree(self.layout.generation(generation), ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Remove what earlier versions of the collection had: locks that anybody could open, and the uv that installed
        layers, with its directory once empty."""
        for name in OLDER_LOCKS:
            with suppress(OSError):
                os.unlink(os.path.join(self.layout.home, name))
        tools = os.path.join(self.layout.home, "tools")
        with suppress(OSError):
            for name in os.listdir(tools):
                if name.startswith("uv-"):
                    os.unlink(os.path.join(tools, name))
            os.rmdir(tools)
