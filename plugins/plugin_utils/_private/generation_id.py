# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Id of a generation: the release's id, and a hash of the layer, the texts of environment, settings and units, and the commands."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def generation_id(
    release: str,
    layer: str,
    environment: str,
    files: dict[str, str],
    units: dict[str, str],
    commands: Sequence[str] = (),
) -> str:
    """Same inputs, same id; whatever differs in what runs, another id.

    :param commands: that each host runs once for the generation.
    """
    texts = {"layer": layer, "environment": environment}
    texts.update({f"files/{name}": text for name, text in files.items()})
    texts.update({f"units/{name}": text for name, text in units.items()})
    texts.update({f"commands/{number}": command for number, command in enumerate(commands)})
    hasher = hashlib.sha256()
    for name, text in sorted(texts.items()):
        for part in (name.encode(), text.encode()):
            hasher.update(len(part).to_bytes(8, "big") + part)
    return f"{release}-{hasher.hexdigest()[:8]}"
