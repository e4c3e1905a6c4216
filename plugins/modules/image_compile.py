#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: image_compile
short_description: Compile a dependency in a base image, on the controller
version_added: 1.1.0
description:
  - What M(thecodeforge.fastapi.compile) does on a host, for an image. The wheel belongs to the cache of the build; nothing of
    what compiling needs gets into an image.
author: The Code Forge (@thecodeforge)
options:
  requirement:
    description: What is compiled, for people, such as V(psycopg2==2.9.10).
    type: str
    required: true
  source:
    description: Its source and what building it needs, as M(thecodeforge.fastapi.build) has written them.
    type: path
    required: true
  platform:
    description: C(python), C(machine) and C(glibc) of the base image.
    type: dict
    required: true
  wheel_dir:
    description: Directory of the cache that the wheel belongs to.
    type: path
    required: true
  python:
    description: Interpreter of the base image.
    type: str
    required: true
  advice:
    description: What to do instead, for the message of a failure.
    type: str
    default: ""
  base:
    description: Name of the base image.
    type: str
    required: true
  image_platform:
    description: Platform of the base image, such as V(linux/arm64). Empty is the controller's own.
    type: str
    default: ""
  packages:
    description: Debian packages that compiling needs.
    type: list
    elements: str
    default: []
  tool:
    description: What runs it; the first of podman, buildah and docker that is there when empty.
    type: str
    default: ""
extends_documentation_fragment:
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Compile what has no wheel
  thecodeforge.fastapi.image_compile:
    requirement: "{{ item.requirement }}"
    source: "{{ item.source }}"
    platform: "{{ item.platform }}"
    wheel_dir: "{{ item.wheel_dir }}"
    python: "{{ item.python }}"
    base: docker.io/library/python:3.13-slim-trixie
    packages: [build-essential, libpq-dev]
  loop: "{{ build.to_compile }}"
"""

RETURN = r"""
wheel:
  description: Path of the wheel.
  returned: success
  type: str
"""

ARGUMENT_SPEC = {
    "requirement": {"type": "str", "required": True},
    "source": {"type": "path", "required": True},
    "platform": {"type": "dict", "required": True},
    "wheel_dir": {"type": "path", "required": True},
    "python": {"type": "str", "required": True},
    "advice": {"type": "str", "default": ""},
    "base": {"type": "str", "required": True},
    "image_platform": {"type": "str", "default": ""},
    "packages": {"type": "list", "elements": "str", "default": []},
    "tool": {"type": "str", "default": ""},
}
