# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an app loads where it will run, and whether its server drains."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.filter.generation_units import generation_units
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import (
    app_check,
    systemd,
    validation,
)
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import StageError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.staging import Staging
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.transport.host_script import SentModules
from fake_staging import GENERATION, FakeTransient


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((0, json.dumps({"problems": ["FORGE_A is missing."], "settings": True})), "FORGE_A is missing. What served"),
        ((-11, "warming up\n"), r"shop.main:app died while it was loaded \(exit code -11\): warming up. What served"),
        (
            (1, "warming up\nMemoryError: too large\nbye\n"),
            r"\(exit code 1\): MemoryError: too large. Memory may have run out: .* What served",
        ),
        ((0, ""), "died while it was loaded"),
    ],
)
def test_app_that_does_not_load_is_not_validated(
    make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str], sentence: str
) -> None:
    monkeypatch.setattr(FakeTransient, "answer", answer)
    stage = make()
    with pytest.raises(StageError, match=sentence):
        stage.apply(stage.compare()["missing"])
    assert make().compare()["missing"] == ["validation"]


@pytest.mark.parametrize("drains", [True, False])
def test_generation_knows_whether_it_drains(
    make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch, drains: bool
) -> None:
    monkeypatch.setattr(FakeTransient, "answer", (0, f"warming up\n{json.dumps({'problems': [], 'drains': drains})}\n"))
    stage = make()
    stage.apply(stage.compare()["missing"])
    assert stage.layout.read_record(GENERATION).drains is drains
    assert make().compare()["drains"] is drains


def test_server_and_programs_are_asked_in_the_process_that_loads_the_app(make: Callable[..., Staging]) -> None:
    units = generation_units(
        "[Service]\n",
        "forge",
        {
            "worker": {"command": "LEVEL=1 'my prog' 100%", "count": 2},
            "nightly": {"command": "report", "schedule": "daily"},
        },
    )
    stage = make(units=units, record={"worker_class": "shop.W"})
    stage.apply(stage.compare()["missing"])
    ((_python, _dash, target, service),) = FakeTransient.asked
    assert target == "shop.main:app"
    assert json.loads(service) == {
        "server": "gunicorn",
        "configuration": f"{stage.home}/gunicorn.conf.py",
        "worker_class": "shop.W",
        "programs": {"worker.1": "my prog", "worker.2": "my prog", "nightly": "report"},
    }


ONCE = {
    "nightly": {"command": "A=1 report", "schedule": "*:0/5", "once": True},
    "beat": {"command": "beat 100%", "once": True},
}


def test_hosts_agree_on_who_runs_what_runs_once_for_the_fleet(make: Callable[..., Staging]) -> None:
    stage = make(units=generation_units("[Service]\n", "forge", ONCE))
    stage.apply(stage.compare()["missing"])
    loaded, *checks = FakeTransient.asked
    assert json.loads(loaded[-1])["programs"] == {"nightly": "report", "beat": "beat"}
    assert checks == [
        ["python", "-m", "forge_process", "scheduled", "forge", "nightly", "*:0/5", "--check"],
        ["python", "-m", "forge_process", "kept", "forge", "beat", "--check"],
    ]


def test_hosts_that_cannot_agree_are_said_before_migrations(
    make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_self: object, argv: list[str], *_more: object) -> tuple[int, str, float]:
        return (
            (1, "warming up\nthe hosts cannot agree: no\n", 0.1)
            if "--check" in argv
            else (0, FakeTransient.answer[1], 0.1)
        )

    monkeypatch.setattr(FakeTransient, "run", run)
    stage = make(units=generation_units("[Service]\n", "forge", ONCE))
    with pytest.raises(
        StageError, match=r"^forge_processes: nightly: once: the hosts cannot agree: no. What served before"
    ):
        stage.apply(stage.compare()["missing"])


def test_address_that_is_taken_is_said_before_migrations(
    make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "address_problem", lambda _layout, units: f"{sorted(units)} is taken.")
    stage = make(units={"forge.socket": "[Socket]\nListenStream=0.0.0.0:22\n"})
    with pytest.raises(StageError, match=r"^\['forge.socket'\] is taken. What served before still serves.$"):
        stage.apply(stage.compare()["missing"])
    assert FakeTransient.asked == []


@pytest.mark.parametrize(
    ("unit", "text", "sentence"),
    [
        ("forge@.service", "[Service]\nWorkingDirectory={release}/data\n", "forge_directory: the release has no directory data"),
        ("forge@.service", "[Service]\nReadWritePaths=/tmp /not-there\n", "forge_writable_paths: /not-there is not on this host"),
        (
            "forge.nightly@.timer",
            "[Timer]\nOnCalendar=sometimes\n",
            "forge_processes: nightly: systemd cannot read the schedule 'sometimes'",
        ),
    ],
)  # fmt: skip
def test_what_the_units_name_must_be_there(
    make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch, unit: str, text: str, sentence: str
) -> None:
    monkeypatch.setattr(systemd, "is_schedule", lambda text: text != "sometimes")
    units = {"forge@.service": "[Service]\n", unit: text.format(release=make().layout.release("0123456789ab"))}
    stage = make(units=units)
    with pytest.raises(StageError, match=f"^{sentence}"):
        stage.apply(stage.compare()["missing"])


@pytest.mark.parametrize(
    ("allowed", "value", "refused"), [("0\n", "yes", True), ("0\n", "no", False), ("500\n", "yes", False)]
)
def test_host_without_user_namespaces_is_said_before_migrations(
    make: Callable[..., Staging],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    allowed: str,
    value: str,
    refused: bool,
) -> None:
    (tmp_path / "max").write_text(allowed)
    monkeypatch.setattr(validation, "MAX_USER_NAMESPACES", str(tmp_path / "max"))
    stage = make(units={"forge@.service": f"[Service]\nPrivateUsers={value}\n"})
    if refused:
        with pytest.raises(
            StageError, match=r"user\.max_user_namespaces.*forge_sandbox: \{PrivateUsers: false\}\. What served"
        ):
            stage.apply(stage.compare()["missing"])
        assert FakeTransient.asked == []
    else:
        stage.apply(stage.compare()["missing"])
    monkeypatch.setattr(validation, "MAX_USER_NAMESPACES", str(tmp_path / "absent"))
    assert validation.user_namespaces() == 0


def test_script_for_the_apps_python_is_found_in_a_quick_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """There a module has no file: the validation reads the text that was sent."""
    text = inspect.getsource(app_check)
    monkeypatch.setattr(sys, "meta_path", [SentModules({"sent_app_check": text}), *sys.meta_path])
    try:
        assert inspect.getsource(importlib.import_module("sent_app_check")) == text
    finally:
        sys.modules.pop("sent_app_check", None)
