# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the app load with these settings? A script for the app's own Python: ``python app_check.py TARGET [SERVICE]``.

Prints one JSON object: ``problems``, sentences without any value of a setting, and what is wrong: the ``settings``, or the
``target`` itself? And ``files``, below the working directory, that say what settings there are and what the target is.
Imports what Gunicorn will import, so it finds what Gunicorn would find.

SERVICE is a JSON object: the ``server``, its ``configuration`` (a path), the ``worker_class`` when the app has its own, and
the ``programs`` of other processes, name to program. With it the server is made ready too, but for the sockets, in the same
process, as loading is what takes time; and the answer has whether it ``drains``.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import os
import shutil
import sys
import traceback
from typing import Any

# pydantic's names of what only the host can answer.
ABOUT_FILES = ("path_not_file", "path_not_directory", "path_exists")


def load(target: str) -> list[str]:
    """Problems of a target; none when it loads and can be called."""
    module, _colon, attribute = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.replace("()", "").split("."):
        if not hasattr(found, part):
            return [f"{module} has no {part}, which the target {target} names."]
        found = getattr(found, part)
    if attribute.endswith("()"):
        found = found()
    if not callable(found):
        return [f"{target} is not an ASGI app: it cannot be called."]
    if is_wsgi(found):
        return [f"{target} is a WSGI app (environ, start_response), not an ASGI app: wrap it, as with a2wsgi."]
    return []


def is_wsgi(app: Any) -> bool:
    """Does it take two arguments, and neither the three of ASGI nor the one of ASGI 2?"""
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return False

    def takes(count: int) -> bool:
        try:
            signature.bind(*range(count))
        except TypeError:
            return False
        return True

    return takes(2) and not takes(3) and not takes(1)


def of_settings(error: Any) -> list[str]:
    """A sentence for each setting that pydantic refuses. Its input is never included."""
    prefix = environment_prefix(str(getattr(error, "title", "")))
    sentences = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        location = [str(part) for part in item["loc"]]
        name = "__".join(location)
        if name not in os.environ:
            name = prefix + name.upper()
        rule = "is missing" if item["type"] == "missing" else f"is wrong: {item['msg']}"
        on_host = " (on this machine)" if item["type"] in ABOUT_FILES else ""
        sentences.append(f"{name or 'The settings'} {rule}{on_host}.")
    return sentences


def settings_classes() -> list[Any]:
    """Classes of pydantic-settings that are loaded."""
    settings = sys.modules.get("pydantic_settings")
    waiting = list(settings.BaseSettings.__subclasses__()) if settings else []
    found: list[Any] = []
    while waiting:
        found.append(waiting.pop())
        waiting += found[-1].__subclasses__()
    return found


def environment_prefix(title: str) -> str:
    """``env_prefix`` of the settings class with that name."""
    prefixes = [each.model_config.get("env_prefix", "") for each in settings_classes() if each.__name__ == title]
    return str(prefixes[0]).upper() if prefixes else ""


def telling_files(target: str) -> list[str]:
    """Files of the app, relative to the working directory, with the settings classes and the target."""
    top = os.path.join(os.getcwd(), "")
    names = {target.partition(":")[0], *(each.__module__ for each in settings_classes())}
    paths = [str(getattr(sys.modules.get(name), "__file__", None) or "") for name in names]
    return sorted(os.path.relpath(path, top) for path in paths if path.startswith(top))


def is_above(name: str, module: str) -> bool:
    """Is it the module, or a package that holds it?"""
    return f"{module}.".startswith(f"{name}.")


def where(error: BaseException) -> str:
    """File and line in which an error arose, the import machinery and this script left out."""
    this_script = check.__code__.co_filename
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if f.filename != this_script and f.filename[0] != "<"
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def check(target: str) -> dict:
    try:
        problems = load(target)
        return {"problems": problems, "settings": False, "target": bool(problems), "files": telling_files(target)}
    except SystemExit as error:
        message = error.code if isinstance(error.code, str) else f"it exits with code {error.code}"
        return {"problems": [f"{target} stops while it loads: {message}"], "settings": False, "target": False}
    except BaseException as error:
        kind = type(error).__name__
        if kind == "ValidationError" and hasattr(error, "errors"):
            return {"problems": of_settings(error), "settings": True, "target": False}
        if kind == "SettingsError":
            return {"problems": [f"{error}."], "settings": True, "target": False}
        return {
            "problems": [f"{target} does not load: {kind}: {error}{where(error)}."],
            "settings": False,
            "target": isinstance(error, ModuleNotFoundError) and is_above(str(error.name), target.partition(":")[0]),
        }


def check_service(target: str, service: dict[str, Any]) -> dict:
    """As :func:`check`, and what keeps the server and other processes from starting."""
    answer = {**check(target), "drains": service["server"] != "gunicorn-asgi"}
    if answer["problems"]:
        return answer
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            answer["drains"] = configure_server(target, service)
    except WorkerClassError as error:
        answer["problems"].append(str(error))
    except BaseException as error:
        said = [line.strip() for line in output.getvalue().splitlines() if line.strip()]
        cause = said[-1] if isinstance(error, SystemExit) and said else f"{type(error).__name__}: {error}{where(error)}"
        answer["problems"].append(f"{service['server']} does not start with this configuration: {cause.rstrip('.')}.")
    for name, program in service["programs"].items():
        if not shutil.which(program):
            answer["problems"].append(f"forge_processes: {name}: the service finds no program {program}.")
    return answer


class WorkerClassError(Exception):
    """Raised when there is no such worker class, or it cannot be imported."""


def configure_server(target: str, service: dict[str, Any]) -> bool:
    """Load what the server loads before it opens its sockets.

    :returns: whether it stands by and drains.
    :raises WorkerClassError: naming an app's own class that cannot be loaded.
    """
    if service["server"] == "uvicorn":
        forge_server = importlib.import_module("forge_server")
        with open(service["configuration"], encoding="utf-8") as handle:
            load_protocols(forge_server.Config, json.load(handle))
        return True
    if service["worker_class"]:
        forge_worker = importlib.import_module("forge_worker")
        try:
            forge_worker.load(service["worker_class"])
        except Exception as error:
            kind = type(error).__name__
            raise WorkerClassError(
                f"forge_worker_class: {service['worker_class']} cannot be loaded: {kind}: {error}."
            ) from None
    # systemd makes it, and only for the service itself.
    os.environ.setdefault("RUNTIME_DIRECTORY", "/tmp")  # noqa: S108
    sys.argv = ["gunicorn", "--config", service["configuration"], target]
    worker_class = importlib.import_module("gunicorn.app.wsgiapp").WSGIApplication(prog="gunicorn").cfg.worker_class
    draining = getattr(sys.modules.get("forge_worker"), "Draining", None)
    drains = draining is not None and issubclass(worker_class, draining)
    if drains:
        load_protocols(importlib.import_module("forge_server").Config, worker_class.CONFIG_KWARGS)
    return drains


def load_protocols(config: Any, settings: dict[str, Any]) -> None:
    """Import what Uvicorn imports for its settings."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        """In place of the app, which is loaded already."""

    config(nothing, **settings).load()


if __name__ == "__main__":
    sys.stdout, answer = sys.stderr, sys.stdout  # what the app prints must not mix with the answer
    found = check_service(sys.argv[1], json.loads(sys.argv[2])) if sys.argv[2:] else check(sys.argv[1])
    answer.write(f"\n{json.dumps(found)}\n")
    answer.flush()
    # An app may have started threads that would keep the process.
    os._exit(0)
