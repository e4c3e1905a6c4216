# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""One at a time on a host, also when the first one dies."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.exclusive import LockHeld, exclusive_lock

HOLD = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"


def test_second_one_waits_and_then_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "locks" / "rollout")
    with exclusive_lock(path, 0):
        began = time.monotonic()
        with pytest.raises(LockHeld), exclusive_lock(path, 0.3):
            pass
        assert time.monotonic() - began >= 0.3
    with exclusive_lock(path, 0):
        pass


def test_dead_holder_holds_nobody_up(tmp_path: Path) -> None:
    path = str(tmp_path / "locks" / "rollout")
    os.mkdir(os.path.dirname(path))
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LockHeld), exclusive_lock(path, 0):
            pass
        holder.kill()
        with exclusive_lock(path, 5):
            pass


@pytest.mark.parametrize("found", ["nothing", "open to all", "a file", "a link"])
def test_only_its_owner_can_open_the_file(tmp_path: Path, found: str) -> None:
    locks = tmp_path / "locks"
    if found == "open to all":
        locks.mkdir(mode=0o777)
    elif found == "a file":
        locks.touch()
    elif found == "a link":
        (tmp_path / "elsewhere").mkdir()
        locks.symlink_to(tmp_path / "elsewhere")
    with exclusive_lock(str(locks / "stage")):
        assert not locks.is_symlink()
        assert locks.stat().st_mode & 0o777 == 0o700
        assert (locks / "stage").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("found", ["link", "directory", "pipe", "of another user"])
def test_what_is_in_the_place_of_the_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    """A link is not followed."""
    lock = tmp_path / "locks" / "stage"
    (tmp_path / "locks").mkdir()
    if found == "link":
        lock.symlink_to(tmp_path / "victim")
    elif found == "directory":
        (lock / "x").mkdir(parents=True)
    elif found == "pipe":
        os.mkfifo(lock)
    else:
        lock.touch()
        theirs = lock.stat().st_ino
        lock.touch()
        me = os.geteuid()
        os.link(lock, tmp_path / "kept")  # so that the number is not given anew
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        monkeypatch.setattr(os, "chown", lambda path, *_owner: asked.append(path))
    asked: list[str] = []
    with exclusive_lock(str(lock)):
        assert lock.is_file()
        assert not lock.is_symlink()
    assert not (tmp_path / "victim").exists()
    if found == "of another user":
        assert lock.stat().st_ino != theirs
        assert asked == [str(tmp_path / "locks")], "and the directory becomes ours"


def test_lock_of_an_earlier_version_that_another_user_holds_holds_nobody_up(tmp_path: Path) -> None:
    with open(tmp_path / ".stage.lock", "w") as older:
        fcntl.flock(older, fcntl.LOCK_EX)
        with exclusive_lock(str(tmp_path / "locks" / "stage")):
            pass
