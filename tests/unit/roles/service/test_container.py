# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs in a container beside the server: sizing at its start, and the health check."""

from __future__ import annotations

import http.server
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[4]
SCRIPT = REPOSITORY / "roles" / "service" / "files" / "forge_container.py"
PRIVATE = REPOSITORY / "plugins" / "module_utils" / "_private"


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """As in an image: beside the modules that it imports, which import nothing of ours."""
    for name in ("sizing", "limits"):
        monkeypatch.setitem(sys.modules, f"forge_{name}", load(f"forge_{name}", PRIVATE / f"{name}.py"))
    monkeypatch.setenv("FORGE_WORKER_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    return load("forge_container", SCRIPT)


def test_workers_follow_the_limits_of_the_container(
    container: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = {"cpus": 8, "cpu_quota": 1.5, "memory_mb": 512}
    monkeypatch.setattr(sys.modules["forge_limits"], "limits", lambda: limits)
    assert container.workers(0, "balanced", 128) == 3
    assert "3 workers (384 MiB hold 3 x 128 MiB)" in capsys.readouterr().err
    assert (tmp_path / "state").is_dir()
    limits["memory_mb"] = 8192
    assert container.workers(0, "balanced", 128) == 5  # a quota of 1.5 CPUs is 2
    assert container.workers(4, "balanced", 128) == 4
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    assert container.workers(4, "balanced", 128) == 2


@pytest.fixture
def port() -> Iterator[str]:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 503)
            self.end_headers()

        def log_message(self, *_args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield str(server.server_address[1])
        server.shutdown()


@pytest.mark.parametrize(("path", "status", "code"), [("/healthz", "200", 0), ("/sick", "200", 1), ("/sick", "503", 0)])
def test_health_is_the_status_that_is_expected(port: str, path: str, status: str, code: int) -> None:
    assert subprocess.run([sys.executable, SCRIPT, port, path, status], check=False).returncode == code


def test_nobody_answers() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "1", "/", "200"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr
