# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module process_run: what is run, and what is said when it is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import systemd
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.generations import Generations
from ansible_collections.thecodeforge.fastapi.plugins.modules import process_run as module
from fake_host import OLD, Host, with_processes

UNIT = f"forge.nightly@{OLD}.service"


class Answered(Exception):
    """What a module returns."""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path, monkeypatch)
    host.switch_to(OLD)
    with_processes(host, OLD, "forge.nightly@.service", "forge.nightly@.timer", "forge.worker@.service")
    monkeypatch.setattr(module, "Layout", lambda *_arguments: host.layout)
    return host


def run(host: Host, monkeypatch: pytest.MonkeyPatch, status: str = "0", **more: Any) -> dict[str, Any]:
    """Have it run, and end at once with an exit status."""
    asked = Path(host.layout.worker_states(OLD), "now.nightly")
    seen = []

    def properties(unit: str, *names: str) -> dict[str, str]:
        return {**host.systemd.properties(unit, *names), "ExecMainStatus": status}

    def start(units: list[str]) -> None:
        seen.append((units, asked.exists()))
        host.systemd.active.discard(UNIT)

    def answer(_module: object, **result: Any) -> None:
        raise Answered(result)

    host.systemd.on_start = start
    monkeypatch.setattr(systemd, "properties", properties)
    monkeypatch.setattr(basic.AnsibleModule, "exit_json", answer)
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", answer)
    arguments = {"app": "forge", "root": "/srv", "process": "nightly", "by": "ann@here", **more}
    with patch_module_args(arguments), pytest.raises(Answered) as caught:
        module.main()
    assert not os.path.exists(asked)
    return {"seen": seen, **caught.value.args[0]}


def last(host: Host) -> tuple[str, str, str]:
    event = Generations(host.layout).ledger()[-1]
    return event.action, event.by, event.result


def test_it_is_asked_for_and_written_down(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.systemd.wrote = ["done with hunter22-hunter22"]
    found = run(host, monkeypatch)
    assert found["seen"] == [([UNIT], True)]
    assert found["changed"]
    assert found["output"]
    assert "hunter22" not in str(found["output"])
    assert last(host) == ("run nightly", "ann@here", "ended")


def test_another_host_is_at_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.systemd.wrote = ["It runs on web2 since 2026-11-28 00:00:00 UTC."]
    found = run(host, monkeypatch, status="75")
    assert found["msg"] == "nightly was not run: another host is at it. It runs on web2 since 2026-11-28 00:00:00 UTC."
    assert last(host) == ("run nightly", "ann@here", "failed")


def test_what_cannot_be_run_is_a_sentence(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        run(host, monkeypatch, process="worker")["msg"]
        == f"'worker' is no process of {OLD} with a schedule; there is: nightly."
    )
    host.systemd.active.add(UNIT)
    assert run(host, monkeypatch)["msg"] == "nightly runs on this host already: wait for its end."
    host.nothing_was_released()
    assert run(host, monkeypatch)["msg"].startswith("Nothing was ever released on this host")


def test_why_it_failed_has_no_secret(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(verb: str, *_arguments: str, timeout: float = 0) -> str:
        raise systemd.SystemdError(f"{UNIT} did not {verb}: no queue at hunter22-hunter22")

    monkeypatch.setattr(systemd, "systemctl", refuses)
    found = run(host, monkeypatch)
    assert found["msg"] == f"nightly failed: {UNIT} did not start: no queue at ********."
    assert last(host) == ("run nightly", "ann@here", "failed")
