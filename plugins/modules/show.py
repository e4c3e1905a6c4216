#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: show
short_description: Show lines for people
version_added: 1.0.0
description:
  - Prints lines as they are, without the wrapping and quoting of ansible.builtin.debug.
  - With another callback than Ansible's default one they are in the result only, which that callback prints in its way; one
    that writes JSON goes on to write JSON.
author: The Code Forge (@thecodeforge)
options:
  lines:
    description: What to print.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Show a table
  thecodeforge.fastapi.show:
    lines: "{{ [['host', 'workers'], ['web1', 5]] | thecodeforge.fastapi.table }}"
"""

RETURN = r"""
msg:
  description: The lines.
  returned: always
  type: str
"""

ARGUMENT_SPEC = {"lines": {"type": "list", "elements": "str", "required": True}}
