# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages of a host."""

from __future__ import annotations

import subprocess


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
