# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab knows about the machine it runs on: places, privileges, processes, locks, deadlines."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

PREFIX = "forge-lab-"
ROOT = Path(__file__).resolve().parents[3]
HOME = ROOT / "build" / "lab"  # every file of the lab
KEY = HOME / "ssh" / "id_ed25519"

CAP_SYS_RESOURCE = 24


class LabError(Exception):
    """Something the person at the keyboard can act on, in one sentence."""


def as_root(command: Sequence[str]) -> list[str]:
    """The command, through sudo for those who are not root (rootless networks cannot be reached by SSH)."""
    return list(command) if os.geteuid() == 0 else ["sudo", "-n", *command]


def run(
    command: Sequence[str],
    *,
    timeout: float = 60,
    check: bool = True,
    stdin: bytes | None = None,
    log: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end, within a deadline, and say in one sentence what went wrong."""
    shown = " ".join(command[:4])
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
        )
    except FileNotFoundError:
        raise LabError(f"{command[0]} is not installed; run `lab setup`.") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{shown} …` did not end within {timeout:.0f} s.") from None
    result = subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(result.stdout + result.stderr)
    if check and result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        if lines[-1].startswith("sudo:"):
            raise LabError(f"root is needed for `{shown} …`: become root or get sudo without a password.")
        where = f" (all of it: {log})" if log else ""
        raise LabError(f"`{shown} …` failed with {result.returncode}: {lines[-1]}{where}")
    return result


def podman(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return run(as_root(["podman", *arguments]), **options)  # type: ignore[arg-type]


def need(*programs: str) -> None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [program for program in programs if not shutil.which(program, path=path)]
    if missing:
        raise LabError(f"{', '.join(missing)} missing on this machine; run `lab setup`.")


def until(deadline: float, pause: float = 0.05) -> Iterator[float]:
    """Attempts until the deadline (a time.monotonic()); yields the seconds that are left."""
    while (left := deadline - time.monotonic()) > 0:
        yield left
        time.sleep(pause)


@contextmanager
def lock(name: str, timeout: float = 900) -> Iterator[None]:
    """One command at a time; survives `lab clean`, which deletes the file under those who wait."""
    path = HOME / "locks" / name
    told = False
    for _ in until(time.monotonic() + timeout, pause=0.1):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if not told:
                    say(f"another lab command is busy with {name}, waiting")
                    told = True
                continue
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return
    raise LabError(f"another lab command has held {path} for {timeout:.0f} s.")


@cache
def runtime_flags() -> tuple[str, ...]:
    """What this kernel and these privileges need before systemd boots in a container."""
    flags: list[str] = []
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():  # hybrid or v1: crun refuses
        need("runc")
        flags += ["--runtime", "runc"]
    bounding = next(
        line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")
    )
    if not int(bounding, 16) >> CAP_SYS_RESOURCE & 1:  # limits can only be lowered: podman's defaults are too high
        # podman lowers its own nproc to 32768 (seen: a hard limit of 96364, and 65536 is refused)
        for name, which, most in (("nofile", resource.RLIMIT_NOFILE, 1 << 20), ("nproc", resource.RLIMIT_NPROC, 32768)):
            hard = resource.getrlimit(which)[1]
            limit = most if hard == resource.RLIM_INFINITY else min(hard, most)
            flags += ["--ulimit", f"{name}={limit}:{limit}"]
    return tuple(flags)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
