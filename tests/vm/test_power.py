# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The power is cut at a step of a real deploy, and what was not written to the disk is lost.

QEMU is killed. What the guest has flushed to its disk by then is there after the boot; what its page cache alone had is not. To make
that as much as it can be, the guest writes back nothing by itself (ten minutes), and the state that each test begins with was
synced before. What a disk itself loses of its own cache without a flush is not tried: this machine keeps it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import REPOSITORY, ROWS, Machine, change, load

NOTHING_BY_ITSELF = """
    mount -o remount,commit=600 /
    sysctl -q vm.dirty_writeback_centisecs=60000 vm.dirty_expire_centisecs=60000 vm.dirty_background_ratio=80 vm.dirty_ratio=90
"""
REACHED = "forge: at the step"
# Is added to the unit whose function it stops. What it says on the console is read on this machine at once.
STOP = f"""

def _stop_at(function, moment, caller):
    import sys
    import threading
    import time

    def say():
        with open("/dev/ttyS0", "w") as console:
            console.write("{REACHED}\\n")

    def stop():
        say()
        time.sleep(900)

    def wrapped(*arguments, **named):
        if caller and sys._getframe(1).f_code.co_name != caller:
            return function(*arguments, **named)
        if moment == "before":
            stop()
        elif moment != "after":
            threading.Timer(float(moment), say).start()
        answer = function(*arguments, **named)
        if moment == "after":
            stop()
        return answer

    return wrapped

"""
# unit.function or unit.Class.function : before, after, or seconds after its begin : who calls it. And which one must serve at the
# boot: of a step between the two renames that the disk may or may not have seen it is either.
STEPS = {
    "the release is unpacked, and not in its place": ("staging.Staging.put_in_place:before", "old"),
    "the release is in its place, and not complete": ("staging.mark_complete:before", "old"),
    "the generation is written": ("staging.Staging.write_generation:after", "old"),
    "the candidate is healthy": ("candidate.Candidate.run_smoke_tests:after", "old"),
    "before the rename of current": ("switch.Switch.point_current:before", "old"),
    "after that rename, before its sync": ("layout.sync_directory:before:point_current", "either"),
    "after the switch": ("switch.Switch.point_current:after", "new"),
    "in the watch": ("switch.Switch.watch:1", "new"),
    "while the old one drains": ("switch.Switch.finish:0.3", "new"),
    "in the prune": ("generations.Generations._remove:after", "new"),
}


def collection_that_stops(directory: Path, step: str) -> Path:
    """A copy of the collection whose modules stop at a step, as Ansible's path to it."""
    copy = directory / "collections" / "ansible_collections" / "thecodeforge" / "fastapi"
    copy.mkdir(parents=True)
    for path in REPOSITORY.iterdir():
        if path.name == "plugins":
            shutil.copytree(path, copy / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.name in ("roles", "playbooks", "meta", "galaxy.yml"):
            (copy / path.name).symlink_to(path)
    function, moment, caller = (*step.split(":"), "")[:3]
    unit, _dot, name = function.partition(".")
    target = copy / "plugins" / "module_utils" / "_private" / f"{unit}.py"
    target.write_text(f"{target.read_text()}{STOP}{name} = _stop_at({name}, {moment!r}, {caller!r})\n")
    return directory / "collections"


@contextmanager
def deploying(machine: Machine, collections: Path, **extra: object) -> Iterator[subprocess.Popen[str]]:
    """A deploy that goes on until the block ends."""
    process = machine.start_play("deploy", collections, **extra)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_step(machine: Machine, process: subprocess.Popen[str], seconds: float = 600) -> None:
    ends = time.monotonic() + seconds
    while REACHED not in machine.vm.console.read_text(errors="replace"):
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < ends, "the step was not reached"
        time.sleep(0.01)


@pytest.fixture
def forgetful(kept: Machine) -> Machine:
    kept.run(NOTHING_BY_ITSELF)
    return kept


def test_what_was_not_synced_is_lost(forgetful: Machine) -> None:
    """The control: else the tests below would prove nothing."""
    forgetful.run("cd /root; head -c 100000 /dev/zero >synced; sync synced; head -c 100000 /dev/zero >unsynced")
    assert forgetful.run("cat /root/unsynced | wc -c") == "100000"
    forgetful.boot()
    sizes = forgetful.run("cd /root; cat synced | wc -c; cat unsynced 2>/dev/null | wc -c").split()
    ROWS.append(
        {
            "what": "power cut: two files were written, one of them synced",
            "happened": f"{' and '.join(sizes)} bytes are left",
        }
    )
    assert sizes == ["100000", "0"]


@pytest.fixture(scope="module")
def good(machine: Machine, source: Path) -> dict[str, dict[str, str]]:
    """What each of the two generations consists of, where nothing went wrong."""
    machine.again()
    old = machine.serving()
    contents = {old: machine.contents(old)}
    change(source, "after the cut")
    machine.play("deploy")
    new = machine.wait_until_served()
    return {**contents, new: machine.contents(new)}


@pytest.mark.parametrize("step", STEPS)
def test_power_cut_leaves_one_whole_generation(
    good: dict[str, dict[str, str]], forgetful: Machine, source: Path, tmp_path: Path, step: str
) -> None:
    old, new = good
    where, expected = STEPS[step]
    assert forgetful.serving() == old
    change(source, "after the cut")
    with deploying(forgetful, collection_that_stops(tmp_path, where)) as process:
        wait_for_step(forgetful, process)
        forgetful.vm.kill()
    forgetful.boot()
    serving = forgetful.wait_until_served()
    assert forgetful.contents(serving) == good[serving]
    assert serving in {"old": [old], "new": [new], "either": [old, new]}[expected]
    with load(forgetful, f"power cut: {step}") as row:
        run = forgetful.play("deploy")
        which = "old" if serving == old else "new"
        row["happened"] = f"the {which} one served at boot; the next deploy ended it, {run.seconds:.0f} s"
    assert forgetful.wait_until_served() == new
    assert forgetful.contents(new) == good[new]


def test_power_cut_right_after_a_first_release(kept: Machine, source: Path) -> None:
    """What was said to be done is done: also that the app starts at boot."""
    kept.play("remove", forge_remove="forge")
    kept.run(NOTHING_BY_ITSELF + "sync")
    change(source, "first of all")
    kept.play("site")
    served = kept.wait_until_served()
    kept.boot()
    assert kept.wait_until_served() == served
    ROWS.append({"what": "power cut: site.yml has just ended", "happened": "the first release serves after the boot"})
