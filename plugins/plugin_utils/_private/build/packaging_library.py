# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The library ``packaging``, which ansible-core brings. Only ansible-test imports this file without it."""

from __future__ import annotations

try:
    from packaging.markers import Marker
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.tags import Tag, compatible_tags, cpython_tags
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
    from packaging.version import Version
except ImportError:

    def __getattr__(name: str) -> object:
        """Stands in for any of them."""
        return object

__all__ = (
    "InvalidRequirement",
    "InvalidSpecifier",
    "InvalidWheelFilename",
    "Marker",
    "Requirement",
    "SpecifierSet",
    "Tag",
    "Version",
    "canonicalize_name",
    "compatible_tags",
    "cpython_tags",
    "parse_wheel_filename",
)
