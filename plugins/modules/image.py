#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: image
short_description: Make a container image of a release that was built
version_added: 1.1.0
description:
  - Puts the code and the layer that hosts get into an image, on the controller, with podman, buildah or docker. The same
    release on the same base gives the same image.
  - An image that would hold the value of a secret setting is refused; the place is named, and never the value.
author: The Code Forge (@thecodeforge)
options:
  name:
    description: Name and tag of the image. It gets a second tag, the id of the release.
    type: str
    required: true
  release:
    description: Id of the release, as M(thecodeforge.fastapi.build) returns it.
    type: str
    required: true
  base:
    description: Image that the C(Containerfile) starts from.
    type: str
    required: true
  layers:
    description:
      - Archive of the layer for each platform, such as V(linux/arm64). An empty one is the controller's own.
      - With several, the name is that of an index of their images.
    type: dict
    required: true
  files:
    description: C(Containerfile), and what else the build needs; name to text.
    type: dict
    required: true
  environment:
    description: Text of the environment file, to look for its secrets in the image. It does not get there.
    type: str
    default: ""
  secret_files:
    description: Settings files, name to text, to look for their secrets in the image. They do not get there.
    type: dict
    default: {}
  env_file:
    description: File on the controller that O(environment) is written to, as C(--env-file) of podman and docker takes it.
    type: str
    default: ""
  push:
    description: Push both tags to the registry that the name has?
    type: bool
    default: false
  tool:
    description: What makes it; the first of podman, buildah and docker that is there when empty.
    type: str
    default: ""
  cache:
    description: Directory on the controller that keeps what was built.
    type: str
    required: true
extends_documentation_fragment:
  - thecodeforge.fastapi.package_index
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Make an image
  thecodeforge.fastapi.image:
    name: registry.example.org/shop:1.4
    release: "{{ build.release }}"
    base: docker.io/library/python:3.13-slim-trixie
    layers:
      linux/amd64: "{{ build.hosts.amd64.blob.path }}"
      linux/arm64: "{{ build.hosts.arm64.blob.path }}"
    files:
      Containerfile: |
        FROM docker.io/library/python:3.13-slim-trixie
        ADD layer.tar.gz /app/layer/
        ADD release.tar.gz /app/release/
    cache: ~/.cache/thecodeforge.fastapi
"""

RETURN = r"""
id:
  description: Id of the image, a hash of all that is in it; in check mode that of the one that has the name now.
  returned: success
  type: str
tags:
  description: The two names of the image.
  returned: success
  type: list
  elements: str
"""

ARGUMENT_SPEC = {
    "name": {"type": "str", "required": True},
    "release": {"type": "str", "required": True},
    "base": {"type": "str", "required": True},
    "layers": {"type": "dict", "required": True},
    "files": {"type": "dict", "required": True},
    "environment": {"type": "str", "default": "", "no_log": True},
    "secret_files": {"type": "dict", "default": {}, "no_log": True},
    "env_file": {"type": "str", "default": ""},
    "push": {"type": "bool", "default": False},
    "tool": {"type": "str", "default": ""},
    "cache": {"type": "str", "required": True},
    "index_url": {"type": "str", "default": "", "no_log": True},
    "extra_index_urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "proxy": {"type": "str", "default": "", "no_log": True},
    "ca_bundle": {"type": "str", "default": ""},
}
