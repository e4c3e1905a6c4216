# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from ..plugin_utils._private.project import identity

DOCUMENTATION = r"""
name: project
short_description: What tells a project from others
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - Looks at the source on the controller. A host that has another project's app under the same name refuses this one.
options:
  _input:
    description: The source, as C(forge_source).
    type: str
    required: true
  directory:
    description: Directory within it, as C(forge_source_directory).
    type: str
    default: ""
  id:
    description: The project's own id, as C(forge_project).
    type: str
    default: ""
  inventory:
    description: Where the inventory comes from.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show what tells this project from others
  ansible.builtin.debug:
    msg: "{{ 'git+https://git.example.org/shop.git@v1' | thecodeforge.fastapi.project }}"
"""

RETURN = r"""
_value:
  description: C(id), C(origin), C(root), C(path), C(name), C(source) and C(inventory), each empty where it is not known.
  type: dict
"""


def project(source: str, directory: str = "", id: str = "", inventory: Iterable[str] = ()) -> dict[str, Any]:
    """See above."""
    sources = ",".join(os.path.abspath(each) for each in inventory if not each.endswith(","))
    return identity(str(source), str(directory), str(id), sources).to_dict()


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"project": project}
