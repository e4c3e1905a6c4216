# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""What travels to a host that compiles a wheel: the source, the wheels that building it needs, and uv.

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

from .compiled import Job
from .errors import BuildError
from .cache import keep
from .index import Index
from .lockfile import pins_for
from .target_platform import Platform
from .wheels import explain_pip, fetch_installer, fetch_wheels

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


def pack(job: Job, cache: Path, index: Index) -> Path:
    """Write what a host needs to compile a wheel into one archive.

    :raises BuildError: one sentence.
    """
    path = cache / "sources" / f"{job.shelf.name}.tar"
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        source = job.source(scratch)
        packed = scratch / path.name
        with tarfile.open(packed, "w") as archive:
            archive.add(source, "source")  # before the backend is asked, which may leave files there
            archive.add(fetch_installer(cache, job.platform, index), "uv.whl")
            wheels = scratch / "wheels"
            wheels.mkdir()
            fetch_requires(job, source, wheels, index)
            archive.add(wheels, "wheels")
        path.unlink(missing_ok=True)
        keep(path, packed.read_bytes(), [])
    return path


def fetch_requires(job: Job, source: Path, wheels: Path, index: Index) -> None:
    """Wheels, for the host, of what building a source needs.

    :raises BuildError: naming what there is no wheel of.
    """
    project = source / "pyproject.toml"
    try:
        given = tomllib.loads(project.read_text(encoding="utf-8")) if project.is_file() else {}
        table = {**LEGACY, **given.get("build-system", {})}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BuildError(f"The pyproject.toml of {job.requirement} cannot be read: {error}.") from None
    needed = [*table["requires"], *ask_backend(source, table, job.platform, index)]
    if not needed:
        return
    done = index.uv(
        "pip", "compile", "--quiet", "--universal", "--only-binary", ":all:", "--generate-hashes", "--no-header",
        "--no-annotate", "--python-version", job.platform.minor, "-", text="".join(f"{each}\n" for each in needed),
    )  # fmt: skip
    words = " ".join(done.stderr.split())[-600:]
    if done.returncode == 0:
        failed = fetch_wheels(pins_for(done.stdout, job.platform), wheels, job.platform, index)
        words = explain_pip(failed, job.platform) if failed else ""
    if words:
        raise BuildError(
            f"What is needed to build {job.requirement} ({', '.join(needed)}) is not there as wheels: {words}"
        )


def ask_backend(source: Path, table: dict[str, Any], platform: Platform, index: Index) -> list[str]:
    """What a build backend needs beyond what its project says; nothing when it cannot say so here."""
    python = index.uv("python", "find", "--no-project", platform.minor)
    done = index.uv(
        "run", "--quiet", "--no-project", "--isolated",
        "--python", python.stdout.strip() if python.returncode == 0 else sys.executable,
        *(f"--with={each}" for each in table["requires"]),
        "python", "-c", ASK, str(source), table["build-backend"], json.dumps(table.get("backend-path", [])),
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode != 0 or not re.match(r"\[.*\]\Z", last):
        return []
    return [str(each) for each in json.loads(last)]
