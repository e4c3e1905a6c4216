# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that systemd hands over as a credential, in the environment of whatever the app runs.

What a process begins with can be read in /proc/PID/environ; what it sets itself is in its memory alone. So a
Python of the app's layer sets them as it starts: forge.pth there imports this where the unit says FORGE_CREDENTIAL. Another program
gets them from `python -m forge_credentials [NAME=VALUE ...] PROGRAM [ARGUMENT ...]`, which becomes that program.

FORGE_CREDENTIAL  name of the credential, and names of variables that it must not set; gone afterwards, as what is started by the app has
                  the environment that the app gives it
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys

MARK = "FORGE_CREDENTIAL"
BEFORE: dict[str, str] = {}  # the environment without them


def read(text: str) -> dict[str, str]:
    """As read_environment of plugins/module_utils/_private/environment.py."""
    found = re.findall(r'^(\w+)="((?:[^"\\]|\\.)*)"\n', text, re.MULTILINE | re.DOTALL)
    return {name: re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) for name, value in found}


def load() -> None:
    """Set them. A process that cannot read them ends: without them it would run with other settings."""
    credential, *kept = os.environ[MARK].split()
    path = os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", "/"), credential)
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            settings = read(handle.read())
    except OSError as error:
        sentence = f"The settings, credential {credential} of systemd, cannot be read: {error.strerror}."
        sys.stderr.write(sentence + "\n")
        sys.stderr.flush()
        os._exit(1)  # an exception would be told with a traceback of Python's own start
    BEFORE.update(os.environ)
    del os.environ[MARK]
    os.environ.update({name: value for name, value in settings.items() if name not in kept})


def is_of_the_layer(program: str) -> bool:
    """Is a program the layer's Python, or a script of it, so that it sets them itself?"""
    directory = os.path.dirname(sys.executable)
    path = shutil.which(program) or ""
    if os.path.dirname(path) == directory and os.path.basename(path).startswith("python"):
        return True
    try:
        with open(path, "rb") as handle:
            return handle.readline().startswith(f"#!{directory}/python".encode())
    except OSError:
        return False


def become(argv: list[str]) -> None:
    """Go on as a program; with variables before it, as env(1) has them."""
    given = [word.partition("=")[0] for word in itertools.takewhile(lambda word: "=" in word, argv)]
    program = argv[len(given)] if len(given) < len(argv) else ""
    environment = dict(os.environ)
    if BEFORE and is_of_the_layer(program):
        environment = {**BEFORE, MARK: " ".join([BEFORE[MARK], *given])}
    os.execve("/usr/bin/env", ["env", "--", *argv], environment)  # noqa: S606 (it has been one all along)


if __name__ == "__main__":
    import forge_credentials  # the one that has loaded them

    forge_credentials.become(sys.argv[1:])
elif MARK in os.environ:
    load()
