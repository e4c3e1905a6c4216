# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Directories of layers and releases: when one is complete, and what makes an unpacked layer a Python environment."""

from __future__ import annotations

import hashlib
import os
import subprocess

from .errors import StageError
from .layout import write_atomically

COMPLETE = ".complete"
SCRIPT_START = b"#!python\n"  # what a layer's archive has where its own Python belongs
ASK_PYTHON = "import sys; print(sys._base_executable); print('%d.%d.%d' % sys.version_info[:3])"


def fingerprint(directory: str) -> str:
    """Hash of names, sizes, times, modes and owners below a directory: cheap, and sees any edit by hand.

    Byte code is left out, as Python may rewrite it.
    """
    digest = hashlib.sha256()
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        for name in sorted(names):
            if parent == directory and name == COMPLETE:
                continue
            found = os.lstat(os.path.join(parent, name))
            seen = (os.path.join(parent, name), found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid)
            digest.update(repr(seen).encode())
    return digest.hexdigest()


def is_complete(directory: str) -> bool:
    """Is a layer or a release complete and as it was left?"""
    try:
        with open(os.path.join(directory, COMPLETE), encoding="ascii") as handle:
            return handle.read() == fingerprint(directory)
    except (OSError, UnicodeDecodeError):
        return False


def mark_complete(directory: str) -> None:
    """Let a layer or a release count. Comes last, after all that it vouches for is on the disk."""
    os.sync()
    write_atomically(os.path.join(directory, COMPLETE), fingerprint(directory).encode(), 0o644)


def make_environment(directory: str, layer: str, python: str) -> None:
    """Make a virtual environment of an unpacked layer: what ``venv`` does, without its pip.

    :param directory: where it is now.
    :param layer: where it will be: its scripts name it.
    :param python: interpreter on the host.
    :raises StageError: when the interpreter does not run.
    """
    try:
        asked = subprocess.run(
            [python, "-I", "-c", ASK_PYTHON], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
        base, version = asked.stdout.splitlines()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        last = " ".join(str(getattr(error, "stderr", None) or error).split()[-30:])
        raise StageError(f"{python}, the Python of layer {os.path.basename(layer)}, does not run: {last}") from None
    home = os.path.dirname(base)
    versioned = os.path.join(home, "python" + version.rpartition(".")[0])
    if os.path.exists(versioned):  # python3 may be another one after an upgrade of the system
        base = versioned
    programs = os.path.join(directory, "bin")
    os.makedirs(programs, mode=0o755, exist_ok=True)
    for script in os.scandir(programs):
        if script.is_file(follow_symlinks=False):
            set_interpreter(script.path, os.path.join(layer, "bin", "python"))
    os.symlink(base, os.path.join(programs, "python"))
    os.symlink("python", os.path.join(programs, "python3"))
    settings = f"home = {home}\ninclude-system-site-packages = false\nversion = {version}\n"
    write_atomically(os.path.join(directory, "pyvenv.cfg"), settings.encode(), 0o644)
    compile_bytecode(os.path.join(directory, "lib"), os.path.join(layer, "lib"), python)


def set_interpreter(script: str, interpreter: str) -> None:
    """Have a script of a layer start with the layer's own Python; other files stay as they are."""
    with open(script, "rb+") as handle:
        if handle.readline() == SCRIPT_START:
            rest = handle.read()
            handle.seek(0)
            handle.write(b"#!" + interpreter.encode() + b"\n" + rest)


def compile_bytecode(directory: str, final: str, python: str) -> None:
    """Compile on all cores. What does not compile, such as a template, is left to who imports it.

    :param final: where the directory will be: tracebacks name it.
    """
    subprocess.run(
        [python, "-Im", "compileall", "-qq", "-j", "0", "-s", directory, "-p", final, directory],
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
