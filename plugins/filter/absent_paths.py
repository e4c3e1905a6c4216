# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterable
from typing import Any

DOCUMENTATION = r"""
name: absent_paths
short_description: Which paths a release that was built does not have
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - Looked for in the archive of its code, so before a host is touched.
options:
  _input:
    description: Path of the archive, on the controller.
    type: path
    required: true
  paths:
    description: Files and directories, relative to the release.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Assert that the release has what migrations depend on
  ansible.builtin.assert:
    that: forge_build_result.code.path | thecodeforge.fastapi.absent_paths(paths=['alembic.ini']) | length == 0
"""

RETURN = r"""
_value:
  description: Those of O(paths) that are neither a file nor a directory there.
  type: list
  elements: str
"""


def absent_paths(archive: str, paths: Iterable[str]) -> list[str]:
    if not paths:
        return []
    with tarfile.open(archive) as opened:
        names = {posixpath.normpath(name) for name in opened.getnames()}
    return [path for path in paths if not has(names, posixpath.normpath(path))]


def has(names: set[str], path: str) -> bool:
    """Whether there is such a file, or one below a directory of that name."""
    return path in names or any(path == "." or name.startswith(path + "/") for name in names)


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"absent_paths": absent_paths}
