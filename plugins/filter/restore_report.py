# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from .table import table

DOCUMENTATION = r"""
name: restore_report
short_description: What was restored, beside what serves, as lines for people
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - A sentence, and a row for each table that differs; those that are the same are counted.
options:
  _input:
    description: What M(thecodeforge.fastapi.backup_restore) returns.
    type: dict
    required: true
  serves:
    description: The cluster that serves.
    type: str
    required: true
  restored:
    description: Name of the restored one.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show what was restored
  thecodeforge.fastapi.show:
    lines: "{{ result | thecodeforge.fastapi.restore_report(serves='15/main', restored='restored') }}"
"""

RETURN = r"""
_value:
  description: Lines.
  type: list
  elements: str
"""


def restore_report(result: dict[str, Any], serves: str, restored: str) -> list[str]:
    name = f"{serves.partition('/')[0]}/{restored}"
    reached = result["reached"] or "the base backup, as nothing was committed after it"
    lines = [
        f"Restored as {name} on port {result['port']}, {result['bytes'] >> 20} MiB in {result['seconds']} s, up to {reached}. "
        f"{serves} serves as before."
    ]
    different = [
        each
        for each in result["tables"]
        if each["rows"] != each["restored_rows"] or each["newest"] != each["restored_newest"]
    ]
    if different:
        rows = [["table", "rows", "restored", "newest", "restored"]]
        rows += [
            [
                "" if each[key] is None else str(each[key])
                for key in ("table", "rows", "restored_rows", "newest", "restored_newest")
            ]
            for each in different
        ]
        lines += table(rows)
    same = len(result["tables"]) - len(different)
    return [*lines, f"{same} tables are the same."] if same else lines


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"restore_report": restore_report}
