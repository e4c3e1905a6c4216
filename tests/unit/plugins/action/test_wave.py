# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of a wave look at each other: what one learns too late is taken back, what it learns in time is not begun."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants as C
from ansible_collections.thecodeforge.fastapi.plugins.action import rollout
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.transport.host_call import HostAction

ARGUMENTS = {
    "app": "shop",
    "root": "/srv",
    "generation": "bbbbbbbbbbbb-00000000",
    "step": "switch",
    "through": "watch",
    "together": True,
    "keep": 5,
    "drain_seconds": 20,
}


class Hosts:
    """Hosts that do what a test says, each in a thread, as Ansible has them in processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.does: dict[str, Any] = {}
        self.quick = True
        self.watches, self.was_taken_back = threading.Event(), threading.Event()
        monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path))
        monkeypatch.setattr(rollout, "is_switched_on", lambda *_arguments: self.quick)
        monkeypatch.setattr(HostAction, "run_module", self.run_module)

    def run_module(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((task_vars["host"], arguments["step"], arguments))
        if arguments["step"] == "take_back":
            self.was_taken_back.set()
            return {"changed": True, "taken_back": True}
        return self.does[task_vars["host"]]()  # type: ignore[no-any-return]

    def run(self, host: str, check: bool = False, **changes: Any) -> dict[str, Any]:
        action = object.__new__(rollout.ActionModule)
        action._task = SimpleNamespace(check_mode=check)
        return action.run_module({**ARGUMENTS, **changes}, {"host": host, "inventory_hostname": host})

    def steps(self) -> list[tuple[str, str]]:
        return [(host, step) for host, step, _arguments in self.calls]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hosts:
    return Hosts(monkeypatch, tmp_path)


def fails() -> dict[str, Any]:
    return {"failed": True, "msg": "It was healthy, and then it was not."}


def watches(hosts: Hosts) -> dict[str, Any]:
    """Like a host in its watch: it goes back when it is told to."""
    hosts.watches.set()
    assert hosts.was_taken_back.wait(5)
    return {"changed": True, "taken_back": True}


def test_host_in_its_watch_is_taken_back_when_another_one_fails(hosts: Hosts) -> None:
    hosts.does = {"web1": fails, "web2": lambda: watches(hosts)}
    results: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: results.update(web2=hosts.run("web2")))
    thread.start()
    assert hosts.watches.wait(5)
    assert hosts.run("web1")["failed"]
    thread.join(10)
    assert results["web2"]["taken_back"]
    assert ("web1", "take_back") not in hosts.steps(), "the host that failed goes back by itself"
    back = next(arguments for _host, step, arguments in hosts.calls if step == "take_back")
    assert {name: back[name] for name in ("app", "root", "generation", "drain_seconds")} == {
        name: ARGUMENTS[name] for name in ("app", "root", "generation", "drain_seconds")
    }
    assert back["by"]
    assert "keep" not in back


READY = {"step": "take_back", "if_failed_on": ["web2", "web3"], "previous": "aaaaaaaaaaaa-00000000"}


def test_host_of_an_earlier_wave_goes_back_as_soon_as_one_fails(hosts: Hosts) -> None:
    hosts.does = {"web2": lambda: watches(hosts), "web3": fails}
    results: dict[str, Any] = {}
    threads = [
        threading.Thread(target=lambda: results.update(web1=hosts.run("web1", **READY))),
        threading.Thread(target=lambda: results.update(web2=hosts.run("web2"))),
    ]
    for thread in threads:
        thread.start()
    assert hosts.watches.wait(5)
    assert ("web1", "take_back") not in hosts.steps()
    assert hosts.run("web3")["failed"]
    for thread in threads:
        thread.join(10)
    assert results["web1"]["taken_back"]
    back = next(arguments for host, step, arguments in hosts.calls if (host, step) == ("web1", "take_back"))
    assert back["previous"] == READY["previous"]
    assert "if_failed_on" not in back


def test_host_of_an_earlier_wave_goes_back_when_the_only_host_of_the_next_one_fails(hosts: Hosts) -> None:
    hosts.does = {"web2": fails}
    hosts.run("web2")  # it is done before anybody looks
    assert hosts.run("web1", **{**READY, "if_failed_on": ["web2"]})["taken_back"]


def test_host_of_an_earlier_wave_is_left_alone_when_the_next_one_goes_well(hosts: Hosts) -> None:
    hosts.does = dict.fromkeys(("web2", "web3"), lambda: {"changed": True})
    results: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: results.update(web1=hosts.run("web1", **READY)))
    thread.start()
    hosts.run("web2")
    thread.join(0.5)
    assert thread.is_alive(), "it waits for all of them"
    hosts.run("web3")
    thread.join(5)
    assert results["web1"] == {"changed": False}
    assert hosts.steps() == [("web2", "switch"), ("web3", "switch")]


def test_host_of_an_earlier_wave_does_nothing_by_ansibles_own_way(hosts: Hosts) -> None:
    hosts.quick = False
    assert hosts.run("web1", **READY) == {"changed": False}


def test_host_whose_turn_comes_after_a_failure_does_not_begin(hosts: Hosts) -> None:
    hosts.does = {"web1": fails}
    hosts.run("web1")
    assert hosts.run("web2") == {"changed": False, "withheld": True}
    assert hosts.steps() == [("web1", "switch")]


def test_host_that_cannot_be_reached_is_a_failure_to_the_others(hosts: Hosts) -> None:
    def unreachable() -> dict[str, Any]:
        raise ConnectionError

    hosts.does = {"web1": unreachable}
    with pytest.raises(ConnectionError):
        hosts.run("web1")
    assert hosts.run("web2")["withheld"]


def test_all_goes_well(hosts: Hosts) -> None:
    hosts.does = dict.fromkeys(("web1", "web2"), lambda: {"changed": True})
    assert [hosts.run(host) for host in ("web1", "web2")] == [{"changed": True}] * 2
    assert hosts.steps() == [("web1", "switch"), ("web2", "switch")]


@pytest.mark.parametrize("changes", [{"together": False}, {"check": True}, {"app": "other"}])
def test_others_do_not_look_at_it(hosts: Hosts, changes: dict[str, Any]) -> None:
    hosts.does = {"web1": fails, "web2": lambda: {"changed": True}}
    hosts.run("web1")
    assert hosts.run("web2", **changes) == {"changed": True}


def test_ansibles_own_way_is_for_one_call_at_a_time(hosts: Hosts, tmp_path: Path) -> None:
    def fails_meanwhile() -> dict[str, Any]:
        (tmp_path / "wave-failed-shop").touch()
        return {"changed": True}

    hosts.quick = False
    hosts.does = {"web2": fails_meanwhile}
    assert hosts.run("web2") == {"changed": True}
    assert hosts.steps() == [("web2", "switch")]
