# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._private.environment import UnwritableError, full_name, write_environment

DOCUMENTATION = r"""
name: environment_file
short_description: Text of a systemd environment file from a mapping
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - Strings arrive in the process exactly as they are. Booleans, numbers, lists and mappings are written as
    pydantic-settings reads them.
options:
  _input:
    description: Names, without the prefix, to values.
    type: dict
    required: true
  prefix:
    description: Prefix of every name.
    type: str
    default: ""
  plain:
    description: Names that get no prefix, to values.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show an environment file
  ansible.builtin.debug:
    msg: "{{ {'DEBUG': false, 'TAGS': ['a', 'b']} | thecodeforge.fastapi.environment_file(prefix='FORGE_') }}"
"""

RETURN = r"""
_value:
  description: Text of the file.
  type: str
"""


def environment_file(variables: dict[str, Any], prefix: str = "", plain: dict[str, Any] | None = None) -> str:
    """See :func:`write_environment`.

    :raises AnsibleFilterError: naming the variable that cannot be written, without its value.
    """
    try:
        return write_environment(
            {**{full_name(name, prefix): value for name, value in variables.items()}, **(plain or {})}
        )
    except UnwritableError as error:
        raise AnsibleFilterError(f"forge_environment: {error}") from None


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"environment_file": environment_file}
