# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of systemd's journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import systemd

SECOND = 1_000_000  # microseconds


def entry(at: float, message: object, clock: float = 0) -> str:
    """An entry of a program that wrote at a moment since the boot, whatever the clock said."""
    return json.dumps(
        {
            "__MONOTONIC_TIMESTAMP": str(int(at * SECOND)),
            "__REALTIME_TIMESTAMP": str(int(clock * SECOND)),
            "MESSAGE": message,
        }
    )


def test_a_journal_begins_at_a_moment_that_no_clock_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first and the last line the clock was set back by hours."""
    entries = [
        entry(7, "of an earlier try", clock=90_000),
        entry(10, "Traceback (most recent call last):\n  File", clock=90_003),
        entry(11, list("Fehler: caf\xe9".encode("latin-1")), clock=20_000),
        entry(12, None),
    ]
    (tmp_path / "entries").write_text("\n".join(entries) + "\n")
    program = tmp_path / "journalctl"
    program.write_text(f'#!/bin/sh\ncase " $* " in *" --sync "*) ;; *) cat {tmp_path}/entries;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert systemd.journal("shop@1.service", since=9.5) == [
        "Traceback (most recent call last):",
        "  File",
        "Fehler: caf\ufffd",
    ]
