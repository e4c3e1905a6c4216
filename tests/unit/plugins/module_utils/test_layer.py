# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""An unpacked layer as an environment of a Python, and where a release is in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layer import (
    finds_releases,
    make_environment,
)

PACKAGES = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
COMMAND = "#!python\nimport email.utils, alembic.config, shop\nprint(alembic.config.__file__, shop.__file__)\n"


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    home = tmp_path / "layer"
    for name, text in (
        (f"{PACKAGES}/alembic/__init__.py", ""),
        (f"{PACKAGES}/alembic/config.py", ""),
        ("bin/alembic", COMMAND),
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    (home / "bin" / "alembic").chmod(0o755)
    make_environment(str(home), str(home), sys.executable)
    return home


def test_what_a_release_names_as_a_library_hides_it_from_no_command(layer: Path, tmp_path: Path) -> None:
    """A directory ``alembic`` with migrations that is a package; and one named as a module of the standard library."""
    release = tmp_path / "release"
    for name in ("alembic/__init__.py", "email/__init__.py", "src/shop.py"):
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_text("")
    environment = {"PATH": "/usr/bin:/bin", "FORGE_IMPORT_PATHS": f"{release}/src:{release}/"}
    done = subprocess.run([layer / "bin" / "alembic"], cwd=release, env=environment, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (
        [f"{layer}/{PACKAGES}/alembic/config.py", f"{release}/src/shop.py"],
        "",
    )


def test_a_layer_of_an_earlier_version_is_told_apart(layer: Path) -> None:
    assert finds_releases(str(layer))
    (layer / PACKAGES / "forge.pth").unlink()
    assert not finds_releases(str(layer))
    done = subprocess.run([layer / "bin" / "python", "-c", "import alembic"], env={}, capture_output=True)
    assert done.returncode == 0
