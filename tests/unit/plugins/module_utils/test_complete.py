# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a layer or a release is complete."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.complete import (
    fingerprint,
    is_complete,
    mark_complete,
)


@pytest.mark.parametrize("change", ["new", "gone", "content", "mode", "time", "link"])
def test_fingerprint_sees_every_edit(tmp_path: Path, change: str) -> None:
    file = tmp_path / "package" / "main.py"
    file.parent.mkdir()
    file.write_text("one")
    os.utime(file, ns=(0, 0))
    mark_complete(str(tmp_path))
    before = fingerprint(str(tmp_path))
    assert is_complete(str(tmp_path))
    if change == "new":
        (tmp_path / "package" / "other.py").write_text("")
    elif change == "gone":
        file.unlink()
    elif change == "content":
        file.write_text("two")
    elif change == "mode":
        file.chmod(0o755)
    elif change == "time":
        os.utime(file, ns=(0, 1))
    else:
        file.unlink()
        file.symlink_to("one")
    assert fingerprint(str(tmp_path)) != before
    assert not is_complete(str(tmp_path))


def test_byte_code_is_no_edit(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    mark_complete(str(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "main.cpython-311.pyc").write_text("")
    assert is_complete(str(tmp_path))


def test_what_was_never_marked_is_not_complete(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    assert not is_complete(str(tmp_path))
    assert not is_complete(str(tmp_path / "none"))
