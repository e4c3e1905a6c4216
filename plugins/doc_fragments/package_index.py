# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of where packages come from, for each module that asks an index."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  index_url:
    description: Package index; that of uv and pip when empty.
    type: str
    default: ""
  extra_index_urls:
    description: Further package indexes.
    type: list
    elements: str
    default: []
  proxy:
    description: Proxy for the package index and git; that of the environment when empty.
    type: str
    default: ""
  ca_bundle:
    description: CA bundle for the package index and git; the system's when empty.
    type: str
    default: ""
"""
