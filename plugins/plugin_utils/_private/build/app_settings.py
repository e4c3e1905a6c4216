# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the app, on the controller and before any host is touched, whether it loads with its settings."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from .packaging_library import SpecifierSet
from ....module_utils._private import app_check
from ....module_utils._private.archive import unpack
from ....module_utils._private.layer import STARTUP, make_environment
from ....module_utils._private.masking import mask, secrets_of
from .cache import digest, touch
from .errors import BuildError
from .layer import Layer, build_layer
from .lockfile import directs_for, pins_for
from .records import BuildRecord, read_record
from .target_platform import Platform
from .wheels import is_path_of, wheel_of_direct
from .workspace import Workspace

LOAD_SECONDS = 60
ABSENT = re.compile("FileNotFound|NotADirectory|No such file|not exist|not found", re.IGNORECASE)
LEFT_OUT_ADVICE = "name it in forge_source_include, or take it out of forge_source_exclude."


@dataclass(frozen=True)
class Checked:
    """What is known of an app's settings."""

    problems: list[str] = field(default_factory=list)  # a sentence each, never with a value
    unchecked: str = ""  # why nothing could be checked


def check_settings(
    target: str, release: str, environment: dict[str, str], workspace: Workspace, made: Sequence[str] = ()
) -> Checked:
    """Load an app that was built, with an environment, in an environment of its locked dependencies.

    Only what its settings class refuses counts here, and a target that is not there or no ASGI app: what else an app
    may need while it loads, such as a file, is on the hosts, where the release is validated again.

    What was accepted is asked again when the settings, the dependencies, the target, or the files with its settings
    classes have changed.

    :param release: id of the release.
    :param environment: names, with their prefix, to values.
    :param made: directories of the release that hosts make what is in; here they are empty, if the release has nothing in them.
    """
    record = read_record(workspace.cache, release)
    controller, python = python_of_controller(record, workspace)
    if not python:
        return Checked(unchecked=f"the controller has Python {controller.python}, the app needs {record.requires_python}")
    layers = sorted(layer.layer for layer in record.layers.values())
    inputs = repr((sorted(environment.items()), layers, record.import_paths)).encode()
    accepted = workspace.cache / "accepted" / f"{digest(target.encode(), inputs)}.json"
    if is_accepted(accepted, Path(record.code)):
        return Checked()
    try:
        home = environment_of(record, controller, python, workspace)
    except BuildError as error:
        return Checked(unchecked=str(error))
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(os.path.realpath(scratch))
        unpack(record.code, directory)
        for path in made:
            with suppress(OSError):  # hosts say what is in the way
                (directory / path).mkdir(parents=True, exist_ok=True)
        problems, files = load(home, directory, record.import_paths, target, environment, Path(record.project), made)
        if files:
            accepted.parent.mkdir(parents=True, exist_ok=True)
            accepted.write_text(json.dumps({name: digest((directory / name).read_bytes()) for name in files}))
    return Checked(problems)


def is_accepted(accepted: Path, code: Path) -> bool:
    """Whether the files that decided what settings there are, are those that were accepted."""
    try:
        known = json.loads(accepted.read_text())
        with tarfile.open(code) as archive:
            return all(digest(archive.extractfile(name).read()) == value for name, value in known.items())  # type: ignore[union-attr]
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def python_of_controller(record: BuildRecord, workspace: Workspace) -> tuple[Platform, str]:
    """What the app is loaded with: the Python that runs Ansible, or where the app does not accept that, the one that its hosts get.

    :returns: the platform, and the path of the interpreter; that is empty where there is none that runs here.
    """
    own = Platform.of_controller()
    if not record.requires_python or own.python in SpecifierSet(record.requires_python):
        return own, sys.executable
    for interpreter in record.pythons.values():
        if interpreter.machine != own.machine:
            continue
        home = workspace.cache / "environments" / f"python-{interpreter.id}"
        if not home.is_dir():
            home.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home.parent, prefix=".") as scratch:
                unpack(interpreter.path, Path(scratch) / "python")
                with suppress(OSError):  # another build was quicker
                    (Path(scratch) / "python").rename(home)
        python = home / "bin" / f"python{interpreter.minor}"
        done = subprocess.run([python, "-Ic", "import ssl"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode == 0:
            return replace(own, python=interpreter.version, interpreter=interpreter.id), str(python)
    return own, ""


def environment_of(record: BuildRecord, controller: Platform, python: str, workspace: Workspace) -> Path:
    """A release's dependencies, installed for the controller: of a layer that runs here, or of one that is built now.

    :param python: path of the interpreter that loads the app.
    :raises BuildError: when they cannot be had for the controller.
    """
    fitting = [layer for layer in record.layers.values() if controller.runs(layer.platform)]
    layer = fitting[0] if fitting else controller_layer(record, controller, workspace)
    home = workspace.cache / "environments" / digest(layer.layer.encode(), python.encode(), STARTUP.encode())[:12]
    if (home / ".complete").is_file():
        return touch(home)
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".") as scratch:
        made = Path(scratch) / home.name
        unpack(layer.path, made)
        make_environment(str(made), str(home), python)
        (made / ".complete").touch()
        if not (home / ".complete").is_file():  # else another build was quicker
            shutil.rmtree(home, ignore_errors=True)
        with suppress(OSError):
            made.rename(home)
    return home


def controller_layer(record: BuildRecord, controller: Platform, workspace: Workspace) -> Layer:
    """The layer of a release for the controller's own platform."""
    if record.from_artifact:
        raise BuildError(f"the artifact has no dependencies for the controller's Python {controller.python_version}")
    texts = [Path(lock).read_text(encoding="utf-8") for lock in record.locks]
    pins = {pin.name: pin for text in reversed(texts) for pin in pins_for(text, controller)}
    base, project = Path(record.base), Path(record.project)
    directs = [each for each in directs_for(texts[0], controller) if not is_path_of(each.address, base, project)]
    wheels = [wheel_of_direct(each, base, controller, workspace) for each in directs]
    return build_layer(list(pins.values()), wheels, controller, workspace)[0]


def load(
    home: Path,
    directory: Path,
    import_paths: list[str],
    target: str,
    environment: dict[str, str],
    source: Path,
    made: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """Problems, a sentence each; and when there are none the files of the app that say what its settings are.

    :param directory: that the release is unpacked in.
    :param source: what it was made of, where it is on the controller.
    """
    process_environment = {
        "PATH": f"{home / 'bin'}:{os.defpath}",
        "FORGE_IMPORT_PATHS": os.pathsep.join(str(directory / path) for path in import_paths),
        "HOME": str(directory),
        **environment,
    }
    try:
        done = subprocess.run(
            [str(home / "bin" / "python"), "-", target], cwd=directory, env=process_environment,
            input=inspect.getsource(app_check), capture_output=True, text=True, timeout=LOAD_SECONDS, check=False,
        )  # fmt: skip
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return [], []
    secrets = secrets_of(environment)
    if not answer["settings"]:
        found = (left_out_path(each, directory, import_paths, source, made) for each in answer["problems"])
        left_out = next(filter(None, found), "")
        if left_out:
            said = " ".join(mask(problem, secrets).replace(f"{directory}/", "") for problem in answer["problems"])
            return [said, f"{left_out} is in {source}, and not in the release: {LEFT_OUT_ADVICE}"], []
        if not answer["target"]:
            return [], answer.get("files", [])
    problems = [mask(problem, secrets) for problem in answer["problems"] if "(on this machine)" not in problem]
    advice = ["Set them in forge_environment."] if problems and answer["settings"] else []
    return [*problems, *advice], []


def left_out_path(
    problem: str, directory: Path, import_paths: list[str], source: Path, made: Sequence[str] = ()
) -> str:
    """What an app misses while it loads, and its source has, but not its release; empty when that is not why.

    :param directory: the release.
    :param source: relative to it is what is returned.
    :param made: directories of the release that hosts make what is in.
    """
    found = [name.replace(".", "/") for name in re.findall(r"No module named '([\w.]+)'", problem)]
    names = [str(Path(root) / f"{name}{end}") for root in import_paths for name in found for end in ("", ".py")]
    if not found and ABSENT.search(problem):
        quoted = [one or other for one, other in re.findall(r"'([^']+)'|\"([^\"]+)\"", problem)]
        names = [os.path.normpath(each.removeprefix(f"{directory}/")) for each in quoted]
    for name in names:
        path = source / name
        inside = not os.path.isabs(name) and ".." not in Path(name).parts and name != "."
        inside = inside and not any(name.startswith(f"{path}/") for path in made)
        if inside and source.is_absolute() and path.exists() and not (directory / name).exists():
            return name
    return ""
