# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release does not have, and what a run in the middle misses."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.thecodeforge.fastapi.plugins.filter.absent_paths import absent_paths
from ansible_collections.thecodeforge.fastapi.plugins.filter.given import given
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.archive import Entry, tar_bytes


def test_paths_that_a_release_does_not_have(tmp_path: Path) -> None:
    archive = tmp_path / "release.tar"
    archive.write_bytes(tar_bytes([Entry("alembic.ini"), Entry("migrations/versions/1.py")]))
    assert absent_paths(str(archive), ["alembic.ini", "./migrations", "migrations/versions/", "."]) == []
    assert absent_paths(str(archive), ["migration", "alembic.in", "../x"]) == ["migration", "alembic.in", "../x"]
    assert absent_paths("/nowhere", []) == []


def test_what_is_missing_is_named() -> None:
    assert given({"release": "x"}, "build") is True
    for nothing in ({}, False, []):
        with pytest.raises(AnsibleFilterError, match="The build is missing, because the run began in the middle"):
            given(nothing, "build")
