# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache on the controller, which several builds use at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build import cache as module


@pytest.mark.parametrize("when", ["before it is looked at", "before it is measured"])
def test_what_another_build_removes_meanwhile_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    entries = tmp_path / "environments"
    (entries / ".draft").mkdir(parents=True)
    (entries / ".draft" / "file").write_text("x")
    (entries / "kept").write_text("x" * 100)
    os.utime(entries / "kept", (1, 1))
    if when == "before it is measured":
        walk = os.walk

        def removed(path: Path) -> object:
            found = list(walk(path))
            (entries / ".draft" / "file").unlink(missing_ok=True)
            return iter(found)

        monkeypatch.setattr(module.os, "walk", removed)
    else:
        lstat = Path.lstat

        def gone(path: Path) -> os.stat_result:
            if path.name == ".draft":
                raise FileNotFoundError(path)
            return lstat(path)

        monkeypatch.setattr(Path, "lstat", gone)
    module.evict(tmp_path, 50, since=2)
    assert not (entries / "kept").exists()
