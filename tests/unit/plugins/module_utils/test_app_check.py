# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading an app with its settings: what is wrong is named, and no value is repeated."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import app_check
from fastapi import FastAPI

SECRET = "hunter22-hunter22"
SETTINGS = """
from pathlib import Path
from typing import Literal
from pydantic import BaseModel, Field, FilePath, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

class Pool(BaseModel):
    size: int

class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="forge_", env_nested_delimiter="__")
    secret_key: str = Field(min_length=32)
    pool: Pool
    mode: Literal["a", "b"] = "a"
    tags: list[str] = []
    certificate: FilePath | None = None

settings = Settings()

async def app(scope, receive, send): ...
print("the app prints while it loads")
"""
GOOD = {"FORGE_SECRET_KEY": SECRET * 2, "FORGE_POOL__SIZE": "3"}


def check(tmp_path: Path, target: str, environment: dict[str, str], **modules: str) -> dict[str, Any]:
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, app_check.__file__, target], cwd=tmp_path, capture_output=True, text=True, timeout=30,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout
    return json.loads(done.stdout)


PLAIN = """
async def app(scope, receive, send): ...
def make(): return app
class Holder: inner = app
number = 3
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Checks within this process, which takes a tenth of the time."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def check_here(target: str, **modules: str) -> dict[str, Any]:
        for name, text in modules.items():
            monkeypatch.delitem(sys.modules, name, raising=False)
            (tmp_path / f"{name}.py").write_text(text)
        try:
            return app_check.check(target)
        finally:
            for name in modules:
                sys.modules.pop(name, None)

    return check_here


@pytest.mark.parametrize("target", ["shop:app", "shop:make()", "shop:Holder.inner"])
def test_app_that_loads_has_no_problems(load: Callable[..., dict[str, Any]], target: str) -> None:
    said = load(target, shop=PLAIN)
    assert (said["problems"], said["settings"], said["target"]) == ([], False, False)


def test_app_that_prints_while_it_loads_does_not_garble_the_answer(tmp_path: Path) -> None:
    said = check(tmp_path, "shop:app", GOOD, shop=SETTINGS)
    assert said == {"problems": [], "settings": False, "target": False, "files": ["shop.py"]}


def test_files_that_say_what_the_settings_are(tmp_path: Path) -> None:
    own = "from shop_settings import settings\nimport shop_more\napp = print\n"
    said = check(tmp_path, "shop:app", GOOD, shop=own, shop_settings=SETTINGS, shop_more="x = 1\n")
    assert said["files"] == ["shop.py", "shop_settings.py"]


def test_every_setting_that_is_refused_is_named_with_the_rule(tmp_path: Path) -> None:
    environment = {
        "FORGE_POOL__SIZE": SECRET,
        "FORGE_MODE": SECRET,
        "FORGE_CERTIFICATE": "/none",
        "FORGE_SECRET_KEY": SECRET,
    }
    said = check(tmp_path, "shop:app", environment, shop=SETTINGS)
    assert said["settings"]
    assert sorted(said["problems"]) == [
        "FORGE_CERTIFICATE is wrong: Path does not point to a file (on this machine).",
        "FORGE_MODE is wrong: Input should be 'a' or 'b'.",
        "FORGE_POOL__SIZE is wrong: Input should be a valid integer, unable to parse string as an integer.",
        "FORGE_SECRET_KEY is wrong: String should have at least 32 characters.",
    ]


def test_missing_setting_is_named_with_its_prefix(tmp_path: Path) -> None:
    said = check(tmp_path, "shop:app", {}, shop=SETTINGS)
    assert said == {
        "problems": ["FORGE_SECRET_KEY is missing.", "FORGE_POOL is missing."],
        "settings": True,
        "target": False,
    }


def test_setting_that_is_no_json_is_named(tmp_path: Path) -> None:
    said = check(tmp_path, "shop:app", {**GOOD, "FORGE_TAGS": SECRET}, shop=SETTINGS)
    assert said["settings"]
    assert "tags" in said["problems"][0]


@pytest.mark.parametrize(
    ("target", "text", "problem"),
    [
        ("shop:ap", PLAIN, "shop has no ap, which the target shop:ap names."),
        ("shop:number", PLAIN, "shop:number is not an ASGI app: it cannot be called."),
        (
            "shop:app",
            "import nothing_there",
            "shop:app does not load: ModuleNotFoundError: No module named 'nothing_there' (",
        ),
        ("shop:app", "\n1/0\n", "shop:app does not load: ZeroDivisionError: division by zero ("),
        ("shop:app", "app = (", "shop:app does not load: SyntaxError: "),
        ("shop:app", "raise SystemExit(3)", "shop:app stops while it loads: it exits with code 3"),
        ("shop:app", "raise SystemExit('no database')", "shop:app stops while it loads: no database"),
        ("other:app", "", "other:app does not load: ModuleNotFoundError: No module named 'other'"),
    ],
)
def test_app_that_does_not_load_is_said_in_a_sentence(
    load: Callable[..., dict[str, Any]], target: str, text: str, problem: str
) -> None:
    said = load(target, shop=text)
    assert not said["settings"]
    assert len(said["problems"]) == 1
    assert said["problems"][0].startswith(problem)


def test_place_of_an_error_is_the_apps_own_line(load: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    said = load("shop:app", shop="import inner\n", inner="\n\nraise ValueError('x')\n")
    assert said["problems"] == [f"shop:app does not load: ValueError: x ({tmp_path}/inner.py:3)."]


def test_thread_of_the_app_does_not_keep_the_check(tmp_path: Path) -> None:
    text = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\ndef app(): ...\n"
    assert check(tmp_path, "shop:app", GOOD, shop=text)["problems"] == []


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Asgi2:
    def __init__(self, scope: Any) -> None: ...


class Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


async def configured(settings: Any, scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (Wsgi(), True),
        (wsgi, True),
        (functools.partial(wsgi), True),
        (Asgi(), False),
        (asgi, False),
        (Asgi2, False),
        (functools.partial(configured, None), False),
        (lambda *arguments: None, False),
        (lambda scope, receive=None, send=None: None, False),
        (print, False),
        (FastAPI(), False),
    ],
)
def test_a_wsgi_app_is_told_from_every_kind_of_asgi_app(app: Any, expected: bool) -> None:
    assert app_check.is_wsgi(app) == expected


@pytest.mark.parametrize(
    ("name", "module", "expected"),
    [
        ("shop", "shop.main", True),
        ("shop.main", "shop.main", True),
        ("sho", "shop.main", False),
        ("dep", "shop.main", False),
    ],
)
def test_is_what_is_missing_the_target_itself(name: str, module: str, expected: bool) -> None:
    assert app_check.is_above(name, module) == expected


# -- the server and other processes ----------------------------------------------------------------

REPOSITORY = Path(__file__).parents[4]
CONFIGURATION = (
    'import os\nworker_class = "forge_worker.ForgeWorker"\nworker_tmp_dir = os.environ["RUNTIME_DIRECTORY"]\n'
)
OWN_CLASS = """
from uvicorn_worker import UvicornWorker

class Worker(UvicornWorker): ...

class Other(UvicornWorker):
    async def _serve(self): ...
"""
OF_ANOTHER = """
import forge_worker
forge_worker.AppWorker = forge_worker.with_drain(forge_worker.load("shop.Other"))
worker_class = "forge_worker.AppWorker"
"""


def check_service(tmp_path: Path, configuration: str, server: str = "gunicorn", **service: Any) -> dict[str, Any]:
    """As a validation does it, with the server's own files."""
    for name, text in {"main.py": PLAIN, "shop.py": OWN_CLASS, "settings": configuration}.items():
        (tmp_path / name).write_text(text)
    known = {"server": server, "configuration": str(tmp_path / "settings"), "worker_class": "", "programs": {}}
    done = subprocess.run(
        [sys.executable, app_check.__file__, "main:app", json.dumps({**known, **service})], cwd=tmp_path,
        capture_output=True, text=True, timeout=30, check=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{REPOSITORY}/roles/service/files"},
    )  # fmt: skip
    assert done.stdout.startswith('\n{"problems"')
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("configuration", "service", "drains"),
    [
        (CONFIGURATION, {}, True),
        ('worker_class = "asgi"\n', {"server": "gunicorn-asgi"}, False),
        ('{"timeout_keep_alive": 75}', {"server": "uvicorn"}, True),
        (OF_ANOTHER.replace("Other", "Worker"), {"worker_class": "shop.Worker"}, True),
        (OF_ANOTHER, {"worker_class": "shop.Other"}, False),
    ],
)
def test_server_is_made_ready_and_says_whether_it_drains(
    tmp_path: Path, configuration: str, service: dict[str, Any], drains: bool
) -> None:
    found = check_service(tmp_path, configuration, **service)
    assert (found["problems"], found["drains"]) == ([], drains)


@pytest.mark.parametrize(
    ("configuration", "service", "problem"),
    [
        ("workers = 'many'\n", {}, "gunicorn does not start with this configuration: Error: invalid literal for int"),
        ("raise OSError('gone')\n", {}, "gunicorn does not start with this configuration: OSError: gone."),
        ("worker_class = 'forge_worker.No'\n", {}, "gunicorn does not start with this configuration: "),
        ("from uvicorn.server import Missing\n", {}, "ImportError: cannot import name 'Missing' from 'uvicorn.server'"),
        ('{"no_such": 1}', {"server": "uvicorn"}, "uvicorn does not start with this configuration: TypeError: "),
        ('{"http": "no.such:Protocol"}', {"server": "uvicorn"}, "uvicorn does not start with this configuration: "),
        (OF_ANOTHER, {"worker_class": "shop.No"}, "forge_worker_class: shop.No cannot be loaded: AttributeError: "),
        (CONFIGURATION, {"programs": {"queue": "celeri"}}, "forge_processes: queue: the service finds no program celeri."),
        (CONFIGURATION, {"programs": {"queue": "/etc/passwd"}}, "forge_processes: queue: the service finds no program"),
        (CONFIGURATION, {"programs": {"queue": "sh"}}, ""),
    ],
)  # fmt: skip
def test_server_or_process_that_would_not_start_is_said(
    tmp_path: Path, configuration: str, service: dict[str, Any], problem: str
) -> None:
    found = check_service(tmp_path, configuration, **service)["problems"]
    assert len(found) == bool(problem)
    assert problem in " ".join(found)
    assert "Traceback" not in " ".join(found)


def test_a_worker_that_cannot_be_imported_is_said_before_it_serves(tmp_path: Path) -> None:
    """As with a Uvicorn that has no worker class, nor a package for it."""
    (tmp_path / "uvicorn" / "protocols").mkdir(parents=True)
    for name in ("__init__.py", "server.py", "config.py", "protocols/__init__.py", "protocols/utils.py"):
        (tmp_path / "uvicorn" / name).write_text("class Config: ...\nclass Server: ...\n")
    (problem,) = check_service(tmp_path, CONFIGURATION)["problems"]
    assert problem.startswith("gunicorn does not start with this configuration: ")
    assert "install uvicorn-worker" in problem
