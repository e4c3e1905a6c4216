# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The library ``packaging``, which ansible-core brings; a very old one cannot be imported by a new Python."""

from __future__ import annotations

try:
    from packaging.markers import Marker
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.tags import Tag, compatible_tags, cpython_tags
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
    from packaging.version import Version

    PROBLEM = ""
except ImportError as error:
    PROBLEM = str(error)

    def __getattr__(name: str) -> object:
        """Stands in for any of them, so that whoever imports this can say what is wrong."""
        return object


__all__ = (
    "PROBLEM",
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
