# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flags of a host, and the wait until nothing is under way."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ownership import mark
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.probe import HealthCheck
from ansible_collections.thecodeforge.fastapi.plugins.modules import absence

LIVE, OLD = "aaaaaaaaaaaa-00000000", "bbbbbbbbbbbb-00000000"


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    for generation in (LIVE, OLD):
        (tmp_path / "run" / "shop" / generation).mkdir(parents=True)
    (tmp_path / "run" / "shop" / f"{LIVE}.sock").touch()
    (tmp_path / "srv" / "shop").mkdir(parents=True)
    monkeypatch.setattr(absence, "write_atomically", lambda path, text, _mode: Path(path).write_bytes(text))
    return Layout(str(tmp_path / "srv"), "shop", str(tmp_path / "units"), str(tmp_path / "run"))


def test_flags_are_set_and_lifted_once(layout: Layout) -> None:
    page = Path(layout.maintenance)
    assert not absence.set_flag(layout.maintenance, "keep", "", check=False)
    assert absence.set_flag(layout.maintenance, "on", "<p>", check=True)
    assert not page.exists()
    assert absence.set_flag(layout.maintenance, "on", "<p>", check=False)
    assert not absence.set_flag(layout.maintenance, "on", "<p>", check=False)
    assert absence.set_flag(layout.maintenance, "on", "<p>New.", check=False)
    assert page.read_text() == "<p>New."
    assert not absence.set_flag(layout.maintenance, "keep", "", check=False)
    assert absence.set_flag(layout.maintenance, "off", "", check=False)
    assert not absence.set_flag(layout.maintenance, "off", "", check=False)
    assert not page.exists()


def test_what_is_under_way_is_what_the_workers_say(layout: Layout) -> None:
    states = Path(layout.worker_states(LIVE))
    assert absence.under_way(str(states)) == -1
    for pid, said in (("7", "2"), ("8", "1"), ("9", "")):  # the last one is being written
        (states / f"under-way-{pid}").write_text(said)
    assert absence.under_way(str(states)) == 3


def test_quiet_is_twice_nothing_in_every_generation(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    old, live = (Path(layout.worker_states(each), "under-way-7") for each in (OLD, LIVE))
    live.write_text("0")
    old.write_text("1")

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= 5:
            old.write_text("0")

    monkeypatch.setattr(absence.time, "sleep", sleep)
    monkeypatch.setattr(absence.time, "monotonic", lambda: now[0])
    assert absence.wait_until_quiet(layout, 2, 60) == 0
    assert now[0] == 6  # noticed after 2 + 1; quiet at 5 and at 6
    old.write_text("4")
    monkeypatch.setattr(absence.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert absence.wait_until_quiet(layout, 0, 10) == 4


@pytest.mark.parametrize(
    ("live", "workers", "health", "problem"),
    [
        ("", 0, "", "nothing was ever released there"),
        (LIVE, 0, "", f"no worker of {LIVE} accepts public requests"),
        (LIVE, 1, "it answers 500", "it answers 500"),
        (LIVE, 1, "", ""),
    ],
)
def test_a_host_serves_well_or_says_why_not(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, live: str, workers: int, health: str, problem: str
) -> None:
    monkeypatch.setattr(absence, "serving_generation", lambda _layout: live)
    monkeypatch.setattr(absence, "public_workers", lambda _layout, _generation: workers)
    monkeypatch.setattr(HealthCheck, "problem", lambda _self, _path: health)
    assert absence.problem_of(layout, HealthCheck("/healthz", 200)) == problem


def test_other_apps_of_the_host_are_those_that_serve(layout: Layout, tmp_path: Path) -> None:
    units = Path(layout.units)
    units.mkdir()

    def app(name: str, text: str = "", released: bool = True, drained: bool = False) -> None:
        home = tmp_path / "opt" / name
        home.mkdir(parents=True)
        if released:
            (home / "current").symlink_to("generations/x")
        if drained:
            (home / "drain").touch()
        start = (
            f'ExecStart=/bin/sh -c \'exec systemctl start "{name}@$$(basename "$$(readlink {home}/current)").target"\''
        )
        (units / f"{name}.service").write_text(f"# {text or mark(name)}: changes by hand are replaced.\n{start}\n")

    for name, options in {
        "shop": {}, "wiki": {}, "away": {"drained": True}, "new": {"released": False}, "theirs": {"text": "by hand"},
    }.items():  # fmt: skip
        app(name, **options)
    (units / "wiki@x.service").write_text(f"# {mark('wiki')}\n")
    assert absence.other_apps(layout) == ["wiki"]


def test_gate_waits_until_the_host_serves_well(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    now, problems = [0.0], ["it starts", "it starts", ""]
    monkeypatch.setattr(absence, "problem_of", lambda *_: problems[0] if len(problems) == 1 else problems.pop(0))
    monkeypatch.setattr(absence.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(absence.time, "monotonic", lambda: now[0])
    assert absence.wait_until_well(layout, HealthCheck(), 60) == ""
    assert now[0] == 2
    problems[:] = ["it is ill"]
    assert absence.wait_until_well(layout, HealthCheck(), 5) == "it is ill"
    assert now[0] == 7
