# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switch to a candidate, and the way back."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import switch as switch_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import RolloutError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.generations import Generations
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.masking import MASK
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.processes import Processes
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.switch import Switch
from fake_host import NEW, OLD, ORPHAN, PUBLIC, Host, switch_wholly, with_processes


def test_link_that_a_killed_switch_left_is_in_nobodys_way(host: Host) -> None:
    os.symlink("generations/x", f"{host.layout.current}.tmp")
    host.switch().point_current()
    assert host.layout.live() == NEW


def test_switch_stops_the_old_generation_after_the_new_one_serves(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.candidate().start()
    states = Path(host.layout.worker_states(NEW))
    seen = []

    stop = Processes.stop

    def watched_stop(self: Processes, drain_seconds: int, keep_web: bool = False, timeout: float = 0) -> None:
        seen.append((self.generation, keep_web, host.layout.live(), {file.read_text() for file in states.iterdir()}))
        stop(self, drain_seconds, keep_web, timeout)

    monkeypatch.setattr(Processes, "stop", watched_stop)
    host.switch_to()
    assert seen == [(OLD, True, NEW, {"public\n"}), (OLD, False, NEW, {"public\n"})]
    assert host.running == [NEW]
    assert host.layout.live() == NEW
    assert os.readlink(host.layout.current) == f"generations/{NEW}"
    assert set(PUBLIC) <= host.systemd.active & host.systemd.enabled
    assert "forge.socket" not in host.stopped()


def test_first_switch_enables_the_app_at_boot(host: Host) -> None:
    host.nothing_was_released()
    host.candidate().start()
    host.switch_to()
    assert set(PUBLIC) <= host.systemd.active & host.systemd.enabled
    assert host.layout.live() == NEW


def test_new_generation_that_takes_no_public_request_is_taken_back(host: Host) -> None:
    host.systemd.never_public.add(NEW)
    host.systemd.wrote = ["hunter22-hunter22"]
    host.candidate().start()
    with pytest.raises(RolloutError) as caught:
        host.switch_to()
    assert str(caught.value) == (
        f"After the switch 0 of 2 workers of {NEW} accepted public requests within 30 s. The host went back to {OLD}."
    )
    assert caught.value.journal == [MASK]
    assert host.layout.live() == OLD
    assert host.running == [OLD]
    assert host.layout.service(OLD) not in host.stopped()


def test_new_generation_that_turns_sick_while_it_is_watched_is_taken_back(host: Host) -> None:
    host.candidate().start()
    host.answers[NEW] = [200, 503, 200, 503]
    host.systemd.calls.clear()
    with pytest.raises(RolloutError, match=rf"was healthy, and then GET /healthz answered 503.* went back to {OLD}\.$"):
        host.switch_to()
    assert host.layout.live() == OLD
    assert host.running == [OLD]
    assert host.layout.service(OLD) not in host.stopped(), "it stood by"
    assert not Path(host.layout.standby_request(OLD)).exists()


def test_old_generation_stands_by_while_the_new_one_is_watched(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.candidate().start()
    watched = []

    switch = host.switch()

    def watch(until: float, may_be_taken_back: bool = False) -> None:
        watched.append((host.running, Path(host.layout.standby_request(OLD)).exists()))
        Switch.watch(switch, until, may_be_taken_back)

    monkeypatch.setattr(switch, "watch", watch)
    switch_wholly(switch)
    assert watched == [([OLD, NEW], True), ([NEW], True)]  # systemd removes the file with its directory
    host.candidate(OLD).start()
    host.switch_to(OLD)
    assert host.running == [OLD]
    assert not Path(host.layout.standby_request(OLD)).exists()


@pytest.mark.parametrize("kind", ["of an earlier version", "of another kind"])
def test_old_generation_that_cannot_stand_by_is_stopped_before_the_watch(
    host: Host, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    host.candidate().start()
    if kind == "of another kind":
        Generations(host.layout).set_state(OLD, "good", drains=False)
    else:
        monkeypatch.setattr(switch_module, "public_workers", lambda _layout, _generation: 2)
    watched = []
    switch = host.switch()
    monkeypatch.setattr(switch, "watch", lambda _until, **_options: watched.append(host.running))
    switch_wholly(switch)
    assert watched == [[NEW]]


def test_drain_that_took_the_whole_watch_does_not_hide_a_sick_generation(host: Host) -> None:
    host.candidate().start()
    host.answers[NEW] = [500]
    with pytest.raises(RolloutError, match=f"went back to {OLD}"):
        host.switch_to(watch_seconds=0)
    assert host.layout.live() == OLD


def test_one_failed_probe_while_the_machine_is_busy_is_no_reason_to_go_back(host: Host) -> None:
    host.candidate().start()
    host.answers[NEW] = [503, 503, 200, 503, 503, 200]
    host.switch_to()
    assert host.layout.live() == NEW


def test_way_back_that_fails_too_says_both(host: Host) -> None:
    host.systemd.never_public |= {NEW, OLD}
    host.candidate().start()
    with pytest.raises(
        RolloutError, match=rf"workers of {NEW} accepted.* Going back to {OLD} failed: After the switch"
    ):
        host.switch_to()


def test_first_generation_that_fails_after_its_switch_leaves_nothing_live(host: Host) -> None:
    os.unlink(host.layout.current)
    host.systemd.active = {"forge.socket"}
    host.systemd.never_public.add(NEW)
    host.candidate().start()
    with pytest.raises(RolloutError, match="0 of 2 workers"):
        host.switch_to()
    assert host.layout.live() == ""
    assert host.running == []


def test_another_address_is_open_and_served_before_the_old_one_stops(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.systemd.listens = ["0.0.0.0:9000"]
    host.candidate().start()
    opened: list[tuple[list[str], str]] = []
    host.systemd.on_start = lambda units: (
        units == ["forge.socket"]
        and opened.append((host.running, (Path(host.layout.units) / "forge.socket").read_text()))
    )
    host.switch_to()
    assert len(opened) == 1
    assert opened[0][0] == [OLD], "it goes on with its own hold on the old socket"
    assert "ListenStream=0.0.0.0:8000" in opened[0][1]
    assert ("stop", "--job-mode=ignore-dependencies", *PUBLIC) in host.systemd.calls
    assert host.running == [NEW]
    assert set(PUBLIC) <= host.systemd.active


def test_address_that_cannot_be_open_beside_the_old_one_restarts_the_app(host: Host) -> None:
    host.systemd.listens = ["127.0.0.1:8000"]
    host.candidate().start()
    host.switch_to()
    assert ("stop", *PUBLIC) in host.systemd.calls
    assert host.running == [NEW]


def test_address_that_was_taken_meanwhile_stops_nothing(host: Host) -> None:
    host.systemd.listens = ["0.0.0.0:9000"]
    unit = Path(host.layout.generation(OLD)) / "units" / "forge.socket"
    unit.write_text("[Socket]\nListenStream=0.0.0.0:9000\n")
    host.candidate().start()
    host.address_problem = "forge_listen: 0.0.0.0:8000 is taken by nginx."
    with pytest.raises(RolloutError, match=r"is taken by nginx\."):
        host.switch_to()
    assert host.layout.service(OLD) not in host.stopped()
    assert not any(unit in host.stopped() for unit in PUBLIC)


def test_switch_to_what_is_live_stops_what_runs_beside_it(host: Host) -> None:
    host.systemd.active |= {host.layout.service(ORPHAN), host.layout.socket(ORPHAN)}
    assert host.switch_to(OLD) == 0.0
    assert host.running == [OLD]
    assert host.layout.service(OLD) not in host.stopped()


def test_current_is_never_absent(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def look(source: str, target: str) -> None:
        assert host.layout.live() == OLD
        rename(source, target)

    monkeypatch.setattr(os, "rename", look)
    host.switch().point_current()
    assert host.layout.live() == NEW
    assert sorted(os.listdir(host.layout.home)) == ["current", "generations", "layers", "releases"]


def test_stock_generation_starts_beside_the_old_one_at_the_switch(stock: Host) -> None:
    stock.candidate().start()
    beside: list[list[str]] = []
    stock.systemd.on_start = lambda units: stock.layout.service(NEW) in units and beside.append(stock.running)
    stock.switch_to()
    assert beside[0] == [OLD, NEW]
    assert stock.layout.live() == NEW
    assert stock.running == [NEW]


def test_stock_generation_that_fails_at_the_switch_leaves_the_old_one_alone(stock: Host) -> None:
    stock.candidate().start()
    stock.answers[NEW] = [503]
    with pytest.raises(RolloutError, match=rf"was not healthy.* went back to {OLD}"):
        stock.switch_to()
    assert stock.layout.live() == OLD
    assert stock.running == [OLD]
    assert stock.layout.service(OLD) not in stock.stopped()


def test_old_processes_end_before_new_ones_start(host: Host) -> None:
    with_processes(host, OLD, "forge.worker@.service")
    with_processes(host, NEW, "forge.worker@.service", "forge.nightly@.timer", "forge.nightly@.service")
    host.processes(OLD).install_units()
    host.systemd.active.add(f"forge.worker@{OLD}.service")
    host.candidate().start()
    others = {unit for unit in host.systemd.active if unit.startswith("forge.")} - set(PUBLIC)
    assert others == {f"forge.worker@{OLD}.service"}, "a candidate's processes wait for the switch"
    started: list[set[str]] = []
    host.systemd.on_start = lambda units: (
        f"forge.worker@{NEW}.service" in units
        and started.append({unit for unit in host.systemd.active if OLD in unit and unit.startswith("forge.")})
    )
    host.switch_to()
    assert started[0] == set()
    assert {unit for unit in host.systemd.active if unit.startswith("forge.")} - set(PUBLIC) == {
        f"forge.worker@{NEW}.service",
        f"forge.nightly@{NEW}.timer",
    }


def test_process_that_dies_takes_the_release_back_and_the_old_ones_run_again(host: Host) -> None:
    with_processes(host, OLD, "forge.worker@.service")
    with_processes(host, NEW, "forge.worker@.service")
    host.processes(OLD).install_units()
    host.systemd.active.add(f"forge.worker@{OLD}.service")
    host.systemd.dies_at_start.add(f"forge.worker@{NEW}.service")
    host.candidate().start()
    with pytest.raises(RolloutError, match=rf"Process worker of {NEW} exited \(status 3\).* went back to {OLD}"):
        host.switch_to()
    assert host.layout.live() == OLD
    assert f"forge.worker@{OLD}.service" in host.systemd.active
    assert host.systemd.running("forge") == [OLD]


def test_watch_that_comes_later_lasts_for_what_remains_of_its_time(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.candidate().start()
    switch = host.switch(watch_seconds=10)
    switch.run()
    watched: list[float] = []
    monkeypatch.setattr(switch, "watch", lambda until, **_options: watched.append(until - time.monotonic()))
    monkeypatch.setattr(switch, "seconds_since_flip", lambda: 7.0)
    switch.watch_after_flip(OLD)
    assert watched[0] == pytest.approx(3, abs=0.1)


def test_first_release_is_not_watched_and_later_ones_are(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.candidate().start()
    switch = host.switch()
    switch.run()
    monkeypatch.setattr(switch, "watch", lambda *_arguments, **_options: pytest.fail("watched"))
    switch.watch_after_flip("")
    with pytest.raises(pytest.fail.Exception):
        switch.watch_after_flip(OLD)


def test_generation_that_turned_sick_while_it_stood_alone_in_a_step_of_its_own_is_taken_back(host: Host) -> None:
    host.candidate().start()
    host.switch().run()
    host.answers[NEW] = [503]
    later = host.switch()
    with pytest.raises(RolloutError, match=rf"answered 503.* The host went back to {OLD}\.$"):
        later.watch_after_flip(OLD)
    assert host.layout.live() == OLD


def test_generation_of_an_interrupted_rollout_has_no_way_back(host: Host) -> None:
    host.candidate().start()
    host.switch().run()
    host.answers[NEW] = [503]
    with pytest.raises(RolloutError, match=r"answered 503, not 200\.$"):
        host.switch().watch_after_flip(None) or host.switch().finish(None)
    assert host.layout.live() == NEW
