# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mark, and whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ownership import (
    is_same_project,
    mark,
    marked_app,
    updated,
)
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.records import ProjectRecord as Project

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


@pytest.mark.parametrize(
    ("installed", "wanted", "same"),
    [
        (Project(), Project(id="shop"), True),  # of an earlier version
        (Project(id="shop"), Project(), True),  # nobody has asked
        (Project(id="shop", name="a"), Project(id="shop", name="b"), True),
        (Project(id="shop", name="a"), Project(id="blog", name="a"), False),
        (Project(origin="x/shop", name="a"), Project(origin="x/shop", name="b"), True),
        (Project(origin="x/shop", root="1"), Project(origin="y/shop", root="1"), True),  # moved to another server
        (Project(origin="x/shop", name="app"), Project(origin="x/blog", name="app", inventory=""), False),
        (Project(origin="x/all", path="shop", name="shop"), Project(origin="x/all", path="blog", name="blog"), False),
        (Project(origin="x/all", path="shop", name="shop"), Project(origin="x/all", path="src", name="shop"), True),
        (Project(name="shop", source="/a"), Project(name="shop", source="/b"), True),
        (Project(name="shop", source="/a"), Project(name="blog", source="/a"), True),
        (Project(source="/a", inventory="/i"), Project(source="/b", inventory="/i"), True),
        (Project(source="/a", inventory="/i"), Project(source="/b", inventory="/j"), False),
        (Project(name="shop"), Project(id="shop", name="blog"), False),
    ],
)
def test_which_projects_are_one(installed: Project, wanted: Project, same: bool) -> None:
    assert is_same_project(installed, wanted) is same
    assert is_same_project(wanted, installed) is same


def test_what_is_recorded_of_a_project() -> None:
    known = Project(origin="x/shop", source="/a", inventory="/i")
    assert updated(known, Project(source="/b", inventory="/i")) == Project(origin="x/shop", source="/b", inventory="/i")
    assert updated(known, Project(origin="x/blog", source="/b")) == Project(origin="x/blog", source="/b")
    assert updated(Project(), known) == known
