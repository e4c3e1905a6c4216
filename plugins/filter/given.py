# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: given
short_description: Whether an earlier task has given what this one needs
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - For a condition. It fails in one sentence where a run began in the middle of a playbook, or left tasks out.
options:
  _input:
    description: What is needed; empty when it is missing.
    type: raw
    required: true
  what:
    description: What it is, for people.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Stage
  ansible.builtin.import_role:
    name: thecodeforge.fastapi.release
    tasks_from: compare
  when: forge_build_result | default({}) | thecodeforge.fastapi.given('build')
"""

RETURN = r"""
_value:
  description: V(true).
  type: bool
"""


def given(value: Any, what: str) -> bool:
    """
    :raises AnsibleFilterError: when there is nothing.
    """
    if not value:
        raise AnsibleFilterError(
            f"The {what} is missing, because the run began in the middle of the playbook or left tasks out "
            "(--start-at-task, --step, --skip-tags): run the whole playbook."
        )
    return True


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"given": given}
