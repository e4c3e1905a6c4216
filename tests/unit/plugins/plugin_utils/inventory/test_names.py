# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables that no role declares."""

from __future__ import annotations

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.inventory.names import (
    prefix_hints,
    unknown_names,
)


def test_each_unknown_name_is_said_with_what_was_meant() -> None:
    known = ["forge_environment", "forge_listen", "forge_workers"]
    assert unknown_names(["forge_listen", "forge_enviroment", "forge_worker", "forge_xyzzy"], known) == [
        "forge_enviroment is not a variable of this collection (did you mean forge_environment?).",
        "forge_worker is not a variable of this collection (did you mean forge_workers?).",
        "forge_xyzzy is not a variable of this collection.",
    ]


def test_known_names_are_let_through() -> None:
    assert unknown_names({"forge_listen"}, {"forge_listen": {}}) == []


@pytest.mark.parametrize(
    ("missing", "given", "prefix", "hint"),
    [
        ("FORGE_SECRET_KEY", ["FORGE_FORGE_SECRET_KEY"], "FORGE_", "so call it SECRET_KEY there."),
        ("FORGE_SECRET_KEY", ["SECRET_KEY"], "FORGE_", "call it FORGE_SECRET_KEY in forge_environment_plain."),
        ("SHOP_SECRET_KEY", ["FORGE_SECRET_KEY"], "FORGE_", "for the app it must be 'SHOP_'."),
        ("SECRET_KEY", ["FORGE_SECRET_KEY"], "FORGE_", "for the app it must be ''."),
        ("FORGE_SECRET_KEY", ["FORGE_DEBUG"], "FORGE_", ""),
        ("SECRET_KEY", ["DEBUG"], "", ""),
    ],
)
def test_setting_that_was_given_under_another_prefix_is_named(
    missing: str, given: list[str], prefix: str, hint: str
) -> None:
    hints = prefix_hints([f"{missing} is missing."], given, prefix)
    assert len(hints) == bool(hint)
    assert not hint or hints[0].endswith(hint)
