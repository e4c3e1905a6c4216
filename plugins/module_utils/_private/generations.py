# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""What a host knows of its generations: their records, and the ledger of what happened.

States of a generation: ``staged`` (its files are there), ``validated`` (its code loads with its settings), ``good``
(it has served), ``bad`` (it failed; the reason is with it), ``left`` (a rollback went away from it).
"""

from __future__ import annotations

import json
import os
import shutil
import time

from . import systemd
from .layout import GENERATION_ID, Layout, write_atomically

LEDGER_ENTRIES = 2000


class Generations:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def all(self) -> dict[str, dict]:
        """Id to record of every generation whose files are complete."""
        try:
            names = sorted(os.listdir(self.layout.generations))
        except OSError:
            return {}
        records = {name: self.layout.read_record(name) for name in names if GENERATION_ID.match(name)}
        return {name: record for name, record in records.items() if record}

    def set_state(self, generation: str, state: str, **more: object) -> None:
        record = {**self.layout.read_record(generation), "state": state, **more}
        if state != "bad":
            record.pop("reason", None)
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        write_atomically(self.layout.record(generation), text.encode(), 0o644)

    def note(self, **entry: object) -> None:
        """Add a line to the ledger; it is kept through pruning."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **entry}, sort_keys=True)
        with open(self.layout.ledger, "a", encoding="utf-8") as handle:
            handle.write(line + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def ledger(self) -> list[dict]:
        """What happened, oldest first; a line that a power cut left half-written is passed over."""
        try:
            with open(self.layout.ledger, encoding="utf-8", errors="replace") as handle:
                lines = handle.read().splitlines()
        except OSError:
            return []
        entries = []
        for line in lines:
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        return [entry for entry in entries if isinstance(entry, dict)]

    def shorten_ledger(self) -> None:
        """Years of releases stay, but not for ever: the oldest go when there are many."""
        entries = self.ledger()
        if len(entries) > 2 * LEDGER_ENTRIES:
            lines = [json.dumps(entry, sort_keys=True) + "\n" for entry in entries[-LEDGER_ENTRIES:]]
            write_atomically(self.layout.ledger, "".join(lines).encode(), 0o644)

    def served(self, *states: str) -> list[str]:
        """Generations in a state that have served, the latest first, by the ledger and never by file times."""
        records, order = self.all(), []
        for entry in reversed(self.ledger()):
            name = entry.get("to", "")
            if entry.get("result") == "switched" and name not in order and records.get(name, {}).get("state") in states:
                order.append(name)
        return order

    def catch_up(self) -> None:
        """Write down a switch whose rollout was killed before it could: ``current`` says so, the ledger does not yet."""
        live, ledger = self.layout.live(), self.ledger()
        if not live or self.live_since():
            return
        intents = [entry for entry in ledger if entry.get("result") == "switching" and entry.get("to") == live]
        intent = intents[-1] if intents else {}
        before = str(intent.get("from", ""))
        if intent.get("action") == "rollback" and self.layout.read_record(before):
            self.set_state(before, "left")
        if self.layout.read_record(live):
            self.set_state(live, "good")
        told = {key: intent.get(key, "") for key in ("action", "by")}
        self.note(**told, **{"from": before, "to": live}, result="switched", reason="interrupted, found by a later run")

    def to_go_back_to(self) -> str:
        """The good generation that served before the live one; empty when there is none."""
        live = self.layout.live()
        return next((name for name in self.served("good") if name != live), "")

    def went_back(self) -> bool:
        """Was the last switch a rollback?"""
        switches = [entry for entry in self.ledger() if entry.get("result") == "switched"]
        return bool(switches) and switches[-1].get("action") == "rollback"

    def live_since(self) -> str:
        live = self.layout.live()
        switches = [entry for entry in self.ledger() if entry.get("result") == "switched"]
        return str(switches[-1].get("time", "")) if switches and switches[-1].get("to") == live else ""

    def owns(self, generation: str, unit: str) -> bool:
        """Is this unit file of that generation of this app?"""
        name, _at, instance = unit.partition("@")
        return name.partition(".")[0] == self.layout.app and instance.rpartition(".")[0] == generation

    def prune(self, keep: int) -> list[str]:
        """Remove what is not needed any more: all but ``keep`` generations that have served, then layers and releases
        without one.

        Never the live one, the one to go back to, or one that runs.

        :returns: ids of the generations that were removed.
        """
        served = self.served("good", "left")[:keep]
        needed = {self.layout.live(), self.to_go_back_to(), *served, *systemd.running(self.layout.app)}
        removed = [name for name in self.all() if name not in needed]
        for name in removed:
            systemd.systemctl("stop", self.layout.socket(name))
            units = [path for path in os.listdir(self.layout.units) if self.owns(name, path)]
            for path in [*(os.path.join(self.layout.units, unit) for unit in units), self.layout.record(name)]:
                if os.path.exists(path):
                    os.unlink(path)
            shutil.rmtree(self.layout.generation(name), ignore_errors=True)
        # systemd forgets units that do not run by itself, and reads its directories again when the next one is staged.
        self.shorten_ledger()
        kept = self.all().values()
        for directory, used in (
            (self.layout.releases, {record.get("release") for record in kept}),
            (self.layout.layers, {record.get("layer") for record in kept}),
        ):
            for name in os.listdir(directory):
                if name not in used and not name.startswith("."):
                    shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
        return removed
