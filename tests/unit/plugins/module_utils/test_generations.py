# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of generations, and what happened to them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import generations as generations_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.generations import Generations
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.records import GenerationRecord, LedgerEvent
from fake_host import NEW, OLD, Host
from fake_systemd import point, stage


def generation(number: int) -> str:
    return f"{number:012x}-00000000"


@pytest.fixture
def kept(host: Host) -> Generations:
    """Eight generations that served one after the other; the last is live."""
    generations = Generations(host.layout)
    for number in range(8):
        stage(host.layout, generation(number), state="good")
        generations.record_event(LedgerEvent(action="deploy", result="switched", generation=generation(number)))
    for name in (OLD, NEW):
        generations.set_state(name, "bad", reason="it exited")
    host.serve(generation(7))
    return generations


def test_prune_keeps_the_latest_that_served_and_removes_what_nothing_uses(host: Host, kept: Generations) -> None:
    (Path(host.layout.units) / host.layout.service(generation(0))).write_text("")
    removed = kept.prune(3)
    assert removed == sorted([OLD, NEW, *(generation(number) for number in range(5))])
    left = [generation(number) for number in (5, 6, 7)]
    assert sorted(kept.all()) == left
    assert sorted(os.listdir(host.layout.releases)) == [name[:12] for name in left]
    assert sorted(os.listdir(host.layout.layers)) == [f"{name[:12]}-py3.11" for name in left]
    assert host.layout.service(generation(0)) not in os.listdir(host.layout.units)
    assert len(kept.ledger()) == 8


@pytest.mark.parametrize("keep", [0, 1])
def test_prune_never_takes_what_serves_or_what_a_rollback_goes_to(host: Host, kept: Generations, keep: int) -> None:
    host.serve(generation(2))
    kept.record_event(LedgerEvent(action="rollback", result="switched", generation=generation(2)))
    host.systemd.active.add(host.layout.service(generation(4)))
    kept.prune(keep)
    assert sorted(kept.all()) == [generation(number) for number in (2, 4, 7)]


def test_release_and_layer_that_are_still_shared_stay(host: Host, kept: Generations) -> None:
    shared = {"release": "000000000000", "layer": "000000000000-py3.11"}
    kept.set_state(generation(7), "good", **shared)
    kept.prune(1)
    assert generation(0) not in kept.all()
    assert "000000000000" in os.listdir(host.layout.releases)
    assert "000000000000-py3.11" in os.listdir(host.layout.layers)


def test_rollback_goes_to_the_good_one_that_served_before(host: Host, kept: Generations) -> None:
    assert kept.previous_good() == generation(6)
    kept.set_state(generation(6), "left")
    assert kept.previous_good() == generation(5)
    kept.set_state(generation(5), "bad", reason="it exited")
    assert kept.previous_good() == generation(4)


def test_order_is_that_of_the_ledger_and_not_of_file_times(host: Host, kept: Generations) -> None:
    kept.record_event(LedgerEvent(action="deploy", result="switched", generation=generation(1)))
    os.utime(host.layout.record(generation(0)))
    host.serve(generation(1))
    assert kept.served("good")[:3] == [generation(1), generation(7), generation(6)]
    assert kept.live_since() != ""
    kept.record_event(LedgerEvent(action="deploy", result="failed", generation=generation(2)))
    assert kept.previous_good() == generation(7)


@pytest.mark.parametrize("action", ["deploy", "rollback"])
def test_switch_whose_rollout_was_killed_is_recorded_later(host: Host, kept: Generations, action: str) -> None:
    before = host.layout.live()
    kept.record_event(LedgerEvent(action=action, by="ann", previous=before, generation=NEW, result="switching"))
    kept.reconcile()
    assert kept.live_since(), "not switched yet, so there is nothing to reconcile"
    point(host.layout, NEW)
    kept.reconcile()
    kept.reconcile()
    last = kept.ledger()[-1]
    assert (last.result, last.action, last.by, last.generation) == ("switched", action, "ann", NEW)
    assert [event.generation for event in kept.ledger()].count(NEW) == 2
    assert host.layout.read_record(NEW).state == "good"
    assert host.layout.read_record(before).state == ("left" if action == "rollback" else "good")


def test_ledger_does_not_grow_for_ever(host: Host, kept: Generations, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.shorten_ledger()
    before = kept.ledger()
    monkeypatch.setattr(generations_module, "LEDGER_ENTRIES", 2)
    kept.record_event(LedgerEvent(result="failed", generation="x"))
    kept.record_event(LedgerEvent(result="failed", generation="y"))
    kept.shorten_ledger()
    assert [event.generation for event in kept.ledger()] == ["x", "y"]
    assert len(before) > 2


def test_line_that_a_power_cut_left_in_the_ledger_is_passed_over(host: Host, kept: Generations) -> None:
    with open(host.layout.ledger, "a") as ledger:
        ledger.write('{"time": "2026\n[1]\n\n')
    kept.record_event(LedgerEvent(action="deploy", result="switched", generation=NEW))
    entries = kept.ledger()
    assert len(entries) == 9
    assert entries[-1].generation == NEW


def test_reason_goes_when_a_generation_is_no_longer_bad(kept: Generations) -> None:
    kept.set_state(NEW, "validated")
    assert kept.all()[NEW].reason == ""
    assert kept.all()[OLD].reason == "it exited"


def test_half_made_generation_is_none(host: Host, kept: Generations) -> None:
    Path(host.layout.record(OLD)).write_text('{"state": ')
    os.makedirs(host.layout.generation("not-an-id"))
    assert OLD not in kept.all()
    assert "not-an-id" not in kept.all()


def test_prune_removes_the_units_of_processes(host: Host, kept: Generations) -> None:
    names = [f"forge.worker@{generation(0)}.service", f"forge@{generation(0)}.target", f"shop@{generation(0)}.service"]
    for name in names:
        (Path(host.layout.units) / name).write_text("")
    kept.prune(3)
    assert set(names) & set(os.listdir(host.layout.units)) == {names[2]}, "another app's is left"


def test_prune_removes_the_uv_of_earlier_versions_and_nothing_else(host: Host, kept: Generations) -> None:
    tools = Path(host.layout.home) / "tools"
    tools.mkdir()
    for name in ("uv-0123456789ab", "uv-ba9876543210", "mine"):
        (tools / name).write_text("")
    kept.prune(5)
    assert os.listdir(tools) == ["mine"]
    (tools / "mine").unlink()
    kept.prune(5)
    assert not tools.exists()


def test_record_of_an_older_version_is_read_and_completed(host: Host, kept: Generations) -> None:
    older = {"release": "bbbbbbbbbbbb", "loses": "It cannot drain.", "unknown": 1, "workers": "many"}
    Path(host.layout.record(NEW)).write_text(json.dumps(older))
    kept.set_state(NEW, "good")
    written = json.loads(Path(host.layout.record(NEW)).read_text())
    assert written == {
        **GenerationRecord().to_dict(),
        "release": "bbbbbbbbbbbb",
        "state": "good",
        "drop_warning": "It cannot drain.",
    }


def test_entry_after_a_torn_line_stands_on_a_line_of_its_own(host: Host, kept: Generations) -> None:
    path = Path(host.layout.ledger)
    path.write_text(path.read_text() + '{"time": "2026-01-01T00')
    before = kept.ledger()
    for generation in (OLD, NEW):
        kept.record_event(LedgerEvent(action="deploy", result="switched", generation=generation))
    assert [event.generation for event in kept.ledger()[len(before) :]] == [OLD, NEW]
    assert kept.served("good", "left", "bad", "validated")[0] == NEW


ODD = ('{"to": ["x"], "result": {"a": 1}}', '{"to": 7, "from": null, "seconds": 1' + "0" * 400 + "}", '"switched"', "NaN",
       '{"to": "../../etc", "from": "\\u0000", "result": "switched", "action": "rollback"}', "\xff")  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_odd_entry_is_no_hindrance_wherever_the_ledger_is_read(
    host: Host, kept: Generations, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    with open(host.layout.ledger, "a", encoding="latin-1") as ledger:
        ledger.write(odd + "\n")
    kept.reconcile()
    assert isinstance(kept.previous_good(), str)
    assert isinstance(kept.live_since(), str)
    assert isinstance(kept.was_rolled_back(), bool)
    monkeypatch.setattr(generations_module, "LEDGER_ENTRIES", 2)
    kept.shorten_ledger()
    kept.record_event(LedgerEvent(result="failed", generation=NEW))
    assert kept.ledger()[-1].generation == NEW


def test_what_is_in_the_place_of_the_ledger_makes_way(host: Host, kept: Generations) -> None:
    assert kept.repair_ledger() == ""
    os.unlink(host.layout.ledger)
    assert kept.repair_ledger() == ""
    os.mkdir(host.layout.ledger)
    assert kept.ledger() == []
    assert "was no file (it is now " in kept.repair_ledger()
    kept.record_event(LedgerEvent(result="failed", generation=NEW))
    assert [event.generation for event in kept.ledger()] == [NEW]


def test_order_is_that_of_the_lines_when_the_clock_steps_back(
    kept: Generations, monkeypatch: pytest.MonkeyPatch
) -> None:
    for generation, now in ((OLD, "2026-06-01T12:00:00Z"), (NEW, "2026-06-01T11:00:00Z")):
        monkeypatch.setattr(generations_module.time, "strftime", lambda *_arguments, now=now: now)
        kept.record_event(LedgerEvent(result="switched", generation=generation))
    assert kept.served("good", "left", "bad", "validated")[:2] == [NEW, OLD]


def test_ledger_of_an_older_version_is_read(host: Host, kept: Generations) -> None:
    Path(host.layout.ledger).write_text(f'{{"to": "{OLD}", "result": "switched", "from": 3, "colour": "red"}}\n')
    assert kept.ledger() == [LedgerEvent(generation=OLD, result="switched")]
