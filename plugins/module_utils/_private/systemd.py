# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The little of systemd that the modules need."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import Any

from .cause import first_cause
from .command import run

JOURNAL_LINES = 20_000  # of a unit's last ones that are looked at


class SystemdError(Exception):
    """Raised when systemctl refuses or takes too long; the text is its own message, or what its journal says of a job."""


def systemctl(*arguments: str, timeout: float = 120) -> str:
    """Run systemctl and return what it prints.

    :raises SystemdError: with systemctl's own message when it fails or takes longer than ``timeout`` seconds.
    """
    started = time.monotonic()
    try:
        done = run(["systemctl", *arguments], timeout=timeout)
    except subprocess.TimeoutExpired:
        raise SystemdError(f"systemctl {' '.join(arguments)} took longer than {timeout:g} s") from None
    if done.returncode != 0:
        message = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        failed = re.search(r"^(?:Job|A dependency job) for (\S+) (?:failed|canceled)", message, re.MULTILINE)
        if failed:  # and it only says where to look
            units = dict.fromkeys([failed[1], *(each for each in arguments[1:] if not each.startswith("-"))])
            _index, cause = first_cause([line for unit in units for line in journal(unit, started)])
            raise SystemdError(f"{failed[1]} did not {arguments[0]}: {cause or 'systemd does not say why'}")
        raise SystemdError(f"systemctl {' '.join(arguments)}: {message}")
    return done.stdout


def run_transient(arguments: list[str]) -> None:
    """Start a transient unit, and do not wait for its end.

    :raises SystemdError: when it does not start.
    """
    done = run(["systemd-run", *arguments], timeout=120)
    if done.returncode != 0:
        raise SystemdError((done.stderr or done.stdout).strip() or f"systemd-run: exit code {done.returncode}")


def forget(unit: str) -> None:
    """Let systemd forget a unit that has failed."""
    run(["systemctl", "reset-failed", unit])


def properties(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit, as strings; a unit that does not exist has ``ActiveState=inactive``."""
    shown = systemctl("show", unit, "--property", ",".join(names))
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def are_enabled(*units: str) -> bool:
    """Whether all of these start with the host. Asks the disk, as what systemd remembers does not see a link that was removed."""
    return run(["systemctl", "is-enabled", *units]).stdout.split() == ["enabled"] * len(units)


def instances(app: str, *patterns: str) -> list[str]:
    """Ids of the generations of an app whose web process runs, starts, stops or waits to be restarted."""
    shown = systemctl(
        "list-units", "--plain", "--no-legend", "--full", "--all",
        "--state=active,activating,deactivating,reloading", *(patterns or (f"{app}@*.service",)),
    )  # fmt: skip
    names = [line.split()[0] for line in shown.splitlines() if line.strip()]
    return sorted({name.partition("@")[2].rpartition(".")[0] for name in names})


def running(app: str) -> list[str]:
    """Ids of the generations of an app of which anything runs. A dot sets other processes apart from apps."""
    return instances(app, f"{app}@*.service", f"{app}.*@*.service", f"{app}.*@*.timer")


def states(*units: str) -> dict[str, str]:
    """Unit to its ActiveState."""
    shown = systemctl("show", "--property", "Id,ActiveState", *units) if units else ""
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.split("\n\n") if block.strip()]
    return {block["Id"]: block["ActiveState"] for block in blocks}


def is_schedule(text: str) -> bool:
    """Can systemd read this as OnCalendar=?"""
    return run(["systemd-analyze", "calendar", "--", text]).returncode == 0


def active_since(unit: str) -> float:
    """When a unit became active, in seconds of ``time.monotonic()``; 0 when it is not active."""
    shown = properties(unit, "ActiveState", "ActiveEnterTimestampMonotonic")
    if shown["ActiveState"] != "active":
        return 0.0
    return int(shown.get("ActiveEnterTimestampMonotonic") or 0) / 1e6


def journal(unit: str, since: float) -> list[str]:
    """All lines that a unit, or all that fit a pattern, wrote since a moment, in seconds of ``time.monotonic()``.

    Not by the clock, which somebody may have set meanwhile.
    """
    run(["journalctl", "--sync"], timeout=30)
    options = [
        "--no-pager",
        "--quiet",
        "--boot",
        "--output=json",
        "--output-fields=MESSAGE",
        f"--lines={JOURNAL_LINES}",
    ]
    entries = map(json.loads, run(["journalctl", *options, "--unit", unit], timeout=30).stdout.splitlines())
    return [
        line
        for entry in entries
        if int(entry["__MONOTONIC_TIMESTAMP"]) >= since * 1e6
        for line in message_of(entry).splitlines()
    ]


def message_of(entry: dict[str, Any]) -> str:
    """The text of an entry of the journal, which has bytes where it is none that can be shown."""
    text = entry.get("MESSAGE") or ""
    return bytes(text).decode(errors="replace") if isinstance(text, list) else str(text)
