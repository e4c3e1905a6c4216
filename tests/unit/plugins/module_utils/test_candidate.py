# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A candidate beside what serves: what it must pass, and what is left when it does not."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import candidate as candidate_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import systemd
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import RolloutError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.masking import MASK
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.probe import HealthCheck
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.processes import Processes
from fake_host import NEW, OLD, ORPHAN, PUBLIC, Host


def installed_unit(host: Host) -> str:
    return (Path(host.layout.units) / host.layout.service(NEW)).read_text()


def test_candidate_starts_beside_what_serves(host: Host) -> None:
    host.candidate().start()
    assert host.running == [OLD, NEW]
    assert host.layout.live() == OLD
    assert host.stopped() == []
    starts = [call[-1] for call in host.systemd.calls if call[0] == "start"]
    assert starts == [host.layout.socket(NEW), host.layout.service(NEW)]


def test_candidate_must_pass_as_often_in_a_row_as_asked(host: Host) -> None:
    host.answers[NEW] = [503, 200, 503, 200, 200, 200, 418]
    host.candidate(passes=3).start()
    assert host.answers[NEW] == [418]


@pytest.mark.parametrize("status", [404, 401, 403, 405, 302, 501, 204])
def test_answer_that_will_stay_is_not_waited_for(host: Host, status: int) -> None:
    host.answers[NEW] = [503, status, status, status, 200]
    with pytest.raises(
        RolloutError, match=f"answered {status}, not 200. Give forge_health_path a route that answers so"
    ):
        host.candidate().start()
    assert host.answers[NEW] == [200]
    assert host.running == [OLD]


@pytest.mark.parametrize("status", [404, 429, 503])
def test_answer_that_may_change_is_waited_for(host: Host, status: int) -> None:
    host.answers[NEW] = [status, status, 503, status, status, *([status] * 5 if status != 404 else []), 200]
    host.candidate().start()


@pytest.mark.parametrize(
    ("answers", "seen"),
    [
        ([500], "GET /healthz answered 500, not 200"),
        ([0], "it did not answer GET /healthz"),
        ([500, 0], "it did not answer GET /healthz"),
    ],
)
def test_candidate_that_is_not_healthy_is_stopped(host: Host, answers: list[int], seen: str) -> None:
    host.answers[NEW] = answers
    host.systemd.wrote = ["starting", "key is hunter22-hunter22"]
    with pytest.raises(RolloutError) as caught:
        host.candidate().start()
    assert str(caught.value) == f"Candidate {NEW} was not healthy within 30 s: {seen}."
    assert caught.value.journal == ["starting", f"key is {MASK}"]
    assert host.running == [OLD]
    assert host.layout.live() == OLD
    # The socket first, or a late probe would start the service again; and never the public one.
    assert host.stopped() == [host.layout.socket(NEW), host.layout.service(NEW)]


def test_candidate_that_exits_is_not_waited_for(host: Host) -> None:
    host.systemd.dies_at_start.add(host.layout.service(NEW))
    host.systemd.wrote = ["booting", "ValueError: no hunter22-hunter22", "shutting down"]
    with pytest.raises(RolloutError, match=rf"Generation {NEW} exited \(status 3\): ValueError: no \*+\. *$") as caught:
        host.candidate(deadline=100000).start()
    assert caught.value.journal[0] == "ValueError: no ********", "it begins with the cause"
    assert host.running == [OLD]
    assert PUBLIC[1] not in host.stopped()


def test_first_candidate_ever_that_fails_takes_the_public_socket_with_it(host: Host) -> None:
    os.unlink(host.layout.current)
    host.systemd.active = {"forge.socket"}
    host.answers[NEW] = [500]
    with pytest.raises(RolloutError):
        host.candidate().start()
    assert host.systemd.active == set()


@pytest.mark.parametrize("kind", ["request", "command"])
def test_candidate_that_fails_a_smoke_test_is_stopped(host: Host, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    asked = []

    class FakeTransient:
        def __init__(self, *_arguments: object) -> None:
            pass

        def run(self, argv: list[str], _timeout: int) -> tuple[int, str, float]:
            asked.append(argv)
            return 1, "checking\nno stock\n", 0.1

    monkeypatch.setattr(candidate_module, "Transient", FakeTransient)
    if kind == "request":
        host.smoke = "GET /orders answered 500, not 200"
        options: dict[str, Any] = {"smoke": [{"path": "/orders"}]}
        sentence = f"Candidate {NEW} failed a smoke test: GET /orders answered 500, not 200."
    else:
        options = {"smoke_command": "check 'a b'"}
        sentence = f"""Candidate {NEW} failed the smoke test "check 'a b'" with exit code 1: no stock."""
    with pytest.raises(RolloutError) as caught:
        host.candidate(**options).start()
    assert str(caught.value) == sentence
    assert host.running == [OLD]
    assert asked == ([[f"FORGE_SOCKET={host.layout.private_socket(NEW)}", "check", "a b"]] if kind == "command" else [])


def test_what_a_killed_rollout_left_behind_is_stopped(host: Host) -> None:
    host.systemd.active |= {host.layout.service(ORPHAN), host.layout.socket(ORPHAN)}
    host.candidate().start()
    assert host.running == [OLD, NEW]
    assert host.stopped() == [host.layout.socket(ORPHAN), host.layout.service(ORPHAN)]


def test_candidate_that_a_killed_rollout_left_running_is_started_anew(host: Host) -> None:
    """It may have crashed over and over, and its restarts would count against it."""
    host.systemd.active.add(host.layout.service(NEW))
    host.candidate().start()
    assert host.layout.service(NEW) in host.stopped()
    assert host.running == [OLD, NEW]


def test_full_disk_stops_the_candidate_before_it_starts(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate_module.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 0}))
    with pytest.raises(RolloutError, match="has less than 1 MB free"):
        host.candidate().start()
    assert host.running == [OLD]


def test_systemd_that_refuses_stops_the_candidate(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Processes, **_options: bool) -> None:
        raise systemd.SystemdError("Failed to reload daemon")

    monkeypatch.setattr(Processes, "install_units", refuse)
    with pytest.raises(RolloutError, match="Failed to reload daemon"):
        host.candidate().start()
    assert host.running == [OLD]


def test_deadline_that_passes_between_two_looks_is_no_timeout_below_zero(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.answers[NEW] = [503]
    timeouts: list[float] = []
    candidate = host.candidate(deadline=5)
    monkeypatch.setattr(candidate.processes, "check_alive", lambda: time.sleep(3))
    monkeypatch.setattr(HealthCheck, "problem", lambda _self, _path, timeout: timeouts.append(timeout) or "it is late")
    with pytest.raises(RolloutError, match="was not healthy within 5 s: it is late"):
        candidate.start()
    assert min(timeouts) > 0


def test_address_that_is_taken_is_said_before_anything_starts(host: Host) -> None:
    host.systemd.listens = ["0.0.0.0:9000"]
    host.address_problem = "forge_listen: 0.0.0.0:8000 is taken by sshd (unit ssh.service)."
    with pytest.raises(
        RolloutError, match=rf"^Candidate {NEW} was not started. forge_listen: 0.0.0.0:8000 is taken by"
    ):
        host.candidate().start()
    assert not any(call[0] in ("start", "stop") for call in host.systemd.calls)


def test_address_that_is_open_already_is_not_tried(host: Host) -> None:
    host.address_problem = "it is not asked for"
    host.candidate().start()


def test_first_release_whose_socket_does_not_open_says_what_systemd_says(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.nothing_was_released()
    systemctl = host.systemd.systemctl
    host.systemd.dies_at_start.add("forge.socket")

    def refuse(verb: str, *arguments: str, timeout: float = 120) -> str:
        if (verb, *arguments) == ("start", "forge.socket"):
            raise systemd.SystemdError("forge.socket did not start: Failed to create listening socket")
        return systemctl(verb, *arguments, timeout=timeout)

    monkeypatch.setattr(systemd, "systemctl", refuse)
    with pytest.raises(RolloutError, match=r"^forge.socket did not start: Failed to create listening socket\.$"):
        host.candidate().start()
    assert host.running == []


def test_candidate_is_healthy_when_every_worker_has_started(host: Host) -> None:
    host.systemd.workers = 1
    with pytest.raises(
        RolloutError, match=rf"^Candidate {NEW} was not healthy within 30 s: 1 of 2 workers have started"
    ):
        host.candidate().start()
    assert host.running == [OLD]
    host.systemd.workers = 2
    host.candidate().start()
    assert host.running == [OLD, NEW]


def test_candidate_whose_workers_die_over_and_over_is_not_waited_for(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.systemd.workers = 1
    processes = iter(range(100, 10000))
    monkeypatch.setattr(host.systemd, "children", lambda: [str(next(processes))])
    with pytest.raises(RolloutError, match=rf"^Candidate {NEW} is not healthy: its workers die, one after the other"):
        host.candidate(deadline=1000).start()
    assert next(processes) < 110


def test_stock_candidate_needs_all_its_processes(stock: Host) -> None:
    stock.systemd.workers = 1
    with pytest.raises(RolloutError, match="1 of 2 workers have started"):
        stock.candidate().start()


def test_stock_candidate_is_tried_without_the_public_socket_and_stopped(stock: Host) -> None:
    tried: list[str] = []
    stock.systemd.on_start = lambda _units: tried.append(installed_unit(stock))
    stock.candidate().start()
    assert tried
    assert all("forge.socket" not in unit for unit in tried)
    assert stock.running == [OLD]
    assert "Sockets=forge.socket " in installed_unit(stock)


def test_smoke_command_that_cannot_be_read_is_said(host: Host) -> None:
    with pytest.raises(
        RolloutError, match=r"failed the smoke test \"check 'a\": it cannot be read: no closing quotation"
    ):
        host.candidate(smoke_command="check 'a").start()
    assert host.running == [OLD]


def test_discarded_candidate_that_hangs_is_killed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.candidate().start()
    systemctl, calls = host.systemd.systemctl, []

    def slow(verb: str, *arguments: str, timeout: float = 120) -> str:
        calls.append((verb, timeout))
        if verb == "stop" and timeout == candidate_module.DISCARD_SECONDS:
            raise systemd.SystemdError("systemctl stop took longer than 5 s")
        return systemctl(verb, *arguments, timeout=timeout)

    monkeypatch.setattr(systemd, "systemctl", slow)
    host.candidate().discard()
    assert [verb for verb, _timeout in calls] == ["stop", "kill", "stop"]
    assert host.running == [OLD]


def test_what_is_live_is_never_discarded(host: Host) -> None:
    host.candidate(OLD).discard()
    assert host.running == [OLD]
