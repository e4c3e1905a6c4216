# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes an app off an edge."""

from __future__ import annotations

import platform

from .edge_config import HOME, Part, part_file
from .edge_host import Edge, EdgeError
from .layout import read_json
from .records import ProjectRecord
from .removal import Inventory, RemovalError, check_project


class EdgeRemoval:
    """
    :param project: whose app it is to be; None when that does not matter.
    :raises RemovalError: when it is another project's.
    """

    def __init__(self, app: str, project: ProjectRecord | None) -> None:
        self.edge = Edge(app)
        part = Part.from_dict(read_json(self.edge.prefix + part_file(app)))
        if project is not None and part.app:
            check_project(
                f"{HOME}/apps/{app}.json on {platform.node()}", ProjectRecord.from_dict(part.project), project
            )

    def find(self) -> Inventory:
        """What goes. Reads only."""
        found = Inventory()
        for path in self.edge.leftovers():
            found.add("path", path)
        return found

    def take_away(self, found: Inventory) -> None:
        """Remove the app; HAProxy is reloaded first, so that nothing refers to what goes.

        :raises RemovalError: when HAProxy does not take that.
        """
        try:
            self.edge.remove()
        except EdgeError as error:
            raise RemovalError(str(error)) from None
