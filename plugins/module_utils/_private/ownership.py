# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a thing on a host is: what we make carries a mark with the app's name."""

from __future__ import annotations

import re

MARK = "Managed by thecodeforge.fastapi for app {app}"
MARKED = re.compile(r"\bManaged by thecodeforge\.fastapi for app ([a-z0-9-]+)")
EARLIER = "Written by thecodeforge.fastapi.service"  # first line of a unit file of earlier versions


def mark(app: str) -> str:
    return MARK.format(app=app)


def marked_app(text: str, unit: str = "") -> str:
    """Which app a text says that it belongs to; empty when it is none of ours.

    :param text: of a file's first line or more, or a comment.
    :param unit: name of the unit that it is the file of: earlier versions wrote no app, so its name says it.
    """
    found = MARKED.search(text)
    if found:
        return found[1]
    return re.split(r"[@.]", unit, maxsplit=1)[0] if EARLIER in text else ""
