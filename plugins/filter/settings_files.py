# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._private.environment import UnwritableError, as_text

DOCUMENTATION = r"""
name: settings_files
short_description: Settings files of a generation, path to text
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - Text is taken as it is, lists and mappings are written as JSON.
options:
  _input:
    description: Files, as C(forge_files).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the files
  ansible.builtin.debug:
    msg: "{{ [{'name': 'settings.toml', 'content': 'debug = false'}] | thecodeforge.fastapi.settings_files }}"
"""

RETURN = r"""
_value:
  description: Path below the generation to text.
  type: dict
"""


def settings_files(files: list[dict[str, Any]]) -> dict[str, str]:
    """:raises AnsibleFilterError: naming the file whose content cannot be written, without its content."""
    try:
        return {f"files/{file['name']}": as_text(str(file["name"]), file["content"]) for file in files}
    except UnwritableError as error:
        raise AnsibleFilterError(f"forge_files: {error}") from None


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"settings_files": settings_files}
