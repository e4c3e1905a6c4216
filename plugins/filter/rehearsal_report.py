# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from .table import table

DOCUMENTATION = r"""
name: rehearsal_report
short_description: A rehearsal as lines for people
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - How long the copy and the migrations took, which locks the app would have waited for, and whether going back works afterwards.
options:
  _input:
    description: C(forge_rehearsal_result) of the role rehearsal.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show how it went
  thecodeforge.fastapi.show:
    lines: "{{ forge_rehearsal_result | thecodeforge.fastapi.rehearsal_report }}"
"""

RETURN = r"""
_value:
  description: Lines.
  type: list
  elements: str
"""

WAITS = {"AccessExclusiveLock": "reads and writes"}


def rehearsal_report(result: dict[str, Any]) -> list[str]:
    copy, way_back = result["copy"], result["way_back"]
    lines = [
        f"Rehearsed on a copy of {copy['bytes'] >> 20} MiB, made in {copy['seconds']:g} s: the migrations took {result['seconds']:g} s."
    ]
    if result["locks_problem"]:
        lines.append(f"Nobody could look at the locks: {result['locks_problem']}.")
    elif not result["locks"]:
        lines.append("They held no lock that the app would wait for.")
    else:
        rows = [["lock on", "mode", "seconds", "what waits meanwhile"]]
        rows += [
            [each["table"], each["mode"], f"{each['seconds']:g}", WAITS.get(each["mode"], "writes")]
            for each in result["locks"]
        ]
        lines += table(rows)
    if not way_back:  # nothing else serves on that host
        return lines
    reason = f": {way_back['reason']}" if way_back.get("reason") else "."
    return [*lines, f"Going back to {way_back['release']} after these migrations {way_back['state']}{reason}"]


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"rehearsal_report": rehearsal_report}
