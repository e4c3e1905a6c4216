# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the units of a rollout run on in tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.staging import Staging
    from fake_host import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    from fake_host import Host  # not before the collection can be imported

    return Host(tmp_path, monkeypatch)


@pytest.fixture
def stock(host: Host) -> Host:
    """NEW runs a server that can neither stand by nor drain."""
    from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.generations import Generations
    from fake_host import NEW

    Generations(host.layout).set_state(NEW, "validated", drains=False, server="gunicorn-asgi")
    unit = f"[Service]\nSockets=forge.socket forge@{NEW}.socket\n"
    (Path(host.layout.generation(NEW)) / "units" / host.layout.service(NEW)).write_text(unit)
    host.systemd.never_public.add(NEW)
    return host


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What a staging asks systemctl to do."""
    from fake_staging import without_root

    return without_root(monkeypatch)


@pytest.fixture
def make(tmp_path: Path, calls: list[tuple[str, ...]]) -> Callable[..., Staging]:
    """Makes stagings of one host."""
    from fake_staging import make_staging

    return partial(make_staging, tmp_path)
