# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments that several modules take. Their documentation is in the fragment package_index."""

from __future__ import annotations

from typing import Any

PACKAGE_INDEX: dict[str, dict[str, Any]] = {
    "cache": {"type": "str", "required": True},
    "index_url": {"type": "str", "default": "", "no_log": True},
    "extra_index_urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "proxy": {"type": "str", "default": "", "no_log": True},
    "ca_bundle": {"type": "str", "default": ""},
}
