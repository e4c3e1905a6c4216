# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

import hashlib
from typing import Any

DOCUMENTATION = r"""
name: generation_id
short_description: Id of a generation, from everything that decides what runs
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - The release's id, and a hash of the layer and of the texts of environment, settings and units.
options:
  _input:
    description: Id of the release.
    type: str
    required: true
  layer:
    description: Id of the layer.
    type: str
    required: true
  environment:
    description: Text of the environment file.
    type: str
    required: true
  files:
    description: Files of the generation, name to text.
    type: dict
    required: true
  units:
    description: Unit files, name to text. The id itself must not stand in them.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Name a generation
  ansible.builtin.debug:
    msg: "{{ 'b1946ac92492' | thecodeforge.fastapi.generation_id(layer='l', environment='', files={}, units={}) }}"
"""

RETURN = r"""
_value:
  description: Twelve and eight hexadecimal digits with a dash between.
  type: str
"""


def generation_id(release: str, layer: str, environment: str, files: dict[str, str], units: dict[str, str]) -> str:
    """Same inputs, same id; whatever differs in what runs, another id."""
    texts = {"layer": layer, "environment": environment}
    texts.update({f"files/{name}": text for name, text in files.items()})
    texts.update({f"units/{name}": text for name, text in units.items()})
    hasher = hashlib.sha256()
    for name, text in sorted(texts.items()):
        for part in (name.encode(), text.encode()):
            hasher.update(len(part).to_bytes(8, "big") + part)
    return f"{release}-{hasher.hexdigest()[:8]}"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"generation_id": generation_id}
