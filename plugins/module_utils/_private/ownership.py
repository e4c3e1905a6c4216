# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mark that everything carries which this collection makes: so it knows what is its own, and whose."""

from __future__ import annotations

import re

MARK = "Managed by thecodeforge.fastapi for app {app}"
MARKED = re.compile(r"Managed by thecodeforge\.fastapi for app ([a-z][a-z0-9-]{0,30})(?![a-z0-9-])")
EARLIER = "Written by thecodeforge.fastapi.service"  # of versions whose mark did not name the app


def mark(app: str) -> str:
    """Text for the first comment of a file, GECOS of an account, or a comment in a database."""
    return MARK.format(app=app)


def marked_app(text: str, unit: str = "") -> str:
    """Name of the app whose mark is in a text; empty when there is none.

    :param unit: name of the unit whose file the text is; the mark of earlier versions does not name the app.
    """
    found = MARKED.search(text)
    if found:
        return found[1]
    return re.split(r"[@.]", unit, maxsplit=1)[0] if EARLIER in text else ""
