# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is anything left to do for a generation? Compared by state, so that a run after a crash repairs what is half-done."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import serving
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.generations import Generations
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.records import LedgerEvent
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.serving import (
    is_converged,
    needs_new_socket,
    public_workers,
    serving_generation,
)
from fake_systemd import FakeSystemd, point, stage

LIVE, OTHER = "aaaaaaaaaaaa-00000000", "bbbbbbbbbbbb-00000000"
UNITS = {
    "forge.socket": "[Socket]\nListenStream=0.0.0.0:8000\nListenStream=/run/x.sock\n",
    "forge.service": "[Service]\n",
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    layout = Layout(str(tmp_path / "srv"), "forge", str(tmp_path / "units"), str(tmp_path / "run"))
    fake = FakeSystemd(layout)
    fake.install(monkeypatch)
    stage(layout, LIVE)
    point(layout, LIVE)
    Generations(layout).record_event(LedgerEvent(result="switched", generation=LIVE))
    for name, text in UNITS.items():
        (tmp_path / "units" / name).write_text(text)
    fake.enabled = {"forge.service", "forge.socket"}
    fake.active = {*fake.enabled, layout.service(LIVE)}
    fake.listens = ["/run/x.sock", "0.0.0.0:8000"]
    fake.open_private_socket(LIVE)
    return fake


def test_generation_that_serves_alone_and_will_after_a_boot_is_converged(host: FakeSystemd) -> None:
    assert is_converged(host.layout, LIVE, UNITS)
    assert not any(call[0] in ("start", "stop", "enable", "restart") for call in host.calls)


@pytest.mark.parametrize(
    "change",
    [
        lambda host: point(host.layout, OTHER),
        lambda host: host.active.discard(host.layout.service(LIVE)),
        lambda host: host.active.add(host.layout.service(OTHER)),
        lambda host: host.active.discard("forge.service"),
        lambda host: os.unlink(host.layout.private_socket(LIVE)),
        lambda host: host.active.discard("forge.socket"),
        lambda host: host.enabled.discard("forge.service"),
        lambda host: host.enabled.discard("forge.socket"),
        lambda host: host.listens.pop(),
        lambda host: Path(host.layout.units, "forge.socket").write_text("edited"),
        lambda host: Path(host.layout.units, "forge.service").unlink(),
        lambda host: Path(host.layout.ledger).unlink(),
        lambda host: Generations(host.layout).record_event(LedgerEvent(result="switched", generation=OTHER)),
    ],
)
def test_whatever_is_missing_it_has_not(host: FakeSystemd, change: Callable[[FakeSystemd], object]) -> None:
    change(host)
    assert not is_converged(host.layout, LIVE, UNITS)


def test_socket_moves_only_when_it_listens_elsewhere_or_not_at_all(host: FakeSystemd) -> None:
    assert not needs_new_socket(host.layout, UNITS)
    host.listens = ["0.0.0.0:9000"]
    assert needs_new_socket(host.layout, UNITS)
    host.active.discard("forge.socket")
    assert needs_new_socket(host.layout, UNITS), "an active service keeps it from being opened"


def test_worker_that_was_killed_is_not_counted(host: FakeSystemd, monkeypatch: pytest.MonkeyPatch) -> None:
    host.tick()
    assert public_workers(host.layout, LIVE) == 2
    monkeypatch.setattr(serving, "is_alive", lambda pid: pid == "100")
    assert public_workers(host.layout, LIVE) == 1


def test_what_serves_is_found_without_current(host: FakeSystemd) -> None:
    host.tick()
    assert serving_generation(host.layout) == LIVE
    host.active.add(host.layout.service(OTHER))
    os.unlink(host.layout.current)
    host.tick()
    assert serving_generation(host.layout) == LIVE, "the other one stands by"
    host.active.discard(host.layout.service(LIVE))
    assert serving_generation(host.layout) == ""


def test_what_serves_is_found_when_its_words_are_lost_too(host: FakeSystemd) -> None:
    os.unlink(host.layout.current)
    assert not Path(host.layout.worker_states(LIVE)).exists()
    assert serving_generation(host.layout) == LIVE


def test_workers_that_say_public_are_counted(host: FakeSystemd) -> None:
    states = Path(host.layout.worker_states(LIVE))
    states.mkdir(parents=True)
    for name, text in {"1": "public\n", "2": "public", "3": "standby", "4": "", "x": "public", "5": "publ\xff"}.items():
        (states / name).write_text(text, encoding="latin-1")
    assert public_workers(host.layout, LIVE) == 2
    assert public_workers(host.layout, OTHER) == 0
    assert public_workers(host.layout, "") == 0
