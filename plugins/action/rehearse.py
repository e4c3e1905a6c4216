# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module in one quick call."""

from __future__ import annotations

from ..plugin_utils._private.transport.host_call import HostAction


class ActionModule(HostAction):
    """See the documentation of the module ``thecodeforge.fastapi.rehearse``."""

    MODULE = "rehearse"
