# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs of a generation: when it is alive, and how it stops."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import systemd
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import RolloutError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.masking import MASK
from fake_host import NEW, OLD, Host, with_processes


def test_command_of_a_timer_is_waited_for(host: Host) -> None:
    with_processes(host, OLD, "forge.nightly@.timer", "forge.nightly@.service")
    host.processes(OLD).install_units()
    running = f"forge.nightly@{OLD}.service"
    host.systemd.active |= {f"forge.nightly@{OLD}.timer", running}
    host.systemd.ends_after[running] = 3
    host.candidate().start()
    host.switch_to()
    assert host.systemd.ended == [running], "by itself, and not by a signal"


def test_journal_is_that_of_all_processes_with_secrets_masked(host: Host) -> None:
    host.systemd.wrote = ["key is hunter22-hunter22"]
    assert host.processes().journal() == [f"key is {MASK}"]
    with_processes(host, NEW, "forge.worker@.service")
    assert host.processes().journal() == [f"key is {MASK}"] * 2


def test_units_are_installed_once(host: Host) -> None:
    host.processes().install_units()
    assert ("daemon-reload",) in host.systemd.calls
    host.systemd.calls.clear()
    host.processes().install_units()
    assert host.systemd.calls == []


def test_shared_unit_of_what_serves_is_left_alone_for_a_candidate(host: Host) -> None:
    shared = Path(host.layout.units) / "forge.socket"
    shared.write_text("# of the live one\n")
    host.processes().install_units(own_only=True)
    assert shared.read_text() == "# of the live one\n"
    host.processes().install_units()
    assert "ListenStream" in shared.read_text()


def test_process_that_a_timer_starts_may_end(host: Host) -> None:
    with_processes(host, NEW, "forge.nightly@.timer", "forge.nightly@.service")
    host.processes().check_other_processes()
    with_processes(host, NEW, "forge.worker@.service")
    with pytest.raises(RolloutError, match=r"Process worker of .* exited \(status 3\)"):
        host.processes().check_other_processes()


@pytest.mark.parametrize(
    ("state", "restarts", "calls"),
    [
        (("activating", "auto-restart"), "0", ["stop"]),
        (("activating", "start"), "2", ["stop"]),
        (("activating", "start"), "0", []),
        (("active", "running"), "1", []),  # it serves
        (("failed", "failed"), "5", ["reset-failed"]),
        (("inactive", "dead"), "0", []),
    ],
)
def test_what_systemd_starts_over_and_over_is_started_anew(
    host: Host, monkeypatch: pytest.MonkeyPatch, state: tuple[str, str], restarts: str, calls: list[str]
) -> None:
    """A deploy may have mended it: without that its earlier ends would be told of the new start."""
    found = {"ActiveState": state[0], "SubState": state[1], "NRestarts": restarts}
    monkeypatch.setattr(systemd, "properties", lambda *_names: found)
    host.processes().start_web()
    service = host.layout.service(NEW)
    assert [verb for verb, *units in host.systemd.calls if units == [service] and verb != "start"] == calls
    assert ("start", "--no-block", service) in host.systemd.calls
