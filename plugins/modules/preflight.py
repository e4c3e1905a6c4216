#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Check the variables of a host before it is touched
version_added: 1.0.0
description:
  - Checks every variable that starts with C(forge_), on the controller, without connecting to the host.
  - Finds names that no role knows, values of the wrong type, values that refer to something undefined, settings
    that no environment can hold, and a target or database URL of the wrong form.
  - All problems are reported at once, a sentence each, and never with the value of a setting.
author: The Code Forge (@thecodeforge)
extends_documentation_fragment:
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Check the variables of the host
  thecodeforge.fastapi.preflight:
"""

RETURN = r"""
uses_database:
  description: Does a variable refer to C(forge_database_url), or give the database a name or a password?
  type: bool
  returned: success
"""
