# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any
from urllib.parse import quote

DOCUMENTATION = r"""
name: database_url
short_description: URL of a PostgreSQL database
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - Puts a URL together; characters that mean something in a URL are escaped.
options:
  _input:
    description: Name of the database.
    type: str
    required: true
  user:
    description: User of the database.
    type: str
    required: true
  password:
    description: Password of that user.
    type: str
    required: true
  host:
    description: Name or address of the host.
    type: str
    required: true
  port:
    description: Port of the server.
    type: int
    default: 5432
"""

EXAMPLES = r"""
- name: Show a URL
  ansible.builtin.debug:
    msg: "{{ 'forge' | thecodeforge.fastapi.database_url(user='forge', password='p@ss', host='192.0.2.7') }}"
    # postgresql://forge:p%40ss@192.0.2.7:5432/forge
"""

RETURN = r"""
_value:
  description: The URL.
  type: str
"""


def database_url(name: str, user: str, password: str, host: str, port: int = 5432) -> str:
    where = f"[{host}]" if ":" in host else host
    return f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{where}:{port}/{quote(name, safe='')}"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"database_url": database_url}
