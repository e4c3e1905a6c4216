#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: stage
short_description: Put a generation of an app on a host, next to the one that serves
version_added: 1.0.0
description:
  - Uploads what is missing on the host, unpacks the layer of dependencies and the release, and writes the generation's
    files and systemd units. Touches nothing that serves. Nothing is installed there with a tool, nor taken from an index.
  - Then runs the commands that the record has as C(release_commands), once for a generation. What they write to its C(release_paths)
    belongs to the generation and is read-only from then on. Each is stopped after 15 minutes.
  - Then loads the new code with the new settings, as the server will, in the service's own sandbox. Each setting
    that the app refuses is named with the rule, and never with its value.
  - Compares first. When the host has everything, that comparison is the only call to it.
  - Half-made layers and releases are never used. One counts once it is marked complete, which is done last.
author: The Code Forge (@thecodeforge)
options:
  group:
    description: Group that may read the environment file.
    type: str
    required: true
  python:
    description: Interpreter on the host that the layer is made for; not looked at with O(interpreter).
    type: str
    required: true
  interpreter:
    description: A standalone Python that the layer is made for, its C(id) and C(minor) version; empty for the host's own.
    type: dict
    default: {}
  generation:
    description: Id of the generation. When empty it is named after everything that decides what runs.
    type: str
    default: ""
  release:
    description: Id of the release.
    type: str
    required: true
  layer:
    description: Id of the layer.
    type: str
    required: true
  target:
    description: What the server loads.
    type: str
    required: true
  load_seconds:
    description: Seconds that loading may take.
    type: int
    default: 60
  project:
    description: What tells the project from others, keys of C(project.json).
    type: dict
    default: {}
  record:
    description: What the controller knows of this generation, keys of its C(release.json).
    type: dict
    default: {}
  environment:
    description: Text of the environment file. Never logged; a diff shows which names have changed.
    type: str
    required: true
  files:
    description: Other files of the generation, name to text.
    type: dict
    default: {}
  secret_files:
    description: Files of the generation that only O(group) may read, name to text. Never logged nor shown in a diff.
    type: dict
    default: {}
  units:
    description:
      - Unit files, name to text. Templates, but for C(<app>@.socket), are installed for this generation alone.
      - The others are shared by all generations; they are installed where missing, and repaired when this one is live.
    type: dict
    default: {}
  comparison:
    description: Result of this module in check mode, to save the comparison.
    type: dict
  _apply:
    description: For the action plugin, whether to do more than to compare.
    type: bool
    default: true
  blobs:
    description:
      - What may have to be uploaded. Keys are V(release), V(layer) and V(python), the standalone one.
      - Each has a C(path) on the controller and its C(sha256).
    type: dict
    default: {}
extends_documentation_fragment:
  - thecodeforge.fastapi._app
  - thecodeforge.fastapi._attributes
attributes:
  diff_mode:
    support: full
    details:
      - Shows what differs from what serves, and on a new host the names of files.
      - No value of the environment file or a settings file is in it.
"""

EXAMPLES = r"""
- name: Stage a generation
  thecodeforge.fastapi.stage:
    app: forge
    root: /srv
    group: forge
    python: /usr/bin/python3
    target: shop.main:app
    generation: 0123456789ab-01234567
    release: 0123456789ab
    layer: 0123456789ab-py3.11
    environment: "FORGE_DEBUG=false\n"
    files:
      gunicorn.conf.py: "workers = 3\n"
    units:
      forge@.service: "[Service]\nExecStart=/bin/true\n"
    blobs:
      release: {path: /tmp/release.tar, sha256: "..."}
"""

RETURN = r"""
generation:
  description: Id of the generation; that of its twin where a refresh has brought that into service.
  returned: always
  type: str
missing:
  description: What had to be made or done, of V(python), V(layer), V(release), V(generation), V(commands), V(validation).
  returned: always
  type: list
  elements: str
drifted:
  description: Files that were there with another content, mode or owner.
  returned: always
  type: list
  elements: str
live:
  description: Id of the generation that serves; empty when none does.
  returned: always
  type: str
converged:
  description: Does this generation serve, alone, and will it after a boot?
  returned: always
  type: bool
up_to_date:
  description: Has the host converged on it, with nothing missing and nothing drifted?
  returned: always
  type: bool
drains:
  description: Can what runs the app stand by and drain, so that a switch loses nothing?
  returned: always
  type: bool
sent_bytes:
  description: Bytes of releases and layers sent to the host.
  returned: always
  type: int
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.errors import StageError, tells_what_the_host_refuses
from ..module_utils._private.layout import GENERATION_ID
from ..module_utils._private.staging import Staging
from ..module_utils._private.systemd import SystemdError

ARGUMENT_SPEC = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "group": {"type": "str", "required": True},
    "python": {"type": "str", "required": True},
    "interpreter": {"type": "dict", "default": {}},
    "target": {"type": "str", "required": True},
    "load_seconds": {"type": "int", "default": 60},
    "generation": {"type": "str", "default": ""},
    "release": {"type": "str", "required": True},
    "layer": {"type": "str", "required": True},
    "project": {"type": "dict", "default": {}},
    "record": {"type": "dict", "default": {}},
    "environment": {"type": "str", "required": True, "no_log": True},
    "files": {"type": "dict", "default": {}},
    "secret_files": {"type": "dict", "default": {}, "no_log": True},
    "units": {"type": "dict", "default": {}},
    "blobs": {"type": "dict", "default": {}},
    "comparison": {"type": "dict"},
    "_apply": {"type": "bool", "default": True},
}


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    generation = module.params["generation"]
    if not GENERATION_ID.match(generation):
        module.fail_json(msg=f"{generation!r} is not the id of a generation.")
    os.umask(0o022)
    try:
        staging = Staging(module.params)
        comparison = staging.compare()
        changed = bool(comparison["missing"] or comparison["drifted"])
        result = {**comparison, "generation": staging.generation, "changed": changed, "sent_bytes": 0}
        if module._diff and changed:
            result["diff"] = staging.diff()
        if changed and module.params["_apply"] and not module.check_mode:
            staging.apply(comparison["missing"])
            result.update(staging.state())
    except (StageError, SystemdError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
