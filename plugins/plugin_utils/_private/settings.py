# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Ask the app, on the controller and before any host is touched, whether it accepts its settings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.specifiers import SpecifierSet

from ...module_utils._private import app_check
from ...module_utils._private.masking import mask, secrets_of
from .build import ID_LENGTH
from .lock import Index, export_lock, find_uv
from .source import digest, open_source

LOAD_SECONDS = 60


def check_settings(
    source_directory: str, target: str, release: str, environment: dict[str, str], cache: Path, index: Index
) -> tuple[list[str], str]:
    """Load the app's settings with an environment, in an environment of its locked dependencies.

    Only what its settings class refuses counts here: what else an app may need while it loads, such as a file, is
    on the hosts, where the release is validated again.

    :param release: id of the release; what was accepted once is not asked again.
    :param environment: names, with their prefix, to values.
    :returns: problems, a sentence each and never with a value; and why it was not checked, empty when it was.
    :raises BuildError: when there is no such source, or its lock is out of date.
    """
    source = open_source(source_directory)
    running = ".".join(map(str, sys.version_info[:3]))
    if source.requires_python and running not in SpecifierSet(source.requires_python):
        return [], f"the controller has Python {running}, the app needs {source.requires_python}"
    accepted = (
        cache / "accepted" / digest(release.encode(), target.encode(), repr(sorted(environment.items())).encode())
    )
    if accepted.is_file():
        return [], ""
    exported = export_lock(source, index)
    home = cache / "environments" / digest(exported.encode(), sys.executable.encode())[:ID_LENGTH]
    problem = make_environment(home, exported, index)
    if problem:
        return [], problem
    problems = load(home, source.directory, source.import_paths, target, environment)
    if not problems:
        accepted.parent.mkdir(parents=True, exist_ok=True)
        accepted.touch()
    return problems, ""


def make_environment(home: Path, exported: str, index: Index) -> str:
    """Install a lock for the controller; a finished one is kept. Returns why that failed, empty when it did not."""
    if (home / ".complete").is_file():
        return ""
    shutil.rmtree(home, ignore_errors=True)
    uv = [find_uv(), "--no-config"]
    options = {"env": index.environment(), "capture_output": True, "text": True, "check": False}
    made = subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(home)], **options)  # type: ignore[call-overload]
    if made.returncode == 0:
        command = [
            *uv, "pip", "install", "--quiet", "--python", str(home / "bin" / "python"), "--no-deps", "--require-hashes",
            "--only-binary", ":all:", "--compile-bytecode", "--requirements", "-",
        ]  # fmt: skip
        made = subprocess.run(command, input=exported, **options)  # type: ignore[call-overload]
    if made.returncode != 0:
        return f"its dependencies could not be installed on the controller: {made.stderr.strip()[-300:]}"
    (home / ".complete").touch()
    return ""


def load(home: Path, directory: Path, import_paths: list[str], target: str, environment: dict[str, str]) -> list[str]:
    process_environment = {
        "PATH": f"{home / 'bin'}:{os.defpath}",
        "PYTHONPATH": os.pathsep.join(str(directory / path) for path in import_paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        **environment,
    }
    try:
        done = subprocess.run(
            [str(home / "bin" / "python"), app_check.__file__, target], cwd=directory, env=process_environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LOAD_SECONDS, check=False,
        )  # fmt: skip
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return []
    if not answer["settings"]:
        return []
    secrets = secrets_of(environment)
    return [mask(problem, secrets) for problem in answer["problems"] if "(on this machine)" not in problem]
