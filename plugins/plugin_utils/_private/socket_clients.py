# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drop-in of the app's public socket, which says who may reach it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...module_utils._private.ownership import mark

EDGES = "# Its edges"


def drop_in(app: str, edges: Iterable[str], others: Iterable[str]) -> str:
    """
    :param edges: addresses of the edges; ``others`` those of everybody else.
    """
    of_edges = sorted(set(edges))
    lines = [
        f"# {mark(app)}: changes by hand are replaced",
        "[Socket]",
        "IPAddressDeny=any",
        EDGES,
        *(f"IPAddressAllow={each}" for each in of_edges),
        "# Its own host, and who is named in forge_clients",
        "IPAddressAllow=localhost",
        *(f"IPAddressAllow={each}" for each in sorted({*others} - {*of_edges})),
        "",
    ]
    return "\n".join(lines)


def edges_in(text: str) -> set[str]:
    """Addresses of edges in a drop-in; none in one of an earlier version, which does not tell them from the others."""
    return set(re.findall(r"^IPAddressAllow=(.+)$", text.partition(f"{EDGES}\n")[2].partition("#")[0], re.MULTILINE))
