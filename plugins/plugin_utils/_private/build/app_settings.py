# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Ask the app, on the controller and before any host is touched, whether it loads with its settings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from ....module_utils._private import app_check
from ....module_utils._private.masking import mask, secrets_of
from .artifact import read_record
from .cache import digest, used
from .index import Index
from .target_platform import Platform, running

LOAD_SECONDS = 60


def check_settings(
    target: str, release: str, environment: dict[str, str], cache: Path, index: Index
) -> tuple[list[str], str]:
    """Load an app that was built, with an environment, in an environment of its locked dependencies.

    Only what its settings class refuses counts here, and a target that is not there or no ASGI app: what else an app
    may need while it loads, such as a file, is on the hosts, where the release is validated again.

    What was accepted is asked again when the settings, the dependencies, the target, or the files with its settings
    classes have changed.

    :param release: id of the release.
    :param environment: names, with their prefix, to values.
    :returns: problems, a sentence each and never with a value; and why it was not checked, empty when it was.
    """
    record = read_record(cache, release)
    requires = record["requires_python"]
    if requires and running() not in SpecifierSet(requires):
        return [], f"the controller has Python {running()}, the app needs {requires}"
    layers = sorted(layer["layer"] for layer in record["layers"].values())
    asked = repr((sorted(environment.items()), layers, record["import_paths"])).encode()
    accepted = cache / "accepted" / f"{digest(target.encode(), asked)}.json"
    if is_accepted(accepted, Path(record["code"]["path"])):
        return [], ""
    home, problem = make_environment(record, cache, index)
    if problem:
        return [], problem
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(os.path.realpath(scratch))
        with tarfile.open(record["code"]["path"]) as code:
            code.extractall(directory, filter="data")
        problems, files = load(home, directory, record["import_paths"], target, environment)
        if files:
            accepted.parent.mkdir(parents=True, exist_ok=True)
            accepted.write_text(json.dumps({name: digest((directory / name).read_bytes()) for name in files}))
    return problems, ""


def is_accepted(accepted: Path, code: Path) -> bool:
    """Are the files that told what settings there are those that were accepted?"""
    try:
        told = json.loads(accepted.read_text())
        with tarfile.open(code) as archive:
            return all(digest(archive.extractfile(name).read()) == known for name, known in told.items())  # type: ignore[union-attr]
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def make_environment(record: dict[str, Any], cache: Path, index: Index) -> tuple[Path, str]:
    """Install a release's dependencies for the controller, from a layer that runs here or else from the lock.

    :returns: its directory, and why that failed, empty when it did not.
    """
    here = Platform.here()
    fitting = [
        layer
        for layer in record["layers"].values()
        if here.runs(Platform(layer["python"], layer["machine"], layer["glibc"]))
    ]
    locks = [Path(lock).read_text(encoding="utf-8") for lock in record["locks"]]
    told = fitting[0]["layer"] if fitting else "".join(locks)
    home = cache / "environments" / digest(told.encode(), sys.executable.encode())[:12]
    if (home / ".complete").is_file():
        used(home)
        return home, ""
    if not fitting and record.get("offline"):
        return home, f"the artifact has no dependencies for the controller's Python {here.minor}"
    shutil.rmtree(home, ignore_errors=True)
    made = index.uv("--no-config", "venv", "--quiet", "--python", sys.executable, str(home))
    if made.returncode == 0:
        command = [
            "--no-config", "pip", "install", "--quiet", "--python", str(home / "bin" / "python"), "--no-deps",
            "--require-hashes", "--only-binary", ":all:",
        ]  # fmt: skip
        if fitting:
            with tempfile.TemporaryDirectory() as scratch:
                with tarfile.open(fitting[0]["blob"]["path"]) as layer:
                    layer.extractall(scratch, filter="data")
                offline = ["--no-index", "--find-links", f"{scratch}/wheels"]
                made = index.uv(*command, *offline, "--requirements", f"{scratch}/requirements.txt")
        else:
            listed = [part for lock in record["locks"] for part in ("--requirements", lock)]
            made = index.uv(*command, *listed)
    if made.returncode != 0:
        return home, f"its dependencies could not be installed on the controller: {made.stderr.strip()[-300:]}"
    (home / ".complete").touch()
    return home, ""


def load(
    home: Path, directory: Path, import_paths: list[str], target: str, environment: dict[str, str]
) -> tuple[list[str], list[str]]:
    """Problems, a sentence each; and when there are none the files of the app that say what its settings are."""
    process_environment = {
        "PATH": f"{home / 'bin'}:{os.defpath}",
        "PYTHONPATH": os.pathsep.join(str(directory / path) for path in import_paths),
        "HOME": str(directory),
        **environment,
    }
    try:
        done = subprocess.run(
            [str(home / "bin" / "python"), app_check.__file__, target], cwd=directory, env=process_environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LOAD_SECONDS, check=False,
        )  # fmt: skip
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return [], []
    if not answer["settings"] and not answer["target"]:
        return [], answer.get("files", [])
    secrets = secrets_of(environment)
    problems = [mask(problem, secrets) for problem in answer["problems"] if "(on this machine)" not in problem]
    said = [*problems, *(["Set them in forge_environment."] if problems and answer["settings"] else [])]
    return said, []
