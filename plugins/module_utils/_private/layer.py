# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""An unpacked layer becomes an environment of a Python: on hosts, and on the controller to ask the app about its settings."""

from __future__ import annotations

import glob
import os

from .command import run

# A release comes after its dependencies on sys.path, as a project does that is installed in editable mode: a directory of it
# that is named as one of them (alembic) hides none from a command. PYTHONPATH would come first, also before the standard library.
STARTUP_FILE = "forge.pth"
# Settings that are sealed to a host are set by any Python of the app, see roles/service/files/forge_credentials.py, also by one with -I,
# which leaves PYTHONPATH out of account.
STARTUP = """\
import os, sys; sys.path += [path for path in os.environ.get("FORGE_IMPORT_PATHS", "").split(os.pathsep) if path]
import os, sys; sys.path += [os.environ.get("PYTHONPATH", "")] * ("FORGE_CREDENTIAL" in os.environ)
import os, sys; "FORGE_CREDENTIAL" in os.environ and (__import__("forge_credentials"), sys.path.pop())
"""
PLACEHOLDER = b"#!python\n"  # first line of a script, for the interpreter of where it is installed (as in a wheel)


class LayerError(Exception):
    """A layer cannot become an environment here. Its text ends a sentence."""


def make_environment(directory: str, final: str, python: str) -> None:
    """Complete an unpacked layer.

    :param directory: where it lies now.
    :param final: where it will lie: scripts name it.
    :param python: absolute path of the interpreter.
    :raises LayerError: when that interpreter does not run, or is not the version that the layer is for.
    """
    ask = "import sys; print('%d.%d %d.%d.%d' % (sys.version_info[:2] + sys.version_info[:3]))"
    done = run([python, "-I", "-S", "-c", ask])
    if done.returncode != 0:
        raise LayerError(f"{python} does not run: {done.stderr.strip()[-300:]}")
    minor, version = done.stdout.split()
    libraries = os.path.join(directory, "lib")
    if os.path.isdir(libraries) and f"python{minor}" not in os.listdir(libraries):
        raise LayerError(f"{python} is Python {version}, and the layer is for {', '.join(os.listdir(libraries))}")
    scripts = os.path.join(directory, "bin")
    packages = os.path.join(libraries, f"python{minor}", "site-packages")
    os.makedirs(packages, mode=0o755, exist_ok=True)
    with open(os.path.join(packages, STARTUP_FILE), "w", encoding="utf-8") as handle:
        handle.write(STARTUP)
    os.makedirs(scripts, mode=0o755, exist_ok=True)
    for name in os.listdir(scripts):
        path = os.path.join(scripts, name)
        if os.path.isfile(path) and not os.path.islink(path):
            name_interpreter(path, f"#!{final}/bin/python\n".encode())
    for name in ("python", "python3"):
        os.symlink(python, os.path.join(scripts, name))
    # Source: Lib/venv/__init__.py (create_configuration); site.py reads the first two.
    text = f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\nversion = {version}\n"
    with open(os.path.join(directory, "pyvenv.cfg"), "w", encoding="utf-8") as handle:
        handle.write(text)


def finds_releases(directory: str) -> bool:
    """Whether an installed layer takes FORGE_IMPORT_PATHS: those of earlier versions of the collection do not."""
    return bool(startup_files(directory))


def sets_settings(directory: str) -> bool:
    """Whether an installed layer's Python sets settings that were sealed: those of earlier versions do not."""
    return any(b"FORGE_CREDENTIAL" in content_of(path) for path in startup_files(directory))


def content_of(path: str) -> bytes:
    """As read_file of layout.py, which is not there where an image is built."""
    with open(path, "rb") as handle:
        return handle.read()


def startup_files(directory: str) -> list[str]:
    return glob.glob(os.path.join(directory, "lib", "*", "site-packages", STARTUP_FILE))


def name_interpreter(path: str, line: bytes) -> None:
    """Put an interpreter into the first line of a script that waits for one."""
    with open(path, "rb+") as handle:
        content = handle.read()
        if content.startswith(PLACEHOLDER):
            handle.seek(0)
            handle.write(line + content[len(PLACEHOLDER) :])


def compile_bytecode(directory: str, final: str, python: str) -> None:
    """Compile what lies in a directory, on all cores. What cannot be compiled is left to who imports it."""
    run([python, "-I", "-m", "compileall", "-qq", "-j0", "-s", directory, "-p", final, directory])
