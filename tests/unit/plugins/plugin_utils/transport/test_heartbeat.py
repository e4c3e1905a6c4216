# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes on in the background while a run lasts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.transport import heartbeat


def eventually(check: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not check() and time.monotonic() < deadline:
        time.sleep(0.02)
    return check()


def beats(path: Path) -> int:
    return len(path.read_text()) if path.exists() else 0


def record(path: Path) -> bool:
    with path.open("a") as handle:
        handle.write("x")
    return True


def test_it_beats_in_another_process_until_it_is_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "TICK", 0.02)
    log, end, pid = tmp_path / "log", tmp_path / "end", tmp_path / "pid"

    def beat() -> bool:
        if not pid.exists():
            pid.write_text(str(os.getpid()))
        return record(log)

    heartbeat.start(beat, interval=0.01, until=end.exists)
    assert eventually(lambda: beats(log) > 3)
    assert int(pid.read_text()) != os.getpid()
    end.touch()
    os.waitpid(int(pid.read_text()), 0)


def test_it_ends_when_a_beat_says_so_and_survives_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "TICK", 0.02)
    log, pid = tmp_path / "log", tmp_path / "pid"

    def beat() -> bool:
        if not pid.exists():
            pid.write_text(str(os.getpid()))
        record(log)
        if beats(log) == 1:
            raise OSError("no route to host")
        return beats(log) < 3

    heartbeat.start(beat, interval=0.01, until=lambda: False)
    assert eventually(lambda: beats(log) == 3)
    os.waitpid(int(pid.read_text()), 0)
    assert beats(log) == 3


def test_nobody_waits_for_it_by_a_pipe(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    end = tmp_path / "end"
    heartbeat.start(lambda: True, interval=60, until=end.exists)
    os.close(write_end)
    try:
        assert os.read(read_end, 1) == b""  # the other process has closed its copy too
    finally:
        os.close(read_end)
        end.touch()
