# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mark that everything carries which this collection makes, and which project an installation is of."""

from __future__ import annotations

import dataclasses
import re

from .records import ProjectRecord

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


def is_same_project(installed: ProjectRecord, wanted: ProjectRecord) -> bool:
    """Whether what is installed and what is wanted are one project. Who has recorded nothing is not refused.

    Ids that were given decide alone. Then git: one history at the same place in it is one project, two origins are two.
    Then the project's name, its directory or the inventory, any of which may have changed.
    """
    empty = ProjectRecord()
    if empty in (installed, wanted):
        return True
    if installed.id and wanted.id:
        return installed.id == wanted.id
    is_one_history = is_shared(installed, wanted, "origin", "root")
    if is_one_history and installed.path == wanted.path:
        return True
    if installed.origin and wanted.origin and not is_one_history:
        return False
    return is_shared(installed, wanted, "name", "source", "inventory")


def is_shared(one: ProjectRecord, other: ProjectRecord, *names: str) -> bool:
    """Whether any of these fields is known of both, and the same."""
    return any(getattr(one, name) and getattr(one, name) == getattr(other, name) for name in names)


def updated(installed: ProjectRecord, wanted: ProjectRecord) -> ProjectRecord:
    """What is to be recorded: what is known now, and of the same project what was known before."""
    if not is_same_project(installed, wanted):
        return wanted
    known = {field.name: value for field, value in wanted.items() if value}
    return dataclasses.replace(installed, **known)
