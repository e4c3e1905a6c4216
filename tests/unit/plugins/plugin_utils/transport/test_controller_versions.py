# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller whose Python or ansible-core is too old is told which version is needed."""

from __future__ import annotations

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.transport.controller import version_problems


@pytest.mark.parametrize(
    ("python", "ansible", "named"),
    [
        ((3, 11, 2), "2.19.0", []),
        ((3, 13, 5), "2.21.0.dev0", []),
        ((3, 10, 12), "2.17.14", ["Python 3.10, and 3.11", "ansible-core 2.17.14, and 2.19"]),
        ((3, 12, 3), "2.18.1", ["ansible-core 2.18.1, and 2.19"]),
    ],
)
def test_what_is_too_old_is_named(python: tuple[int, ...], ansible: str, named: list[str]) -> None:
    problems = version_problems(python, ansible)
    assert len(problems) == len(named)
    assert all(
        f"The controller has {each} or newer is needed: make" in problem
        for each, problem in zip(named, problems, strict=True)
    )
