# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""One deploy at a time: the lock on a host, and who holds it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import layout as layout_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import lock_file
from ansible_collections.thecodeforge.fastapi.plugins.modules import deploy_lock as module
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.transport.controller import (
    Controller,
    is_dead,
    machine,
    start_of,
)

ANN = {"token": "m-1-1", "user": "ann", "host": "laptop", "machine": "m", "pid": 1}
BOB = {**ANN, "token": "m-2-2", "user": "bob", "pid": 2}


def pass_seconds(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the host count that many seconds more."""
    counted = lock_file.since_boot
    for each in (lock_file, module):
        monkeypatch.setattr(each, "since_boot", lambda: counted() + seconds)


class Answered(Exception):
    """What a module returns."""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    def exit_json(_module: object, **answer: Any) -> None:
        raise Answered(answer)

    def warn(_module: object, warning: str) -> None:
        warnings.append(warning)

    warnings: list[str] = []

    def fail_json(_module: object, **answer: Any) -> None:
        raise Answered({**answer, "failed": True})

    monkeypatch.setattr(basic.AnsibleModule, "exit_json", exit_json)
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", fail_json)
    monkeypatch.setattr(basic.AnsibleModule, "warn", warn)
    monkeypatch.setattr(layout_module.os, "fchown", lambda *_arguments: None)

    def call(owner: dict[str, Any], state: str = "held", **more: Any) -> dict[str, Any]:
        arguments = {"app": "forge", "root": str(tmp_path), "state": state, "reason": "deploy", "_owner": owner, **more}
        warnings.clear()
        with patch_module_args(arguments), pytest.raises(Answered) as caught:
            module.main()
        return {**caught.value.args[0], **({"warnings": list(warnings)} if warnings else {})}

    return call


def test_second_one_is_refused_and_told_who_holds_it(lock: Callable[..., dict[str, Any]]) -> None:
    first = lock(ANN)
    assert (first["changed"], first["refused"]) == (True, False)
    second = lock(BOB)
    assert (second["changed"], second["refused"]) == (False, True)
    assert second["holder"] == first["holder"]
    assert {"user": "ann", "host": "laptop", "reason": "deploy"}.items() <= second["holder"].items()


def test_who_waits_is_told_when_it_is_free_and_takes_nothing(
    lock: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    assert lock(BOB, "free")["refused"] is False
    assert not (tmp_path / "forge" / "lock.json").exists()
    lock(ANN)
    assert lock(BOB, "free")["refused"] is True
    assert lock(BOB, "free", _dead=ANN["token"])["refused"] is False
    lock(ANN, "released")
    assert lock(BOB, "free") == {"changed": False, "refused": False, "holder": {}, "seconds_left": 0.0}


def test_holder_may_take_it_again_and_keeps_its_since(
    lock: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lock(ANN)["holder"]
    pass_seconds(monkeypatch, 100)
    again = lock(ANN, seconds=600)
    assert (again["changed"], again["refused"]) == (False, False)
    assert again["holder"]["since"] == first["since"]
    assert again["seconds_left"] > 590


def test_heartbeat_refreshes_ones_own_and_takes_nothing(lock: Callable[..., dict[str, Any]]) -> None:
    assert lock(ANN, "refreshed")["refused"], "it was never taken, or given back, or broken"
    first = lock(ANN, seconds=60)["holder"]
    refreshed = lock(ANN, "refreshed", reason="", seconds=600)
    assert not refreshed["refused"]
    assert {key: refreshed["holder"][key] for key in (*ANN, "since", "reason")} == {
        key: first[key] for key in (*ANN, "since", "reason")
    }
    assert refreshed["seconds_left"] > 590
    assert lock(BOB, "refreshed")["refused"]
    lock(ANN, "released")
    assert lock(ANN, "refreshed")["refused"]


def test_only_the_holder_releases_it(lock: Callable[..., dict[str, Any]]) -> None:
    lock(ANN)
    assert not lock(BOB, "released")["changed"]
    assert lock(BOB)["refused"]
    assert lock(ANN, "released") == {"changed": True, "refused": False, "holder": {}, "seconds_left": 0.0}
    assert not lock(BOB)["refused"]


def test_nobody_breaks_the_lock_of_another_project(lock: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    shop, blog = {"origin": "git.example.org/shop"}, {"origin": "git.example.org/blog"}
    lock(ANN, project=shop)
    refused = lock(BOB, "broken", project=blog)
    assert refused["msg"].startswith("The lock is held by ann on laptop since ")
    assert refused["msg"].endswith(
        " for another project, git.example.org/shop: name your own app, or say with forge_take_over: [project] that it is the "
        "same. It was not broken."
    )
    assert lock(BOB)["refused"], "it is held"
    assert lock(BOB, "broken", project=shop)["changed"]
    lock(ANN, project=shop)
    assert lock(BOB, "broken", project=blog, take_over=["project"])["changed"]
    lock(ANN)
    (tmp_path / "forge" / "project.json").write_text(json.dumps(shop))
    assert lock(BOB, "broken", project=blog)["failed"], "of an earlier version: whose the installation is"


def test_anybody_may_break_it(lock: Callable[..., dict[str, Any]]) -> None:
    lock(ANN)
    assert lock(BOB, "broken")["changed"]
    assert not lock(BOB, "broken")["changed"]


def test_lock_of_a_controller_that_died_expires(
    lock: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(ANN, seconds=60)
    pass_seconds(monkeypatch, 59)
    assert lock(BOB)["refused"]
    pass_seconds(monkeypatch, 2)
    assert not lock(BOB)["refused"]


@pytest.mark.parametrize("step", [-3600, 3600, -(10**9)])
def test_clock_that_steps_changes_nothing(
    lock: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    lock(ANN, seconds=60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + step)
    assert 58 < lock(BOB)["seconds_left"] <= 60
    pass_seconds(monkeypatch, 61)
    assert not lock(BOB)["refused"]


def test_after_a_boot_of_the_host_a_lock_holds_as_long_as_it_could_from_there(
    lock: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(ANN, seconds=60)
    monkeypatch.setattr(lock_file, "boot_id", lambda: "another")
    monkeypatch.setattr(lock_file, "since_boot", lambda: 20.0)
    assert lock(BOB)["seconds_left"] == 40
    monkeypatch.setattr(lock_file, "since_boot", lambda: 61.0)
    assert not lock(BOB)["refused"]


@pytest.mark.parametrize(("ahead", "refused"), [(60, True), (-1, False), (3600, False), (9e12, False)])
def test_lock_of_an_earlier_version_holds_no_longer_than_that_took_it_for(
    lock: Callable[..., dict[str, Any]], tmp_path: Path, ahead: float, refused: bool
) -> None:
    path = tmp_path / "forge" / "lock.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**ANN, "expires": time.time() + ahead}))
    assert lock(BOB)["refused"] is refused


def test_lock_of_a_dead_process_is_taken_over_and_no_other(lock: Callable[..., dict[str, Any]]) -> None:
    lock(ANN)
    assert lock(BOB, _dead="m-3-3")["refused"]
    assert not lock(BOB, _dead=ANN["token"])["refused"]


BROKEN = [
    ("", "cannot be read as a lock"),
    ("{", "cannot be read as a lock"),
    ("[" * 100_000, "cannot be read as a lock"),
    ("[]", "does not say who holds the lock"),
    ('{"token": "x"}', "does not say who holds the lock"),
    ('{"token": "x", "expires": "soon"}', "does not say who holds the lock"),
    ('{"expires": 9e12}', "does not say who holds the lock"),
    ('{"token": "x", "expires": Infinity}', "does not say who holds the lock"),
    ('{"token": "x", "expires": NaN}', "does not say who holds the lock"),
    (f'{{"token": "x", "expires": 1{"0" * 400}}}', "does not say who holds the lock"),
    (f'{{"token": "x", "expires": 1{"0" * 5000}}}', "cannot be read as a lock"),
    ('{"token": ["x"], "expires": {}, "pid": "1", "since": null}', "does not say who holds the lock"),
    (json.dumps({"token": "x", "boot": lock_file.boot_id(), "seconds": 60, "refreshed": 9e12}), "later than now"),
    (b"\xff\xfe\x00", "cannot be read as a lock"),
    (None, "cannot be read as a lock"),
]


@pytest.mark.parametrize(("text", "problem"), BROKEN)
def test_broken_lock_file_holds_nobody_up_and_is_replaced(
    lock: Callable[..., dict[str, Any]], tmp_path: Path, text: str | bytes | None, problem: str
) -> None:
    path = tmp_path / "forge" / "lock.json"
    path.parent.mkdir()
    if text is None:
        path.mkdir()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    answer = lock(ANN)
    assert (answer["changed"], answer["refused"]) == (True, False)
    assert [problem in warning and str(path) in warning for warning in answer["warnings"]] == [True]
    assert json.loads(path.read_text())["user"] == "ann"
    assert "warnings" not in lock(BOB)


def test_broken_lock_file_is_removed_by_who_breaks_the_lock(
    lock: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "forge" / "lock.json"
    path.parent.mkdir()
    path.write_text("{")
    assert not lock(ANN, "released")["changed"]
    assert lock(ANN, "broken")["changed"]
    assert not path.exists()


def test_check_mode_takes_nothing(lock: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    assert not lock(ANN, _ansible_check_mode=True)["changed"]
    assert not (tmp_path / "forge").exists()
    lock(ANN)
    assert lock(BOB, _ansible_check_mode=True)["holder"]["user"] == "ann"


def test_lock_file_shows_no_more_than_who_and_why(lock: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    lock(ANN)
    written = json.loads((tmp_path / "forge" / "lock.json").read_text())
    assert set(written) == {*ANN, "reason", "since", "expires", "seconds", "boot", "refreshed", "project"}


def test_this_controller_is_alive() -> None:
    owner = Controller.this().as_owner()
    assert not is_dead(owner)
    assert str(Controller.this()).count("@") == 1


def test_process_that_ended_is_dead() -> None:
    child = subprocess.Popen(["sleep", "60"])
    holder = {"machine": machine(), "pid": child.pid, "token": f"{machine()}-{child.pid}-{start_of(child.pid)}"}
    assert not is_dead(holder)
    child.kill()
    child.wait()
    assert is_dead(holder)


def test_lock_that_is_taken_for_a_run_that_was_just_killed_is_dead() -> None:
    """The child that takes it goes on without its parent for a while."""
    child = subprocess.Popen(["sleep", "60"])
    child.kill()
    child.wait()
    assert is_dead(Controller("ann", "laptop", machine(), child.pid, start_of(child.pid)).as_owner())


def test_process_of_which_only_the_exit_code_is_left_is_dead() -> None:
    child = subprocess.Popen(["sleep", "60"])
    holder = {"machine": machine(), "pid": child.pid, "token": f"{machine()}-{child.pid}-{start_of(child.pid)}"}
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(holder)
    child.wait()


def test_later_process_with_the_same_number_is_another() -> None:
    pid = os.getpid()
    assert is_dead({"machine": machine(), "pid": pid, "token": f"{machine()}-{pid}-1"})


def test_nothing_is_known_of_processes_of_another_machine() -> None:
    assert not is_dead({"machine": "elsewhere", "pid": 1, "token": "elsewhere-1-1"})
