# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Names of variables that no role declares. Ansible passes over a misspelt one in silence."""

from __future__ import annotations

import difflib


def unknown_names(names: list[str], known: list[str]) -> list[str]:
    said = []
    for name in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        said.append(f"{name} (did you mean {near[0]}?)" if near else name)
    return said
