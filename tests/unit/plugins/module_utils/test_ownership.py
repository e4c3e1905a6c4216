# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mark, and whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ownership import mark, marked_app

TEMPLATES = Path(__file__).parents[4] / "roles" / "service" / "templates"
EARLIER = "# Written by thecodeforge.fastapi.service: changes by hand are replaced.\n"


@pytest.mark.parametrize(
    ("text", "unit", "app"),
    [
        (f"# {mark('shop')}: changes by hand are replaced.\n[Unit]\n", "", "shop"),
        (mark("shop-2"), "", "shop-2"),
        (EARLIER, "shop.service", "shop"),
        (EARLIER, "shop@.socket", "shop"),
        (EARLIER, "shop.worker@0123456789ab-01234567.service", "shop"),
        (EARLIER, "", ""),
        ("[Unit]\nDescription=shop\n", "shop.service", ""),
        ("", "", ""),
    ],
)
def test_whose_mark(text: str, unit: str, app: str) -> None:
    assert marked_app(text, unit) == app


def test_every_template_with_comments_begins_with_the_mark() -> None:
    for template in TEMPLATES.glob("*.j2"):
        first = template.read_text().splitlines()[0].replace("{{ forge_app }}", "shop")
        assert template.name == "uvicorn.json.j2" or first == f"# {mark('shop')}: changes by hand are replaced."
