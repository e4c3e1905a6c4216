#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: check_settings
short_description: Ask the app whether it accepts its settings, before any host is touched
version_added: 1.0.0
description:
  - Loads the app on the controller, in an environment of its locked dependencies, with the settings it will get.
    Settings that its pydantic-settings class refuses are named with the rule, and never with their value.
  - Whatever else may keep the app from loading on the controller does not count. The hosts validate the release again.
author: The Code Forge (@thecodeforge)
options:
  target:
    description: What Gunicorn loads.
    type: str
    required: true
  release:
    description: Id of the release; settings that it has accepted once are not asked for again.
    type: str
    required: true
  environment:
    description: Text of the environment file.
    type: str
    required: true
  made:
    description: Directories of the release that hosts make what is in.
    type: list
    elements: str
    default: []
  prefix:
    description: Prefix of the app's settings.
    type: str
    default: ""
  cache:
    description: Directory on the controller that keeps what was built.
    type: str
    required: true
extends_documentation_fragment:
  - thecodeforge.fastapi.package_index
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Check the settings
  thecodeforge.fastapi.check_settings:
    target: shop.main:app
    release: 0123456789ab
    environment: "FORGE_DEBUG=false\n"
    cache: ~/.cache/thecodeforge.fastapi
  run_once: true
"""

RETURN = r"""
unchecked:
  description: Why the settings could not be checked here; empty when they were.
  returned: success
  type: str
"""

ARGUMENT_SPEC = {
    "target": {"type": "str", "required": True},
    "release": {"type": "str", "required": True},
    "environment": {"type": "str", "required": True, "no_log": True},
    "made": {"type": "list", "elements": "str", "default": []},
    "prefix": {"type": "str", "default": ""},
    "cache": {"type": "str", "required": True},
    "index_url": {"type": "str", "default": "", "no_log": True},
    "extra_index_urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "proxy": {"type": "str", "default": "", "no_log": True},
    "ca_bundle": {"type": "str", "default": ""},
}
