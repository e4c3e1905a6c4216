# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What travels to a host that compiles a wheel: the source, and a layer of what building it needs.

All of it is checked by hash on the controller. The host compiles without network: see the module ``compile``.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from .cache import new_file
from .errors import BuildError
from .layer import build_layer
from .lockfile import pins_for, resolve
from .target_platform import Platform
from .wheel_builder import CompileJob
from .workspace import Workspace

# What a project without a pyproject.toml is built with (PEP 517, PEP 518).
LEGACY = {"requires": ["setuptools>=40.8.0"], "build-backend": "setuptools.build_meta:__legacy__"}
ASK = """
import importlib, json, os, sys
directory, backend, paths = sys.argv[1:]
os.chdir(directory)
sys.path[:0] = [os.path.abspath(path) for path in json.loads(paths)]
module, _, rest = backend.partition(":")
found = importlib.import_module(module)
for name in filter(None, rest.split(".")):
    found = getattr(found, name)
hook = getattr(found, "get_requires_for_build_wheel", None)
print("\\n" + json.dumps(list(hook(None)) if hook else []))
"""


def write_bundle(job: CompileJob, workspace: Workspace) -> Path:
    """Write what a host needs to compile a wheel into one archive: ``source``, ``layer.tar.gz`` and ``backend.json``.

    :raises BuildError: when the source, or a wheel of what building needs, cannot be had.
    """
    path = workspace.cache / "sources" / f"{job.wheel_dir.name}.tar"
    with tempfile.TemporaryDirectory() as directory:
        source = job.source(Path(directory))
        table = build_system(source, job.requirement)
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as archive:
                archive.add(source, "source")  # before the backend is asked, which may leave files there
                archive.add(requirements_layer(job, source, table, workspace), "layer.tar.gz")
                backend = Path(directory) / "backend.json"
                backend.write_text(json.dumps([table["build-backend"], table.get("backend-path", [])]), encoding="utf-8")
                archive.add(backend, "backend.json")
            packed.seek(0)
            with new_file(path) as output:
                while chunk := packed.read(1 << 20):
                    output.write(chunk)
    return path


def build_system(source: Path, requirement: str) -> dict[str, Any]:
    """The ``[build-system]`` of a project, or what stands for it.

    :raises BuildError: when its pyproject.toml cannot be read.
    """
    project = source / "pyproject.toml"
    try:
        content = tomllib.loads(project.read_text(encoding="utf-8")) if project.is_file() else {}
        return {**LEGACY, **content.get("build-system", {})}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BuildError(f"The pyproject.toml of {requirement} cannot be read: {error}.") from None


def requirements_layer(job: CompileJob, source: Path, table: dict[str, Any], workspace: Workspace) -> str:
    """A layer, for the host, of what building a source needs. Returns the path of its archive.

    :raises BuildError: naming what there is no wheel of.
    """
    requirements = [*table["requires"], *ask_backend(source, table, job.platform, workspace)]
    subject = f"What is needed to build {job.requirement} ({', '.join(requirements)})"
    text = "".join(f"{each}\n" for each in requirements)
    pins = pins_for(resolve(text, [job.platform], workspace, subject, ["--only-binary", ":all:"]), job.platform)
    return build_layer(pins, [], job.platform, workspace)[0].path


def ask_backend(source: Path, table: dict[str, Any], platform: Platform, workspace: Workspace) -> list[str]:
    """What a build backend needs beyond what its project says; nothing when it cannot say so on the controller."""
    python = workspace.uv("python", "find", "--no-project", platform.python_version)
    done = workspace.uv(
        "run", "--quiet", "--no-project", "--isolated",
        "--python", python.stdout.strip() if python.returncode == 0 else sys.executable,
        *(f"--with={each}" for each in table["requires"]),
        "python", "-c", ASK, str(source), table["build-backend"], json.dumps(table.get("backend-path", [])),
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode != 0 or not re.match(r"\[.*\]\Z", last):
        return []
    return [str(each) for each in json.loads(last)]
