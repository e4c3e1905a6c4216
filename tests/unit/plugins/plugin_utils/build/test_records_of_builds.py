# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A build's record survives being written, and docs/files.md has its keys."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.layer import Layer
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.records import (
    BuildRecord,
    read_record,
    write_record,
)

REPOSITORY = Path(__file__).parents[5]
LAYER = Layer("0123456789ab-py3.11", "/cache/layers/x.tar.gz", "ab" * 32, 3, "3.11.2", "x86_64", "2.36")
RECORD = BuildRecord(
    "0123456789ab", "c0ffee", True, "me@here", "/cache/x.tar.gz", "cd" * 32, ["."], ">=3.11", ["/cache/lock.txt"], "/shop",
    "/shop", ["dep==1"], {LAYER.platform.key: LAYER}, "2026-01-31T12:00:00Z",
)  # fmt: skip


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    assert read_record(tmp_path, RECORD.release) == RECORD


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"release": 1}'])
def test_what_is_no_record_is_built_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "x.json").write_text(text)
    with pytest.raises(BuildError, match=r"^Release x is not in the cache .*: build it again\.$"):
        read_record(tmp_path, "x")


def test_documented_keys_are_those_of_the_code() -> None:
    page = (REPOSITORY / "docs" / "files.md").read_text(encoding="utf-8").partition("## On the controller")[2]
    record, layer = page.split("A layer in it:")
    for section, document in ((record, BuildRecord), (layer, Layer)):
        keys = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert keys == [each.name for each in dataclasses.fields(document)]
