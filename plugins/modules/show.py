#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

DOCUMENTATION = r"""
module: show
short_description: Print lines for people
version_added: 1.0.0
description:
  - Prints lines as they are, without the wrapping and quoting of ansible.builtin.debug.
author: The Code Forge (@thecodeforge)
options:
  lines:
    description: What to print.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Show a table
  thecodeforge.fastapi.show:
    lines: "{{ [['host', 'workers'], ['web1', 5]] | thecodeforge.fastapi.table }}"
"""

RETURN = r"""
"""
