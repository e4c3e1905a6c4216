#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: build
short_description: Build an app once, on the controller
version_added: 1.0.0
description:
  - Makes the archive of the code, and for each platform of the fleet a layer, the archive of the locked dependencies
    as a host has them, every wheel checked against its hash in the lock. Cached by content.
  - Runs on the controller, touches no host, and also runs in check mode, because the plan needs the ids.
author: The Code Forge (@thecodeforge)
options:
  source:
    description: A directory, a git URL at a ref, a wheel, a requirement, or an artifact (path or address).
    type: str
    required: true
  directory:
    description: Directory within the source that holds the app.
    type: str
    default: ""
  sha256:
    description: Hash of an artifact; required when it is an address.
    type: str
    default: ""
  extras:
    description: Optional dependencies of the project.
    type: list
    elements: str
    default: []
  groups:
    description: Dependency groups of the project.
    type: list
    elements: str
    default: []
  lock:
    description: File that says which versions, relative to the project; V("") for the first that is there.
    type: str
    default: ""
  dirty:
    description: May the source have changes that are not committed?
    type: bool
    default: true
  target:
    description: What the server loads, such as V(package.module:app).
    type: str
    required: true
  server:
    description: Which server runs the app; what it needs is added to the layer where the app's lock lacks it.
    type: str
    default: gunicorn
  server_requirements:
    description: Requirements that are added from here.
    type: list
    elements: str
    default: []
  hosts:
    description: Name of each host to what M(thecodeforge.fastapi.host_info) says of it.
    type: dict
    required: true
  exclude:
    description: Files and directories of the source that do not belong to a release.
    type: list
    elements: str
    default: []
  include:
    description: Files, directories and patterns of the source that belong to a release although git ignores them.
    type: list
    elements: str
    default: []
  commands:
    description:
      - Commands that make what a release needs besides its source. They run on the controller in a copy of the source, in order and
        without a shell; what they make or change there belongs to the release.
      - Each of them is stopped after 30 minutes.
    type: list
    elements: str
    default: []
  compile:
    description:
      - Return what neither has a wheel nor can be built on the controller as RV(to_compile), for
        M(thecodeforge.fastapi.compile). Without it that is a failure.
    type: bool
    default: false
  artifact:
    description: File to write the whole release to.
    type: str
    default: ""
  cache_mb:
    description: What the cache may hold; V(0) for no limit.
    type: int
    default: 0
  cache:
    description: Directory on the controller that keeps what was built.
    type: str
    required: true
extends_documentation_fragment:
  - thecodeforge.fastapi.package_index
  - thecodeforge.fastapi._attributes
attributes:
  check_mode:
    support: full
    details: Builds into the cache in check mode too.
"""

EXAMPLES = r"""
- name: Build the app
  thecodeforge.fastapi.build:
    source: /home/me/shop
    target: shop.main:app
    hosts: {web1: "{{ hostvars['web1']['forge_host_facts'] }}"}
    cache: ~/.cache/thecodeforge.fastapi
  run_once: true
"""

RETURN = r"""
release:
  description: Id of the release, a hash of code and lock.
  returned: success
  type: str
commit:
  description: Commit of the source; empty outside of git.
  returned: success
  type: str
dirty:
  description: Has the source changes that are not committed?
  returned: success
  type: bool
code:
  description: C(path) and C(sha256) of the archive of the code.
  returned: success
  type: dict
import_paths:
  description: Directories of the release that belong on C(sys.path).
  returned: success
  type: list
  elements: str
hosts:
  description: For each host the C(layer)'s id, its C(blob) (C(path) and C(sha256)), and the number of C(packages).
  returned: success
  type: dict
builder:
  description: Who built it, and where.
  returned: success
  type: str
locks:
  description: Files with the versions and hashes that were built.
  returned: success
  type: list
  elements: str
notes:
  description: What the user should know, such as where a lock was made.
  returned: success
  type: list
  elements: str
to_compile:
  description:
    - What has to be compiled first; the other values are not there then.
    - A list; of each the C(host) and arguments of M(thecodeforge.fastapi.compile).
  returned: success
  type: list
  elements: dict
created:
  description: What was not in the cache.
  returned: success
  type: list
  elements: str
"""

ARGUMENT_SPEC = {
    "source": {"type": "str", "required": True},
    "directory": {"type": "str", "default": ""},
    "sha256": {"type": "str", "default": ""},
    "extras": {"type": "list", "elements": "str", "default": []},
    "groups": {"type": "list", "elements": "str", "default": []},
    "lock": {"type": "str", "default": ""},
    "dirty": {"type": "bool", "default": True},
    "target": {"type": "str", "required": True},
    "server": {"type": "str", "default": "gunicorn"},
    "server_requirements": {"type": "list", "elements": "str", "default": []},
    "hosts": {"type": "dict", "required": True},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "include": {"type": "list", "elements": "str", "default": []},
    "commands": {"type": "list", "elements": "str", "default": []},
    "compile": {"type": "bool", "default": False},
    "artifact": {"type": "str", "default": ""},
    "cache_mb": {"type": "int", "default": 0},
    "cache": {"type": "str", "required": True},
    "index_url": {"type": "str", "default": "", "no_log": True},
    "extra_index_urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "proxy": {"type": "str", "default": "", "no_log": True},
    "ca_bundle": {"type": "str", "default": ""},
}
