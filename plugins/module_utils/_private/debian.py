# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Debian packages of a host."""

from __future__ import annotations

import os
import re
import subprocess


class AptError(Exception):
    """apt's own words."""


def missing_packages(names: list[str]) -> list[str]:
    """Those that are not installed."""
    return [
        name
        for name in names
        if subprocess.run(
            ["dpkg-query", "--show", "--showformat", "${db:Status-Status}", name],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        ).stdout != "installed"
    ]  # fmt: skip


def install(names: list[str]) -> None:
    """Install packages, with fresh lists where those can be had.

    :raises AptError: when apt could not.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", "--", *names]):
        done = subprocess.run(
            ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *words], env=environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    if done.returncode != 0:
        said = " ".join(re.findall(r"^E: (.*)$", done.stderr, re.MULTILINE)) or done.stderr
        raise AptError(" ".join(said.split())[-600:])
