# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""One at a time on a host, also when the first one dies."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.exclusive import LockHeld, exclusive_lock

HOLD = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"


def test_second_one_waits_and_then_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / ".rollout.lock")
    with exclusive_lock(path, 0):
        began = time.monotonic()
        with pytest.raises(LockHeld), exclusive_lock(path, 0.3):
            pass
        assert time.monotonic() - began >= 0.3
    with exclusive_lock(path, 0):
        pass


def test_dead_holder_holds_nobody_up(tmp_path: Path) -> None:
    path = str(tmp_path / ".rollout.lock")
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LockHeld), exclusive_lock(path, 0):
            pass
        holder.kill()
        with exclusive_lock(path, 5):
            pass
