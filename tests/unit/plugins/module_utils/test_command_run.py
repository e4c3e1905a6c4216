# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of an operator: its sandbox is that of what serves, its output has no secret, and it is written down."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import command_run as module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.command_run import CommandRun
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import StageError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.transient import TransientError
from fake_host import OLD, Host


@pytest.fixture
def started(host: Host, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What serves, and what systemd is asked of a command."""
    asked: dict[str, Any] = {"state": {"ActiveState": "active"}, "run": []}
    home = Path(host.layout.generation(OLD))
    (home / "environment").write_text('FORGE_SECRET_KEY="hunter22-hunter22"\n')
    unit = home / "units" / f"forge@{OLD}.service"
    unit.write_text("[Service]\nUser=forge\nMemoryMax=300M\nEnvironment=A=%i\nExecStart=/bin/true\nRestart=always\n")
    os.makedirs(host.layout.locks, exist_ok=True)
    monkeypatch.setattr(module, "serving_generation", lambda _layout: asked.get("live", OLD))
    monkeypatch.setattr(module.systemd, "run_transient", asked["run"].append, raising=False)
    monkeypatch.setattr(module.systemd, "forget", lambda _unit: None, raising=False)
    monkeypatch.setattr(module.systemd, "properties", lambda *_args: asked["state"])
    return asked


def test_it_runs_as_what_serves_would_and_ends_by_itself(host: Host, started: dict[str, Any]) -> None:
    run = CommandRun(host.layout, "0123456789ab")
    run.start("python -c 'print(1)'", 60, 0)
    run.start("true", 60, 100)
    first, second = started["run"]
    assert first[-6:] == ["--", "/usr/bin/env", "--", "python", "-c", "print(1)"]
    assert {"User=forge", "MemoryMax=300M", f"Environment=A={OLD}", "RuntimeMaxSec=60"} <= set(first)
    assert not [word for word in first if word.startswith(("Restart", "ExecStart"))]
    assert "MemoryMax=100M" in second
    assert "MemoryMax=300M" not in second
    with pytest.raises(TransientError, match="no closing quotation"):
        run.start("echo 'x", 60, 0)


def test_what_it_prints_comes_in_whole_lines_without_secrets(host: Host, started: dict[str, Any]) -> None:
    run = CommandRun(host.layout, "0123456789ab")
    assert run.read(0)["lines"] == []
    Path(run.log).write_text("key hunter22-hunter22\nhunter")
    found = run.read(0)
    assert (found["lines"], found["ended"]) == (["key ********"], False)
    Path(run.log).write_text("key hunter22-hunter22\nhunter22-hunter22 end")
    started["state"] = {"ActiveState": "failed", "ExecMainStatus": "3", "Result": "exit-code"}
    found = run.read(found["offset"])
    assert found == {**found, "lines": ["******** end"], "ended": True, "rc": 3, "reason": ""}
    run.end("shop --key hunter22-hunter22", "me@here", 1.5, found)
    event = module.Generations(host.layout).ledger()[-1]
    assert (event.action, event.result, event.reason, event.by) == (
        "run shop --key '********'",
        "failed",
        "exit code 3",
        "me@here",
    )
    assert not os.path.exists(run.log)


def test_output_that_a_dead_controller_has_left_goes_when_its_run_has_ended(
    host: Host, started: dict[str, Any]
) -> None:
    left = Path(host.layout.locks) / "command-000000000000.log"
    left.write_text("hunter22-hunter22")
    CommandRun(host.layout, "0123456789ab").start("true", 60, 0)
    assert left.exists(), "it still runs"
    started["state"] = {"ActiveState": "inactive"}
    CommandRun(host.layout, "0123456789ab").start("true", 60, 0)
    assert not left.exists()


def test_much_output_is_read_in_parts_before_it_has_ended(
    host: Host, started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 10)
    run = CommandRun(host.layout, "0123456789ab")
    Path(run.log).write_text("12345\n123456789\n")
    started["state"] = {"ActiveState": "inactive", "ExecMainStatus": "0"}
    offset, text = 0, ""
    for _look in range(5):
        found = run.read(offset)
        text, offset = text + "|".join(found["lines"]), found["offset"]
        if found["ended"]:
            break
    assert found["ended"]
    assert offset == 16


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ("timeout", "it took too long and was ended"),
        ("oom-kill", "it took more memory than it may and was ended"),
        ("signal", ""),
    ],
)
def test_why_it_was_ended_is_said(host: Host, started: dict[str, Any], result: str, reason: str) -> None:
    started["state"] = {"ActiveState": "failed", "ExecMainStatus": "15", "Result": result}
    assert CommandRun(host.layout, "0123456789ab").read(0)["reason"] == reason


def test_where_nothing_serves_there_is_nothing_to_run_with(host: Host, started: dict[str, Any]) -> None:
    started["live"] = ""
    with pytest.raises(StageError, match="Nothing was ever released on this host"):
        CommandRun(host.layout, "0123456789ab")
