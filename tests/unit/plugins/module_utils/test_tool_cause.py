# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first cause in what tools print."""

from __future__ import annotations

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.tool_cause import tool_cause

TRACEBACK = """\
Building wheel...
/x/setuptools/dist.py:5: SomeWarning: old license
running bdist_wheel
Traceback (most recent call last):
  File "<string>", line 11, in <module>
    backend.build()
    ^^^^^^^
hatchling.Missing: Readme file does not exist: README.md

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "x.py", line 1, in <module>
RuntimeError: it failed
"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (TRACEBACK, "hatchling.Missing: Readme file does not exist: README.md During"),
        (
            "gcc -c x.c\nx.c:1:10: fatal error: a.h: No such file or directory\n    1 | #include\n",
            "x.c:1:10: fatal error: a.h: No such",
        ),
        ("running build\nerror: Multiple top-level packages: ['a']\n", "error: Multiple top-level packages: ['a']"),
        (
            "Building wheel...\nCargo, the Rust package manager, is not installed.\nIt is needed.",
            "Cargo, the Rust package manager, is not",
        ),
        ("Building wheel...\nno compiler here\n", "no compiler here"),
        ("", ""),
    ],
)
def test_the_first_cause_comes_first(text: str, cause: str) -> None:
    assert tool_cause(text).startswith(cause)


def test_what_is_long_is_cut_at_its_end() -> None:
    said = tool_cause("word\n" * 99 + "error: " + "x " * 999)
    assert said.startswith("error: x x")
    assert len(said) <= 402
