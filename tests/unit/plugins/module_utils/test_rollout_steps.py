# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps of a rollout: what they answer, what the ledger and the records say, and who waits for whom."""

from __future__ import annotations

import importlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import rollout_steps as module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import systemd
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import RolloutError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.exclusive import exclusive_lock
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.generations import Generations
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.probe import HealthCheck
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.records import LedgerEvent
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.rollout_steps import RolloutSteps
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.serving import is_converged
from ansible_collections.thecodeforge.fastapi.plugins.modules.rollout import ARGUMENT_SPEC
from fake_host import NEW, OLD, Host
from fake_systemd import point

DEFAULTS = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}


class Steps:
    """Takes steps on a host as the module does."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        self.warnings: list[str] = []
        self.generations = Generations(host.layout)
        monkeypatch.setattr(module, "Layout", lambda *_arguments: host.layout)
        self.generations.set_state(OLD, "good")
        self.generations.record_event(LedgerEvent(generation=OLD, result="switched"))

    def take(self, step: str, generation: str = NEW, check: bool = False, **changes: Any) -> dict[str, Any]:
        """A switch with all that follows, unless the test wants less."""
        params = {**DEFAULTS, "root": "/srv", "app": "forge", "generation": generation, "step": step, "by": "ann@here"}
        params["through"] = "finish" if step == "switch" else ""
        steps = RolloutSteps({**params, **changes}, self.warnings.append)
        steps.run(check)
        return steps.result

    def events(self) -> list[tuple[str, str, str]]:
        """All but that OLD was switched to."""
        return [(event.previous, event.generation, event.result) for event in self.generations.ledger()[1:]]


@pytest.fixture
def steps(host: Host, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(host, monkeypatch)


def test_candidate_and_switch_are_recorded(steps: Steps) -> None:
    candidate = steps.take("candidate")
    assert (candidate["from"], candidate["to"], candidate["changed"], candidate["healthy"]) == (OLD, NEW, True, True)
    switched = steps.take("switch", schema="0002")
    assert steps.host.running == [NEW]
    assert switched["switched_in"] >= 0
    assert switched["removed"] == []
    record = steps.host.layout.read_record(NEW)
    assert (record.state, record.schema, record.drop_warning) == ("good", "0002", "")
    event = steps.generations.ledger()[-1]
    assert (event.schema_before, event.schema) == ("", "0002")
    assert steps.events() == [(OLD, NEW, "switching"), (OLD, NEW, "switched")]
    assert {event.by for event in steps.generations.ledger()[1:]} == {"ann@here"}
    steps.take("candidate", OLD)
    steps.take("switch", OLD, action="rollback")
    event = steps.generations.ledger()[-1]
    assert (event.schema_before, event.schema) == ("0002", "")
    assert steps.warnings == []


def test_step_whose_work_is_done_does_nothing(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_converged", lambda *_arguments: True)
    for step in ("candidate", "switch"):
        assert steps.take(step)["changed"] is False
    assert steps.host.systemd.calls == []


def test_check_mode_says_what_would_change(steps: Steps) -> None:
    assert steps.take("candidate", check=True)["changed"] is True
    assert steps.take("switch", "ffffffffffff-00000000", check=True)["changed"] is True
    assert steps.host.running == [OLD]


def test_generation_that_is_not_staged_is_refused(steps: Steps) -> None:
    with pytest.raises(RolloutError, match=r"ffffffffffff-00000000 is not staged on this host: stage it first\.$"):
        steps.take("candidate", "ffffffffffff-00000000")
    assert steps.events() == []


def test_candidate_that_fails_is_a_result_and_marked_bad(steps: Steps) -> None:
    steps.host.answers[NEW] = [500]
    steps.host.systemd.wrote = ["it broke"]
    answer = steps.take("candidate")
    assert answer["healthy"] is False
    assert answer["reason"].endswith("GET /healthz answered 500, not 200. What served before still serves.")
    assert answer["journal"] == ["it broke"]
    record = steps.host.layout.read_record(NEW)
    assert (record.state, record.reason) == ("bad", answer["reason"].removesuffix(" What served before still serves."))
    assert steps.events() == [(OLD, NEW, "failed")]


def test_switch_that_fails_is_an_error_and_marked_bad(steps: Steps) -> None:
    steps.take("candidate")
    steps.host.systemd.never_public.add(NEW)
    with pytest.raises(RolloutError, match=rf"The host went back to {OLD}\.$"):
        steps.take("switch")
    assert steps.host.layout.read_record(NEW).state == "bad"
    assert steps.events() == [(OLD, NEW, "switching"), (OLD, NEW, "failed")]


def test_live_generation_that_fails_is_not_marked_bad(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Switch, "run", lambda _self: (_ for _ in ()).throw(RolloutError("it is sick")))
    with pytest.raises(RolloutError, match="it is sick"):
        steps.take("switch", OLD)
    assert steps.host.layout.read_record(OLD).state == "good"


def test_failure_that_cannot_be_recorded_says_both(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    steps.host.answers[NEW] = [500]
    monkeypatch.setattr(Generations, "set_state", full)
    assert "not 200. It could not be recorded: No space left on device." in steps.take("candidate")["reason"]


def test_rollback_leaves_what_it_went_away_from(steps: Steps) -> None:
    steps.take("candidate", action="rollback")
    steps.take("switch", action="rollback")
    assert steps.generations.was_rolled_back()
    assert OLD not in steps.generations.served("good")


def test_server_that_cannot_drain_is_warned_of_and_recorded(steps: Steps) -> None:
    steps.generations.set_state(NEW, "validated", drains=False, worker_class="shop.Worker")
    steps.host.systemd.never_public.add(NEW)
    steps.take("candidate")
    assert len(steps.warnings) == 1
    assert steps.warnings[0].startswith("shop.Worker can neither stand by nor drain: ")
    steps.take("switch")
    assert steps.host.layout.read_record(NEW).drop_warning == steps.warnings[0]


def test_discard_stops_the_candidate_and_records_nothing(steps: Steps) -> None:
    steps.take("candidate")
    assert steps.take("discard")["changed"] is True
    assert steps.host.running == [OLD]
    assert steps.events() == []


def test_second_rollout_waits_and_then_says_so(steps: Steps) -> None:
    with (
        exclusive_lock(steps.host.layout.kernel_lock("rollout")),
        pytest.raises(RolloutError, match="Another rollout of forge is at work on this host: run again when it is"),
    ):
        steps.take("candidate")
    assert steps.host.running == [OLD]


def test_systemd_that_refuses_says_at_which_step(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_more: object) -> str:
        raise systemd.SystemdError("systemctl list-units: no bus")

    monkeypatch.setattr(systemd, "running", refuse)
    monkeypatch.setattr(module, "is_converged", lambda *_arguments: False)
    with pytest.raises(
        RolloutError, match=f"^Rollout of {NEW} stopped at step candidate: systemctl list-units: no bus$"
    ):
        steps.take("candidate")


def test_switch_that_was_interrupted_is_recorded_by_the_next_step(steps: Steps) -> None:
    steps.take("candidate")
    steps.take("switch")
    Path(steps.host.layout.ledger).write_text(
        json.dumps({"from": OLD, "to": NEW, "result": "switching", "action": "deploy", "by": "bob@there"}) + "\n"
    )
    steps.take("switch")
    assert steps.generations.live_since()
    assert [event.by for event in steps.generations.ledger()] == ["bob@there", "bob@there"]


def test_points_at_which_system_tests_kill_a_rollout_exist() -> None:
    text = (Path(__file__).parents[4] / "tests" / "system" / "test_faults.py").read_text()
    points = re.findall(r'"(\w+)\.(\w+)\.(\w+):(?:before|after|[\d.]+)"', text)
    assert len(points) >= 10
    for unit, owner, function in points:
        found = importlib.import_module(f"{systemd.__package__}.{unit}")
        assert callable(getattr(getattr(found, owner), function))


@pytest.mark.parametrize(
    ("damage", "warning"),
    [
        (lambda host: os.unlink(host.layout.current), "was not there"),
        (lambda host: (os.unlink(host.layout.current), os.mkdir(host.layout.current)), "was no link (it is now "),
        (lambda host: point(host.layout, NEW), f"named {NEW}"),
        (lambda host: point(host.layout, "ffffffffffff-00000000"), "named ffffffffffff-00000000"),
    ],
)
@pytest.mark.parametrize("answer", [200, 500])
def test_lost_link_stops_nothing_that_serves(steps: Steps, damage: Any, warning: str, answer: int) -> None:
    host = steps.host
    host.systemd.tick()
    damage(host)
    host.answers[NEW] = [answer]
    candidate = steps.take("candidate")
    assert (candidate["from"], candidate["healthy"]) == (OLD, answer == 200)
    assert host.layout.service(OLD) not in host.stopped()
    assert host.layout.live() == OLD
    assert f"{host.layout.current} {warning}" in steps.warnings[0]
    assert f"while {OLD} serves: it names that again." in steps.warnings[0]
    if answer == 200:
        steps.take("switch")
        assert (host.layout.live(), host.running) == (NEW, [NEW])


def test_candidate_that_was_left_behind_is_not_taken_for_what_serves(steps: Steps) -> None:
    host = steps.host
    steps.take("candidate")
    os.unlink(host.layout.current)
    host.systemd.systemctl("stop", host.layout.service(OLD))
    assert steps.take("candidate")["from"] == ""
    assert host.layout.live() == ""


def test_step_by_step_is_recorded_as_in_one(steps: Steps) -> None:
    steps.take("candidate")
    switched = steps.take("switch", through="")
    assert (switched["from"], steps.host.running) == (OLD, [OLD, NEW])
    assert steps.host.layout.read_record(NEW).state != "good"
    steps.take("watch", previous=OLD)
    assert steps.host.running == [OLD, NEW]
    assert steps.host.layout.read_record(NEW).state == "good"
    assert steps.take("finish", previous=OLD)["removed"] == []
    assert steps.host.running == [NEW]
    assert steps.events() == [(OLD, NEW, "switching"), (OLD, NEW, "switched")]


def test_watch_that_fails_in_a_step_of_its_own_marks_the_generation_bad(steps: Steps) -> None:
    steps.take("candidate")
    steps.take("switch", through="")
    steps.host.answers[NEW] = [503]
    with pytest.raises(RolloutError, match=f"The host went back to {OLD}"):
        steps.take("watch", previous=OLD)
    assert steps.host.layout.read_record(NEW).state == "bad"
    assert steps.events()[1:] == [(OLD, NEW, "failed")]


def test_host_that_had_switched_is_taken_back_and_the_ledger_says_so(steps: Steps) -> None:
    steps.take("candidate")
    steps.take("switch", through="watch")
    back = steps.take("take_back", previous=OLD)
    assert (back["taken_back"], back["serves"]) == (True, OLD)
    assert (steps.host.layout.live(), steps.host.running) == (OLD, [OLD])
    assert steps.host.layout.service(OLD) not in steps.host.stopped(), "it stood by"
    assert steps.host.layout.read_record(NEW).state == "left"
    assert steps.events()[-1] == (NEW, OLD, "switched")
    assert is_converged(steps.host.layout, OLD, {})
    again = steps.take("take_back", previous=OLD)
    assert (again["serves"], again.get("taken_back")) == (OLD, None)


def test_rollback_that_is_taken_back_leaves_both_as_good_as_they_were(steps: Steps) -> None:
    """A generation that was left would be none to go back to."""
    steps.take("candidate")
    steps.take("switch")
    steps.take("candidate", OLD, action="rollback")
    steps.take("switch", OLD, action="rollback", through="watch")
    assert steps.host.layout.read_record(NEW).state == "left"
    assert steps.take("take_back", OLD, action="rollback", previous=NEW)["serves"] == NEW
    assert [steps.host.layout.read_record(each).state for each in (OLD, NEW)] == ["good", "good"]
    assert steps.generations.previous_good() == OLD


def test_host_is_taken_back_out_of_its_watch(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other call can only ask for it, as this one has the lock."""
    steps.take("candidate")
    asked: list[int] = []

    def problem(*_arguments: object) -> str:
        asked.append(1)
        if len(asked) == 2:
            Path(steps.host.layout.take_back_request).touch()
        return ""

    monkeypatch.setattr(HealthCheck, "problem", problem)
    result = steps.take("switch", through="watch")
    assert result["taken_back"]
    assert len(asked) == 2
    assert (steps.host.layout.live(), steps.host.running) == (OLD, [OLD])
    assert steps.events() == [(OLD, NEW, "switching"), (OLD, NEW, "taken back")]
    assert steps.host.layout.read_record(NEW).state == "validated"
    assert steps.take("take_back", previous=OLD)["serves"] == OLD
    assert not Path(steps.host.layout.take_back_request).exists()


def test_old_request_to_go_back_is_none_for_the_next_release(steps: Steps) -> None:
    steps.take("candidate")
    Path(steps.host.layout.locks).mkdir(exist_ok=True)
    Path(steps.host.layout.take_back_request).touch()
    assert "taken_back" not in steps.take("switch")
    assert steps.host.running == [NEW]


def test_candidate_that_was_not_switched_to_is_stopped_by_a_take_back(steps: Steps) -> None:
    steps.take("candidate")
    assert steps.take("take_back", previous="")["serves"] == OLD
    assert steps.host.running == [OLD]


def test_host_that_keeps_what_it_was_released_has_nothing_standing_by(steps: Steps) -> None:
    steps.take("candidate")
    steps.take("switch", through="watch")
    assert steps.host.running == [OLD, NEW]
    assert steps.take("take_back")["serves"] == NEW
    assert steps.host.running == [NEW]
    assert steps.host.layout.read_record(NEW).state == "good"


def test_first_release_of_a_host_is_not_taken_back(steps: Steps) -> None:
    """Nothing would serve there."""
    steps.host.nothing_was_released()
    steps.take("candidate")
    steps.take("switch", through="watch")
    assert steps.take("take_back", previous="")["serves"] == NEW
    assert steps.host.running == [NEW]


@pytest.mark.parametrize(("said", "warned"), [(0, False), (4, True), (5, False)])
def test_candidate_that_opens_more_connections_than_it_was_to_is_warned_of(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, said: int, warned: bool
) -> None:
    monkeypatch.setattr(module, "most_of_a_worker", lambda *_arguments: 5)
    assert steps.take("candidate", worker_connections=said)["connections"] == 5
    assert (
        any("has 5 connections to its database, and forge_worker_connections says 4" in each for each in steps.warnings)
        is warned
    )
