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

    CANDIDATE = r"""
options:
  health_passes:
    description: How many times in a row.
    type: int
    default: 1
  health_deadline:
    description: Seconds until the candidate must have answered.
    type: int
    default: 60
  smoke:
    description:
      - Requests that the candidate must answer after it is healthy. Each has a C(path), and may have a C(method), a
        C(body), C(headers), the C(status) it must answer, and a text that the answer C(contains).
    type: list
    elements: dict
    default: []
  smoke_command:
    description: A command that must succeed, run as the service; C(FORGE_SOCKET) is the private socket.
    type: str
    default: ""
"""

    GENERATION = r"""
options:
  generation:
    description: Id of a staged generation.
    type: str
    required: true
"""
