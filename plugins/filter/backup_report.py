# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from typing import Any

from .table import table

DOCUMENTATION = r"""
name: backup_report
short_description: Backups of a database server as lines for people
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - A row for each backup, how old the newest WAL, copy and drill are, and what is wrong.
options:
  _input:
    description: C(state) of M(thecodeforge.fastapi.backup_info).
    type: dict
    required: true
  problems:
    description: What the module says is wrong.
    type: list
    elements: str
    required: true
  host:
    description: Name of the host.
    type: str
    required: true
  cluster:
    description: The cluster, such as V(15/main).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show what there is
  thecodeforge.fastapi.show:
    lines: "{{ info.state | thecodeforge.fastapi.backup_report(problems=info.problems, host='db1', cluster='15/main') }}"
"""

RETURN = r"""
_value:
  description: Lines.
  type: list
  elements: str
"""


def backup_report(state: dict[str, Any], problems: list[str], host: str, cluster: str) -> list[str]:
    lines = [["host", "cluster", "backup", "kind", "ended", "seconds", "MiB"]]
    lines += [
        [
            host,
            cluster,
            os.path.basename(each["path"]),
            each["kind"],
            each["end"],
            f"{each['seconds']:g}",
            f"{each['bytes'] / 2**20:.1f}",
        ]
        for each in state["backups"]
    ]
    wal = state["wal_age"]
    ages = ["WAL was never received." if wal is None else f"WAL is received up to {age_text(wal)}."]
    if state["offsite"] and state["offsite_age"] is not None:
        ages.append(f"The newest copy in another place is of {age_text(state['offsite_age'])}.")
    good = state["drill"]["good"]
    if good:
        rows = sum(each["rows"] for each in good["tables"].values())
        ages.append(
            f"The last good drill was {age_text(state['drill']['age'])}: {good['bytes'] / 2**20:.0f} MiB in {good['seconds']:g} s, "
            f"{len(good['tables'])} tables with {rows} rows."
        )
    return [*table(lines), " ".join(ages), *problems]


def age_text(seconds: float) -> str:
    if seconds < 60:
        return "now"
    return f"{seconds / 60:.0f} minutes ago" if seconds < 7200 else f"{seconds / 3600:.0f} hours ago"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"backup_report": backup_report}
