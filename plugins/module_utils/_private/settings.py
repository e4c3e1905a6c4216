# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of a generation, as they lie on a host: in a file that systemd reads, or most of them sealed to the host.

What is sealed is a credential of systemd (systemd-creds(1)), encrypted with a key that is root's and never leaves the host. A service is
given it in memory, and forge_credentials.py of the service role puts it into the environment of the app.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from .command import run
from .environment import read_environment, write_environment
from .errors import STILL_SERVES, StageError

FILE, SEALED = "environment", "environment.cred"  # in the directory of a generation
CREDENTIAL = "environment"  # its name, which is sealed with it
LAUNCHER = ["python", "-m", "forge_credentials"]
LARGEST = 1 << 20  # bytes: CREDENTIAL_SIZE_MAX of systemd
# What is read before Python can set anything: by the loader, the C library, and Python itself.
EARLY = re.compile(r"^(LD_\w+|MALLOC_\w+|GLIBC_TUNABLES|LANG|LANGUAGE|LC_\w+|TZ|TZDIR|PYTHON\w*)\Z")
SECONDS = 60  # for a call of systemd


def are_sealed(unit: str) -> bool:
    """Does a unit of the app take its settings from a credential?"""
    return f"\nLoadCredentialEncrypted={CREDENTIAL}:" in unit


def launched(unit: str, argv: list[str]) -> list[str]:
    """A command as it gets the settings of a unit, whatever its program is."""
    return [*LAUNCHER, *argv] if are_sealed(unit) else argv


def parts(text: str, sealed: bool) -> dict[str, str]:
    """Name of each file of a generation that has settings, to the text that it has or, when that is sealed, holds."""
    if not sealed:
        return {FILE: text}
    settings = read_environment(text)
    early = {name: value for name, value in settings.items() if EARLY.match(name)}
    return {
        FILE: write_environment(early),
        SEALED: write_environment({k: settings[k] for k in settings if k not in early}),
    }


def read_settings(home: str) -> str:
    """Text of all settings of a generation, as :func:`write_environment` gives it.

    :param home: the generation's directory.
    :raises OSError: when they are not there, or were sealed on another host.
    """
    with open(os.path.join(home, FILE), encoding="utf-8") as handle:
        text = handle.read()
    try:
        with open(os.path.join(home, SEALED), "rb") as handle:
            sealed = handle.read()
    except FileNotFoundError:
        return text
    return write_environment({**read_environment(text), **read_environment(unseal(sealed))})


def seal(text: str) -> bytes:
    """Encrypt settings for this host.

    :raises StageError: when they are too long, or systemd cannot.
    """
    if len(text.encode()) > LARGEST:
        raise StageError(
            f"The settings have {len(text.encode())} bytes, and a credential can have {LARGEST}: give the largest as a file, with "
            f"forge_files, or set forge_secrets: file. {STILL_SERVES}"
        )
    try:
        done = systemd_creds("encrypt", text.encode())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StageError(f"systemd cannot seal the settings: {error}. {STILL_SERVES}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it does not say why"]
        raise StageError(f"systemd cannot seal the settings: {said[-1].rstrip('.')}. {STILL_SERVES}")
    return bytes(done.stdout)


def unseal(sealed: bytes) -> str:
    """The settings that :func:`seal` was given.

    :raises OSError: when they were sealed on another host, or are damaged.
    """
    try:
        done = systemd_creds("decrypt", sealed)
    except subprocess.TimeoutExpired:
        raise OSError(0, "systemd-creds does not answer") from None
    if done.returncode != 0:
        raise OSError(0, "its settings were not sealed on this host, or are damaged")
    return str(done.stdout.decode())


def systemd_creds(verb: str, content: bytes) -> subprocess.CompletedProcess[bytes]:
    # The host's key, and no TPM's: a disk that moves to another board, or a new firmware, must not end the app.
    key = ["--with-key=host"] if verb == "encrypt" else []
    argv = ["systemd-creds", *key, f"--name={CREDENTIAL}", verb, "-", "-"]
    return run(argv, input=content, text=False, errors=None, timeout=SECONDS)


def credentials_problem() -> str:
    """Why services of this host are given no credentials, the end of a sentence; empty when they are. It is tried."""
    if not shutil.which("systemd-creds"):
        return "its systemd is older than 250"
    probe = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--property", "SetCredential=probe:works"]
    try:
        done = run([*probe, "--", "/bin/sh", "-c", 'cat "$CREDENTIALS_DIRECTORY/probe"'], timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "its systemd does not answer"
    return "" if done.stdout == "works" else "its services are given none, as in some containers"
