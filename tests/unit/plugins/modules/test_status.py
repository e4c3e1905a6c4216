# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module status: what is wrong on a host, in a sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.generations import Generations
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.records import LedgerEvent
from ansible_collections.thecodeforge.fastapi.plugins.modules import status as module
from fake_host import NEW, OLD, ORPHAN, Host, with_processes
from fake_systemd import point


class Answered(Exception):
    """What a module returns."""


@pytest.fixture
def host(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path, monkeypatch)
    generations = Generations(host.layout)
    generations.set_state(OLD, "good")
    for result in ("switching", "switched"):
        generations.record_event(LedgerEvent(action="deploy", by="ann@here", generation=OLD, result=result))
    host.switch_to(OLD)
    monkeypatch.setattr(module, "Layout", lambda *_arguments: host.layout)
    return host


def status(monkeypatch: pytest.MonkeyPatch, **more: Any) -> dict[str, Any]:
    def exit_json(_module: object, **result: Any) -> None:
        raise Answered(result)

    monkeypatch.setattr(basic.AnsibleModule, "exit_json", exit_json)
    with patch_module_args({"app": "forge", "root": "/srv", **more}), pytest.raises(Answered) as caught:
        module.main()
    return caught.value.args[0]


def test_what_serves_and_since_when(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    found = status(monkeypatch)
    assert (found["live"], found["healthy"], found["problem"], found["workers"]) == (OLD, True, "", 2)
    assert found["since"]
    assert (found["served"], found["previous"], found["lock"]) == ([OLD], "", {})
    assert sorted(found["generations"]) == [OLD, NEW]
    assert {"state": "good", "workers": 2, "schema": ""}.items() <= found["generations"][OLD].items()
    assert [(event["to"], event["by"], event["result"]) for event in found["history"]] == [
        (OLD, "ann@here", "switched")
    ]
    assert status(monkeypatch, history=0)["history"] == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda host: host.nothing_was_released(), "nothing was ever released here"),
        (lambda host: os.unlink(host.layout.current), rf"{OLD} serves, and \S+/current is no link to it"),
        (lambda host: point(host.layout, NEW), rf"{OLD} serves, and \S+/current names {NEW}"),
        (lambda host: os.unlink(host.layout.record(OLD)), rf"\S+/{OLD}/release.json cannot be read"),
        (
            lambda host: os.unlink(f"{host.layout.units}/forge@{OLD}.service"),
            rf"\S+/forge@{OLD}.service is missing or masked",
        ),
        (lambda host: host.systemd.active.discard("forge.socket"), "forge.socket is not active"),
        (
            lambda host: host.systemd.enabled.discard("forge.service"),
            "forge.service is not enabled, so that nothing .*",
        ),
        (
            lambda host: os.unlink(host.layout.private_socket(OLD)),
            rf"\S+/{OLD}.sock was removed: systemctl restart forge .*",
        ),
        (lambda host: host.systemd.active.discard(host.layout.service(OLD)), f"{OLD} does not run"),
        (lambda host: host.systemd.active.add(host.layout.service(ORPHAN)), f"{ORPHAN} runs beside it"),
        (
            lambda host: with_processes(host, OLD, "forge.worker@.service"),
            f"forge.worker@{OLD}.service should run and does not",
        ),
        (
            lambda host: (
                with_processes(host, OLD, "forge.nightly@.service", "forge.nightly@.timer"),
                host.systemd.active.add(f"forge.nightly@{OLD}.timer"),
                host.systemd.dies_at_start.add(f"forge.nightly@{OLD}.service"),
            ),
            f"forge.nightly@{OLD}.service has failed: see journalctl -u forge.nightly@{OLD}.service",
        ),
        (lambda host: host.answers.update({OLD: [500]}), "GET /healthz answered 500, not 200"),
        (lambda host: host.answers.update({OLD: [0]}), "it did not answer GET /healthz"),
    ],
)
def test_problem_is_a_sentence(
    host: Host, monkeypatch: pytest.MonkeyPatch, change: Callable[[Host], object], problem: str
) -> None:
    change(host)
    found = status(monkeypatch)
    assert not found["healthy"]
    assert re.fullmatch(problem, found["problem"])
