# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
import worker_harness

ON_ASYNCIO = {worker_harness.LOOPS[1], "uvicorn asyncio"}  # siblings of those on uvloop: make test has them


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: many swaps under load; run with -m slow")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        if getattr(item, "callspec", None) and item.callspec.params.get("worker") in ON_ASYNCIO:
            item.add_marker(pytest.mark.heavy)
    if "slow" not in config.getoption("-m"):
        slow = pytest.mark.skip(reason="slow: run with -m slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(slow)


@pytest.fixture
def site(tmp_path):
    site = worker_harness.Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def two_sites(tmp_path):
    sites = [worker_harness.Site(tmp_path / name) for name in ("a", "b")]
    yield sites
    for site in sites:
        site.close()
