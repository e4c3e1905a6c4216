# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The oldest servers that a build lets through do what the role service needs: its own tests, in brief, with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.lockfile import SERVERS
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import find_uv

TESTS = Path(__file__).parents[4] / "roles" / "service"
BRIEF = (
    "test_worker_standby.py::test_candidate_serves_private_only_until_the_switch[forge_worker.ForgeWorker]",
    "test_worker_drain.py::test_what_was_accepted_is_answered[forge_worker.ForgeWorker]",
    "test_worker_drain.py::test_what_was_accepted_is_answered[uvicorn]",
)


OLDEST = {name: f"{name}=={version}" for name, version in SERVERS["gunicorn"].items()}
# For Gunicorn 20 there is no uvicorn-worker that fits a Uvicorn from 0.36 on.
MIXED = {**OLDEST, "uvicorn": "uvicorn>=0.54", "uvicorn-worker": "uvicorn-worker"}


@pytest.mark.network
@pytest.mark.parametrize("servers", [OLDEST, MIXED], ids=["all old", "old Gunicorn, new Uvicorn"])
def test_the_oldest_servers_stand_by_and_drain(tmp_path: Path, servers: dict[str, str]) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    oldest = servers.values()
    subprocess.run([find_uv(), "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    install = [find_uv(), "pip", "install", "--quiet", "--python", python]
    subprocess.run([*install, *oldest, "setuptools==75.8.0", "uvloop", "httptools", "starlette"], check=True)
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *BRIEF]
    environment = {**os.environ, "FORGE_WORKER_PYTHON": str(python)}
    done = subprocess.run(run, cwd=TESTS, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
