# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options that say which cluster of PostgreSQL serves."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  cluster:
    description: The one that serves, version and name, such as V(15/main).
    type: str
    required: true
  port:
    description: Port of its server.
    type: int
    required: true
"""
