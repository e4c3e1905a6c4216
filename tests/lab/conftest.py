# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""These tests boot nodes and take a minute: they run only when asked for, as in `pytest tests/lab`."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = (Path(str(argument).split("::")[0]) for argument in config.invocation_params.args)
    named = any(path.exists() and HERE in (path.resolve(), *path.resolve().parents) for path in asked)
    return None if named else True
