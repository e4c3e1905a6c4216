"""The way of a candidate into service, and the way back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import generations as generations_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import layout as layout_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.generations import Generations
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.masking import MASK
from ansible_collections.thecodeforge.fastapi.plugins.modules import rollout as module
from ansible_collections.thecodeforge.fastapi.plugins.modules.rollout import Rollout, RolloutError
from fake_systemd import FakeSystemd, point, quick, stage

OLD, NEW, STRAY = "aaaaaaaaaaaa-00000000", "bbbbbbbbbbbb-00000000", "cccccccccccc-00000000"
PUBLIC = ("forge.service", "forge.socket")


class Host:
    """A host on which OLD serves and NEW is staged."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = Layout(str(tmp_path / "srv"), "forge", str(tmp_path / "units"), str(tmp_path / "run"))
        monkeypatch.setattr(module, "Layout", lambda *_arguments: self.layout)
        monkeypatch.setattr(layout_module.os, "fchown", lambda *_arguments: None)
        self.systemd = FakeSystemd(self.layout)
        self.systemd.install(monkeypatch)
        self.systemd.listens = ["0.0.0.0:8000"]
        quick(monkeypatch, module, self.systemd)
        self.answers: dict[str, list[int]] = {}
        self.smoke = ""
        monkeypatch.setattr(module, "ask", self.ask)
        monkeypatch.setattr(module, "smoke_problem", lambda *_arguments: self.smoke)
        for generation in (OLD, NEW):
            stage(self.layout, generation)
        self.serve(OLD)

    def serve(self, generation: str) -> None:
        point(self.layout, generation)
        self.systemd.active = {*PUBLIC, self.layout.service(generation), self.layout.socket(generation)}
        self.systemd.enabled = set(PUBLIC)

    def ask(self, socket: str, _path: str, _timeout: float) -> tuple[int, str]:
        """Answers of a generation in turn, the last one for ever; 200 unless told."""
        generation = os.path.basename(socket).removesuffix(".sock")
        if generation not in self.systemd.instances("forge"):
            raise ConnectionRefusedError
        waiting = self.answers.get(generation, [200])
        status = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if status == 0:
            raise TimeoutError
        return status, ""

    def rollout(self, generation: str = NEW, **params: Any) -> Rollout:
        given = {
            "app": "forge",
            "root": str(Path(self.layout.home).parent),
            "generation": generation,
            "health_path": "/healthz",
            "health_status": 200,
            "health_passes": 1,
            "health_deadline": 30,
            "smoke": [],
            "smoke_command": "",
            "watch_seconds": 10,
            "drain_seconds": 20,
            "keep": 5,
        }
        return Rollout({**given, **params})

    @property
    def running(self) -> list[str]:
        return self.systemd.instances("forge")

    def stopped(self) -> list[str]:
        """Units in the order in which they were stopped."""
        units = [unit for verb, *units in self.systemd.calls if verb == "stop" for unit in units]
        return [unit for unit in units if "*" not in unit and "[" not in unit]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_candidate_starts_beside_what_serves(host: Host) -> None:
    host.rollout().start_candidate()
    assert host.running == [OLD, NEW]
    assert host.layout.live() == OLD
    assert host.stopped() == []
    starts = [call[-1] for call in host.systemd.calls if call[0] == "start"]
    assert starts == [host.layout.socket(NEW), host.layout.service(NEW)]


def test_candidate_must_pass_as_often_in_a_row_as_asked(host: Host) -> None:
    host.answers[NEW] = [503, 200, 503, 200, 200, 200, 418]
    host.rollout(health_passes=3).start_candidate()
    assert host.answers[NEW] == [418]


@pytest.mark.parametrize(
    ("answers", "seen"),
    [([500], "GET /healthz answered 500, not 200"), ([0], "it did not answer"), ([500, 0], "it did not answer")],
)
def test_candidate_that_is_not_healthy_is_stopped(host: Host, answers: list[int], seen: str) -> None:
    host.answers[NEW] = answers
    host.systemd.wrote = ["starting", "key is hunter22-hunter22"]
    with pytest.raises(RolloutError) as caught:
        host.rollout().start_candidate()
    assert str(caught.value) == f"Candidate {NEW} was not healthy within 30 s: {seen}."
    assert caught.value.journal == ["starting", f"key is {MASK}"]
    assert host.running == [OLD]
    assert host.layout.live() == OLD
    # The socket first, or a late probe would start the service again; and never the public one.
    assert host.stopped() == [host.layout.socket(NEW), host.layout.service(NEW)]


def test_candidate_that_exits_is_not_waited_for(host: Host) -> None:
    host.systemd.dies_at_start.add(host.layout.service(NEW))
    with pytest.raises(RolloutError, match=rf"Generation {NEW} exited \(status 3\): its journal says why"):
        host.rollout(health_deadline=100000).start_candidate()
    assert host.running == [OLD]
    assert PUBLIC[1] not in host.stopped()


def test_first_candidate_ever_that_fails_takes_the_public_socket_with_it(host: Host) -> None:
    os.unlink(host.layout.current)
    host.systemd.active = {"forge.socket"}
    host.answers[NEW] = [500]
    with pytest.raises(RolloutError):
        host.rollout().start_candidate()
    assert host.systemd.active == set()


@pytest.mark.parametrize("kind", ["request", "command"])
def test_candidate_that_fails_a_smoke_test_is_stopped(host: Host, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    asked = []

    class FakeTransient:
        def __init__(self, *_arguments: object) -> None:
            pass

        def run(self, words: list[str], _timeout: int) -> tuple[int, str, float]:
            asked.append(words)
            return 1, "checking\nno stock\n", 0.1

    monkeypatch.setattr(module, "Transient", FakeTransient)
    if kind == "request":
        host.smoke = "GET /orders answered 500, not 200"
        options: dict[str, Any] = {"smoke": [{"path": "/orders"}]}
        sentence = f"Candidate {NEW} failed a smoke test: GET /orders answered 500, not 200."
    else:
        options = {"smoke_command": "check 'a b'"}
        sentence = f"""Candidate {NEW} failed the smoke test "check 'a b'" with exit code 1: no stock"""
    with pytest.raises(RolloutError) as caught:
        host.rollout(**options).start_candidate()
    assert str(caught.value) == sentence
    assert host.running == [OLD]
    assert asked == ([[f"FORGE_SOCKET={host.layout.private_socket(NEW)}", "check", "a b"]] if kind == "command" else [])


def test_what_a_killed_rollout_left_behind_is_stopped(host: Host) -> None:
    host.systemd.active |= {host.layout.service(STRAY), host.layout.socket(STRAY)}
    host.rollout().start_candidate()
    assert host.running == [OLD, NEW]
    assert host.stopped() == [host.layout.socket(STRAY), host.layout.service(STRAY)]


def test_candidate_that_a_killed_rollout_left_running_is_started_anew(host: Host) -> None:
    """It may have crashed over and over, and its restarts would count against it."""
    host.systemd.active.add(host.layout.service(NEW))
    host.rollout().start_candidate()
    assert host.layout.service(NEW) in host.stopped()
    assert host.running == [OLD, NEW]


def test_full_disk_stops_the_candidate_before_it_starts(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 0}))
    with pytest.raises(RolloutError, match="has less than 1 MB free"):
        host.rollout().start_candidate()
    assert host.running == [OLD]


def test_systemd_that_refuses_stops_the_candidate(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Rollout, **_options: bool) -> None:
        raise module.systemd.SystemdError("Failed to reload daemon")

    monkeypatch.setattr(Rollout, "install_units", refuse)
    with pytest.raises(RolloutError, match="Failed to reload daemon"):
        host.rollout().start_candidate()
    assert host.running == [OLD]


def test_link_that_a_killed_switch_left_is_in_nobodys_way(host: Host) -> None:
    os.symlink("generations/x", f"{host.layout.current}.tmp")
    host.rollout().point_current(NEW)
    assert host.layout.live() == NEW


def test_switch_stops_the_old_generation_after_the_new_one_serves(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = host.rollout()
    rollout.start_candidate()
    states = Path(host.layout.worker_states(NEW))
    seen = []

    def stop(generation: str, only_processes: bool) -> None:
        seen.append((generation, only_processes, host.layout.live(), {file.read_text() for file in states.iterdir()}))
        Rollout.stop(rollout, generation, only_processes)

    monkeypatch.setattr(rollout, "stop", stop)
    rollout.switch()
    assert seen == [(OLD, True, NEW, {"public\n"}), (OLD, False, NEW, {"public\n"})]
    assert host.running == [NEW]
    assert host.layout.live() == NEW
    assert os.readlink(host.layout.current) == f"generations/{NEW}"
    assert set(PUBLIC) <= host.systemd.active & host.systemd.enabled
    assert "forge.socket" not in host.stopped()


def test_first_switch_holds_the_app_at_boot(host: Host) -> None:
    os.unlink(host.layout.current)
    host.systemd.active, host.systemd.enabled, host.systemd.listens = set(), set(), []
    rollout = host.rollout()
    rollout.start_candidate()
    rollout.switch()
    assert set(PUBLIC) <= host.systemd.active & host.systemd.enabled
    assert host.layout.live() == NEW


def test_deadline_that_passes_between_two_looks_is_no_timeout_below_zero(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.answers[NEW] = [503]
    given: list[float] = []
    rollout = host.rollout(health_deadline=5)
    monkeypatch.setattr(rollout, "check_alive", lambda: module.time.sleep(3))
    monkeypatch.setattr(rollout, "health_problem", lambda timeout: given.append(timeout) or "it did not answer")
    with pytest.raises(RolloutError, match="was not healthy within 5 s"):
        rollout.start_candidate()
    assert min(given) > 0


def test_address_that_is_taken_is_said(host: Host) -> None:
    os.unlink(host.layout.current)
    host.systemd.active, host.systemd.enabled = set(), set()
    host.systemd.dies_at_start.add("forge.socket")
    Generations(host.layout).set_state(NEW, "validated", listen=["0.0.0.0:80"])
    with pytest.raises(RolloutError, match=r"^forge.socket could not be opened: something else .* on 0.0.0.0:80"):
        host.rollout().start_candidate()
    assert host.running == []


def test_new_generation_that_takes_no_public_request_is_taken_back(host: Host) -> None:
    host.systemd.never_public.add(NEW)
    host.systemd.wrote = ["hunter22-hunter22"]
    rollout = host.rollout()
    rollout.start_candidate()
    with pytest.raises(RolloutError) as caught:
        rollout.switch()
    assert str(caught.value) == (
        f"After the switch 0 of 2 workers of {NEW} accepted public requests within 30 s. The host went back to {OLD}."
    )
    assert caught.value.journal == [MASK]
    assert host.layout.live() == OLD
    assert host.running == [OLD]
    assert host.layout.service(OLD) not in host.stopped()


def test_new_generation_that_turns_sick_while_it_is_watched_is_taken_back(host: Host) -> None:
    rollout = host.rollout()
    rollout.start_candidate()
    host.answers[NEW] = [200, 503, 200, 503]
    host.systemd.calls.clear()
    with pytest.raises(RolloutError, match=rf"was healthy, and then GET /healthz answered 503.* went back to {OLD}\.$"):
        rollout.switch()
    assert host.layout.live() == OLD
    assert host.running == [OLD]
    assert host.layout.service(OLD) not in host.stopped(), "it stood by"
    assert not Path(host.layout.stand_by(OLD)).exists()


def test_old_generation_stands_by_while_the_new_one_is_watched(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = host.rollout()
    rollout.start_candidate()
    watched = []

    def watch(until: float) -> None:
        watched.append((host.running, Path(host.layout.stand_by(OLD)).exists()))
        Rollout.watch(rollout, until)

    monkeypatch.setattr(rollout, "watch", watch)
    rollout.switch()
    assert watched == [([OLD, NEW], True), ([NEW], True)]  # systemd removes the file with its directory
    host.rollout(OLD).start_candidate()
    host.rollout(OLD).switch()
    assert host.running == [OLD]
    assert not Path(host.layout.stand_by(OLD)).exists()


@pytest.mark.parametrize("kind", ["of an earlier version", "of another kind"])
def test_old_generation_that_cannot_stand_by_is_stopped_before_the_watch(
    host: Host, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rollout = host.rollout()
    rollout.start_candidate()
    if kind == "of another kind":
        Generations(host.layout).set_state(OLD, "good", drains=False)
    else:
        monkeypatch.setattr(module, "public_workers", lambda _layout, _generation: 2)
    watched = []
    monkeypatch.setattr(rollout, "watch", lambda _until: watched.append(host.running))
    rollout.switch()
    assert watched == [[NEW]]


def test_drain_that_took_the_whole_watch_does_not_hide_a_sick_generation(host: Host) -> None:
    rollout = host.rollout()
    rollout.start_candidate()
    host.answers[NEW] = [500]
    with pytest.raises(RolloutError, match=f"went back to {OLD}"):
        host.rollout(watch_seconds=0).switch()
    assert host.layout.live() == OLD


def test_one_failed_probe_while_the_machine_is_busy_is_no_reason_to_go_back(host: Host) -> None:
    rollout = host.rollout()
    rollout.start_candidate()
    host.answers[NEW] = [503, 503, 200, 503, 503, 200]
    rollout.switch()
    assert host.layout.live() == NEW


def test_way_back_that_fails_too_says_both(host: Host) -> None:
    host.systemd.never_public |= {NEW, OLD}
    rollout = host.rollout()
    rollout.start_candidate()
    with pytest.raises(
        RolloutError, match=rf"workers of {NEW} accepted.* Going back to {OLD} failed too: After the switch"
    ):
        rollout.switch()


def test_first_generation_that_fails_after_its_switch_leaves_nothing_live(host: Host) -> None:
    os.unlink(host.layout.current)
    host.systemd.active = {"forge.socket"}
    host.systemd.never_public.add(NEW)
    rollout = host.rollout()
    rollout.start_candidate()
    with pytest.raises(RolloutError, match="0 of 2 workers"):
        rollout.switch()
    assert host.layout.live() == ""
    assert host.running == []


def test_another_address_restarts_the_public_socket(host: Host) -> None:
    host.systemd.listens = ["0.0.0.0:9000"]
    rollout = host.rollout()
    rollout.start_candidate()

    rollout.switch()
    assert "forge.socket" in host.stopped()
    assert host.running == [NEW]


def test_switch_to_what_is_live_stops_what_runs_beside_it(host: Host) -> None:
    host.systemd.active |= {host.layout.service(STRAY), host.layout.socket(STRAY)}
    assert host.rollout(OLD).switch() == 0.0
    assert host.running == [OLD]
    assert host.layout.service(OLD) not in host.stopped()


def test_current_is_never_absent(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def look(source: str, target: str) -> None:
        assert host.layout.live() == OLD
        rename(source, target)

    monkeypatch.setattr(os, "rename", look)
    host.rollout().point_current(NEW)
    assert host.layout.live() == NEW
    assert sorted(os.listdir(host.layout.home)) == ["current", "generations", "layers", "releases"]


# -- what is kept, and what happened -----------------------------------------------------------------


def generation(number: int) -> str:
    return f"{number:012x}-00000000"


@pytest.fixture
def kept(host: Host) -> Generations:
    """Eight generations that served one after the other; the last is live."""
    generations = Generations(host.layout)
    for number in range(8):
        stage(host.layout, generation(number), state="good")
        generations.note(action="deploy", result="switched", to=generation(number))
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
    kept.note(action="rollback", result="switched", to=generation(2))
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
    assert kept.to_go_back_to() == generation(6)
    kept.set_state(generation(6), "left")
    assert kept.to_go_back_to() == generation(5)
    kept.set_state(generation(5), "bad", reason="it exited")
    assert kept.to_go_back_to() == generation(4)


def test_order_is_that_of_the_ledger_and_not_of_file_times(host: Host, kept: Generations) -> None:
    kept.note(action="deploy", result="switched", to=generation(1))
    os.utime(host.layout.record(generation(0)))
    host.serve(generation(1))
    assert kept.served("good")[:3] == [generation(1), generation(7), generation(6)]
    assert kept.live_since() != ""
    kept.note(action="deploy", result="failed", to=generation(2))
    assert kept.to_go_back_to() == generation(7)


@pytest.mark.parametrize("action", ["deploy", "rollback"])
def test_switch_whose_rollout_was_killed_is_written_down_later(host: Host, kept: Generations, action: str) -> None:
    before = host.layout.live()
    kept.note(action=action, by="ann", **{"from": before, "to": NEW}, result="switching")
    kept.catch_up()
    assert kept.live_since(), "not switched yet, so there is nothing to catch up with"
    point(host.layout, NEW)
    kept.catch_up()
    kept.catch_up()
    last = kept.ledger()[-1]
    assert (last["result"], last["action"], last["by"], last["to"]) == ("switched", action, "ann", NEW)
    assert [entry["to"] for entry in kept.ledger()].count(NEW) == 2
    assert host.layout.read_record(NEW)["state"] == "good"
    assert host.layout.read_record(before)["state"] == ("left" if action == "rollback" else "good")


def test_ledger_does_not_grow_for_ever(host: Host, kept: Generations, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.shorten_ledger()
    before = kept.ledger()
    monkeypatch.setattr(generations_module, "LEDGER_ENTRIES", 2)
    kept.note(result="failed", to="x")
    kept.note(result="failed", to="y")
    kept.shorten_ledger()
    assert [entry["to"] for entry in kept.ledger()] == ["x", "y"]
    assert len(before) > 2


def test_line_that_a_power_cut_left_in_the_ledger_is_passed_over(host: Host, kept: Generations) -> None:
    with open(host.layout.ledger, "a") as ledger:
        ledger.write('{"time": "2026\n[1]\n\n')
    kept.note(action="deploy", result="switched", to=NEW)
    entries = kept.ledger()
    assert len(entries) == 9
    assert entries[-1]["to"] == NEW


def test_reason_goes_when_a_generation_is_no_longer_bad(kept: Generations) -> None:
    kept.set_state(NEW, "validated")
    assert "reason" not in kept.all()[NEW]
    assert kept.all()[OLD]["reason"] == "it exited"


def test_half_made_generation_is_none(host: Host, kept: Generations) -> None:
    Path(host.layout.record(OLD)).write_text('{"state": ')
    os.makedirs(host.layout.generation("not-an-id"))
    assert OLD not in kept.all()
    assert "not-an-id" not in kept.all()


# -- a server that cannot drain ----------------------------------------------------------------------


@pytest.fixture
def stock(host: Host) -> Host:
    """NEW runs a server that can neither stand by nor drain."""
    Generations(host.layout).set_state(NEW, "validated", drains=False, server="gunicorn-asgi")
    unit = f"[Service]\nSockets=forge.socket forge@{NEW}.socket\n"
    (Path(host.layout.generation(NEW)) / "units" / host.layout.service(NEW)).write_text(unit)
    host.systemd.never_public.add(NEW)
    return host


def installed_unit(host: Host) -> str:
    return (Path(host.layout.units) / host.layout.service(NEW)).read_text()


def test_stock_candidate_is_tried_without_the_public_socket_and_stopped(stock: Host) -> None:
    tried: list[str] = []
    stock.systemd.on_start = lambda _units: tried.append(installed_unit(stock))
    stock.rollout().start_candidate()
    assert tried
    assert all("forge.socket" not in unit for unit in tried)
    assert stock.running == [OLD]
    assert "Sockets=forge.socket " in installed_unit(stock)


def test_stock_generation_starts_beside_the_old_one_at_the_switch(stock: Host) -> None:
    rollout = stock.rollout()
    rollout.start_candidate()
    beside: list[list[str]] = []
    stock.systemd.on_start = lambda units: stock.layout.service(NEW) in units and beside.append(stock.running)
    rollout.switch()
    assert beside[0] == [OLD, NEW]
    assert stock.layout.live() == NEW
    assert stock.running == [NEW]


def test_stock_generation_that_fails_at_the_switch_leaves_the_old_one_alone(stock: Host) -> None:
    rollout = stock.rollout()
    rollout.start_candidate()
    stock.answers[NEW] = [503]
    with pytest.raises(RolloutError, match=rf"was not healthy.* went back to {OLD}"):
        rollout.switch()
    assert stock.layout.live() == OLD
    assert stock.running == [OLD]
    assert stock.layout.service(OLD) not in stock.stopped()


# -- other processes ---------------------------------------------------------------------------------


def with_processes(host: Host, generation: str, *names: str) -> None:
    directory = Path(host.layout.generation(generation)) / "units"
    for name in names:
        text = "[Service]\nTimeoutStopSec=5\n" if name.endswith("service") else "[Timer]\n"
        (directory / name.replace("@", f"@{generation}")).write_text(text)
    started = [name for name in names if name.replace(".service", ".timer") not in names or name.endswith(".timer")]
    wants = " ".join([f"forge@{generation}.service", *(name.replace("@", f"@{generation}") for name in started)])
    (directory / host.layout.target(generation)).write_text(f"[Unit]\nWants={wants}\n")


def test_old_processes_end_before_new_ones_start(host: Host) -> None:
    with_processes(host, OLD, "forge.worker@.service")
    with_processes(host, NEW, "forge.worker@.service", "forge.nightly@.timer", "forge.nightly@.service")
    host.rollout(OLD).install_units()
    host.systemd.active.add(f"forge.worker@{OLD}.service")
    rollout = host.rollout()
    rollout.start_candidate()
    others = {unit for unit in host.systemd.active if unit.startswith("forge.")} - set(PUBLIC)
    assert others == {f"forge.worker@{OLD}.service"}, "a candidate's processes wait for the switch"
    started: list[set[str]] = []
    host.systemd.on_start = lambda units: (
        f"forge.worker@{NEW}.service" in units
        and started.append({unit for unit in host.systemd.active if OLD in unit and unit.startswith("forge.")})
    )
    rollout.switch()
    assert started[0] == set()
    assert {unit for unit in host.systemd.active if unit.startswith("forge.")} - set(PUBLIC) == {
        f"forge.worker@{NEW}.service",
        f"forge.nightly@{NEW}.timer",
    }


def test_process_that_dies_takes_the_release_back_and_the_old_ones_run_again(host: Host) -> None:
    with_processes(host, OLD, "forge.worker@.service")
    with_processes(host, NEW, "forge.worker@.service")
    host.rollout(OLD).install_units()
    host.systemd.active.add(f"forge.worker@{OLD}.service")
    host.systemd.dies_at_start.add(f"forge.worker@{NEW}.service")
    rollout = host.rollout()
    rollout.start_candidate()
    with pytest.raises(RolloutError, match=rf"Process worker of {NEW} exited \(status 3\).* went back to {OLD}"):
        rollout.switch()
    assert host.layout.live() == OLD
    assert f"forge.worker@{OLD}.service" in host.systemd.active
    assert host.systemd.running("forge") == [OLD]


def test_command_of_a_timer_is_waited_for(host: Host) -> None:
    with_processes(host, OLD, "forge.nightly@.timer", "forge.nightly@.service")
    host.rollout(OLD).install_units()
    running = f"forge.nightly@{OLD}.service"
    host.systemd.active |= {f"forge.nightly@{OLD}.timer", running}
    host.systemd.ends_after[running] = 3
    rollout = host.rollout()
    rollout.start_candidate()
    rollout.switch()
    assert host.systemd.ended == [running], "by itself, and not by a signal"


def test_prune_removes_the_units_of_processes(host: Host, kept: Generations) -> None:
    names = [f"forge.worker@{generation(0)}.service", f"forge@{generation(0)}.target", f"shop@{generation(0)}.service"]
    for name in names:
        (Path(host.layout.units) / name).write_text("")
    kept.prune(3)
    assert set(names) & set(os.listdir(host.layout.units)) == {names[2]}, "another app's is left"
