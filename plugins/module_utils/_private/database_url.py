# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which setting of an app is the URL of its PostgreSQL database. Also for the app's own Python."""

from __future__ import annotations

import re


def postgresql_url(settings: dict[str, str]) -> tuple[str, str]:
    """Name and value of the first setting that is a URL of PostgreSQL; both empty when none is."""
    found = (item for item in settings.items() if re.match(r"postgres(ql)?(\+\w+)?://", item[1]))
    return next(found, ("", ""))
