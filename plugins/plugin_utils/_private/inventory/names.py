# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables that no role declares. Ansible passes over a misspelt one in silence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_names(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return a sentence for each name that is not known, with the known one that is nearest to it."""
    known = list(known)
    problems = []
    for name in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        hint = f" (did you mean {near[0]}?)" if near else ""
        problems.append(f"{name} is not a variable of this collection{hint}.")
    return problems
