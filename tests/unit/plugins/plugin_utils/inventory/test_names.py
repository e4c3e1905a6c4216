# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables that no role declares."""

from __future__ import annotations

from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.inventory.names import unknown_names


def test_each_unknown_name_is_said_with_what_was_meant() -> None:
    known = ["forge_environment", "forge_listen", "forge_workers"]
    assert unknown_names(["forge_listen", "forge_enviroment", "forge_worker", "forge_xyzzy"], known) == [
        "forge_enviroment is not a variable of this collection (did you mean forge_environment?).",
        "forge_worker is not a variable of this collection (did you mean forge_workers?).",
        "forge_xyzzy is not a variable of this collection.",
    ]


def test_known_names_are_let_through() -> None:
    assert unknown_names({"forge_listen"}, {"forge_listen": {}}) == []
