#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: image_base
short_description: Ask a base image which Python, processor and C library it has
version_added: 1.1.0
description:
  - Runs the image's own Python on the controller, with podman, buildah or docker, and pulls the image when it is not there.
  - Touches no host, and runs in check mode, too.
author: The Code Forge (@thecodeforge)
options:
  base:
    description: Name of the image.
    type: str
    required: true
  platforms:
    description: For which platforms it is asked, such as V(linux/arm64). Empty is the controller's own.
    type: list
    elements: str
    choices: [linux/amd64, linux/arm64]
    default: []
  tool:
    description: What runs it; the first of podman, buildah and docker that is there when empty.
    type: str
    default: ""
extends_documentation_fragment:
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Ask the base image
  thecodeforge.fastapi.image_base:
    base: docker.io/library/python:3.13-slim-trixie
  register: base
"""

RETURN = r"""
tool:
  description: What has run it.
  returned: success
  type: str
bases:
  description: What was asked, by the name of the image, and the platform where one was asked for.
  returned: success
  type: dict
  contains:
    platform:
      description: The platform that was asked for; empty when none was.
      type: str
    python:
      description: C(path) and C(version) of its Python, as M(thecodeforge.fastapi.host_info) says them of a host.
      type: dict
    machine:
      description: Its processor.
      type: str
    glibc:
      description: Version of its C library; empty when that is another one.
      type: str
"""

ARGUMENT_SPEC = {
    "base": {"type": "str", "required": True},
    "platforms": {"type": "list", "elements": "str", "choices": ["linux/amd64", "linux/arm64"], "default": []},
    "tool": {"type": "str", "default": ""},
}
