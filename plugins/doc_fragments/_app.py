# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options that say which app, and which generation of it."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  app:
    description: Name of the app.
    type: str
    required: true
  root:
    description: Directory that holds the apps.
    type: path
    required: true
"""

    HEALTH = r"""
options:
  health_path:
    description: What is asked of the generation on its private socket.
    type: str
    default: /healthz
  health_status:
    description: The status it must answer.
    type: int
    default: 200
"""

    GENERATION = r"""
options:
  generation:
    description: Id of a staged generation.
    type: str
    required: true
"""
