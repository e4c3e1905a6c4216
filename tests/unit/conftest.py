# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets tests import the collection's plugins under the names that Ansible gives them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
from hypothesis import settings

REPOSITORY = Path(__file__).parents[2]
SLOW = ("test_show", "test_preflight", "test_specs")  # they run other programs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, so that no worker of pytest-xdist ends long before another."""
    items.sort(key=lambda item: item.path.stem not in SLOW)


def pytest_configure() -> None:
    # A busy machine is no reason to fail.
    settings.register_profile("unit", deadline=None, max_examples=60)
    settings.load_profile("unit")
    tree = REPOSITORY / "build" / "collections" / "ansible_collections" / "thecodeforge"
    tree.mkdir(parents=True, exist_ok=True)
    link = tree / "fastapi"
    if not link.exists():
        link.symlink_to(os.path.relpath(REPOSITORY, tree))
    _AnsibleCollectionFinder(paths=[str(REPOSITORY / "build" / "collections")])._install()
