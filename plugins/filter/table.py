# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

DOCUMENTATION = r"""
name: table
short_description: Rows as lines of a table for people
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - Columns are as wide as their widest cell. The first row is the head.
options:
  _input:
    description: Rows of cells.
    type: list
    elements: list
    required: true
"""

EXAMPLES = r"""
- name: Show a table
  ansible.builtin.debug:
    msg: "{{ [['host', 'workers'], ['web1', 5]] | thecodeforge.fastapi.table }}"
"""

RETURN = r"""
_value:
  description: Lines.
  type: list
  elements: str
"""


def table(rows: list[list[Any]]) -> list[str]:
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"table": table}
