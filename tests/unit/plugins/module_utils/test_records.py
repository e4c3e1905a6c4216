# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents of a host: written with every key, and read whatever an older or newer version, or a hand, has written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.records import (
    Document,
    GenerationRecord,
    LedgerEvent,
    LockHolder,
    ProjectRecord,
)
from hypothesis import given
from hypothesis import strategies as st

REPOSITORY = Path(__file__).parents[4]
TYPES = {dict: "object", str: "string", int: "integer", float: "number", bool: "boolean", list: "list of strings"}
RECORD = GenerationRecord(
    generation="0123456789ab-01234567", release="0123456789ab", listen=["0.0.0.0:80"], workers=3, state="good", drains=False
)  # fmt: skip
EVENT = LedgerEvent(time="2026-01-01T00:00:00Z", action="deploy", previous="a", generation="b", seconds=1.5)
HOLDER = LockHolder(token="m-1-1", user="ann", pid=1, expires=5.0)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


@pytest.mark.parametrize("document", [RECORD, EVENT, HOLDER])
def test_what_is_written_is_read_back(document: Document) -> None:
    assert type(document).from_dict(json.loads(json.dumps(document.to_dict()))) == document


def test_keys_that_python_reserves() -> None:
    assert (EVENT.to_dict()["from"], EVENT.to_dict()["to"]) == ("a", "b")
    assert LedgerEvent.from_dict({"from": "x", "to": "y"}) == LedgerEvent(previous="x", generation="y")


@pytest.mark.parametrize("kind", [GenerationRecord, LedgerEvent, LockHolder, ProjectRecord])
@given(document=st.data())
def test_whatever_stands_there_has_the_right_types(kind: type[Document], document: st.DataObject) -> None:
    keys = list(kind().to_dict())
    found = document.draw(JSON | st.dictionaries(st.sampled_from([*keys, "unknown"]), JSON))
    read = kind.from_dict(found).to_dict()
    assert list(read) == keys
    assert [type(value) for value in read.values()] == [type(value) for value in kind().to_dict().values()]
    assert all(type(item) is str for item in read.get("listen", []))


def test_a_value_that_is_right_is_kept_beside_one_that_is_not() -> None:
    read = GenerationRecord.from_dict({"workers": "3", "listen": [1], "layer": None, "release": "r", "colour": "red"})
    assert read == GenerationRecord(release="r", state="staged")


def test_whole_seconds_are_seconds() -> None:
    assert LedgerEvent.from_dict({"seconds": 2}).seconds == 2.0
    assert LockHolder.from_dict({"expires": 7}).expires == 7.0
    assert LedgerEvent.from_dict({"seconds": True}).seconds == 0.0


@pytest.mark.parametrize(
    ("document", "state"), [({}, ""), (None, ""), ([1], ""), ({"release": "r"}, "staged"), ({"state": "bad"}, "bad")]
)
def test_only_what_stands_there_has_a_state(document: object, state: str) -> None:
    assert GenerationRecord.from_dict(document).state == state


def test_key_of_earlier_versions_is_read() -> None:
    assert GenerationRecord.from_dict({"loses": "It cannot drain."}).drop_warning == "It cannot drain."
    assert GenerationRecord.from_dict({"loses": "old", "drop_warning": "new"}).drop_warning == "new"
    assert "loses" not in RECORD.to_dict()


@pytest.mark.parametrize(
    ("file", "document"),
    [
        ("release.json", GenerationRecord()),
        ("project.json", ProjectRecord()),
        ("ledger.jsonl", LedgerEvent()),
        ("lock.json", LockHolder()),
    ],
)
def test_documentation_has_the_keys_in_their_order_and_with_their_types(file: str, document: Document) -> None:
    section = (REPOSITORY / "docs" / "files.md").read_text().partition(f"{file}`")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE)
    assert rows == [(key, TYPES[type(value)]) for key, value in document.to_dict().items()]
