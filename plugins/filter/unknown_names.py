# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

import difflib
from typing import Any

DOCUMENTATION = r"""
name: unknown_names
short_description: Variables that no role knows, with what was probably meant
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - Ansible passes over a misspelt variable in silence. This finds it.
options:
  _input:
    description: Names of variables that are set.
    type: list
    elements: str
    required: true
  known:
    description: Names that the roles declare.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show what is misspelt
  ansible.builtin.debug:
    msg: "{{ ['forge_worker'] | thecodeforge.fastapi.unknown_names(['forge_workers']) }}"
    # ["forge_worker (did you mean forge_workers?)"]
"""

RETURN = r"""
_value:
  description: Each unknown name, with the nearest known one in parentheses.
  type: list
  elements: str
"""


def unknown_names(names: list[str], known: list[str]) -> list[str]:
    said = []
    for name in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        said.append(f"{name} (did you mean {near[0]}?)" if near else name)
    return said


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"unknown_names": unknown_names}
