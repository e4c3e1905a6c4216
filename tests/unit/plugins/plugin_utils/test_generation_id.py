# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The id of a generation says everything that decides what runs."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import GENERATION_ID
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.generation_id import generation_id
from hypothesis import given
from hypothesis import strategies as st

texts = st.text("ab=\n/", max_size=4)
files = st.dictionaries(st.text("ab/", max_size=3), texts, max_size=3)
inputs = st.fixed_dictionaries(
    {
        "release": st.sampled_from(["b1946ac92492", "000000000000"]),
        "layer": texts,
        "environment": texts,
        "files": files,
        "units": files,
        "commands": st.lists(texts, max_size=2),
    }
)


@given(inputs, inputs)
def test_generation_ids_are_the_same_exactly_when_all_inputs_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert GENERATION_ID.match(generation_id(**one))
    assert (generation_id(**one) == generation_id(**other)) == (one == other)
    backwards = {**one, "files": dict(reversed(one["files"].items())), "units": dict(reversed(one["units"].items()))}
    assert generation_id(**backwards) == generation_id(**one)


def test_id_of_a_generation_without_commands_is_that_of_earlier_versions() -> None:
    assert generation_id("b1946ac92492", "l1", "A=1\n", {"a": "b"}, {"c": "d"}) == "b1946ac92492-6675e6b7"


@pytest.mark.parametrize(
    "change",
    [
        {"release": "000000000000"},
        {"layer": "l2"},
        {"environment": "A=1\n"},
        {"files": {"gunicorn.conf.py": "workers = 4\n"}},
        {"files": {"gunicorn_conf.py": "workers = 3\n"}},
        {"units": {}},
        {"commands": ["python manage.py collectstatic"]},
        {"files": {"forge.socket": "[Socket]\n"}, "units": {"gunicorn.conf.py": "workers = 3\n"}},
    ],
)
def test_any_change_makes_another_generation(change: dict[str, Any]) -> None:
    inputs: dict[str, Any] = {
        "release": "b1946ac92492",
        "layer": "l1",
        "environment": "",
        "files": {"gunicorn.conf.py": "workers = 3\n"},
        "units": {"forge.socket": "[Socket]\n"},
    }
    assert generation_id(**{**inputs, **change}) != generation_id(**inputs)
