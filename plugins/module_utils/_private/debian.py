# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages of a host."""

from __future__ import annotations

from .command import run


def missing_packages(names: list[str]) -> list[str]:
    """Those that are not installed."""
    return [
        name
        for name in names
        if run(["dpkg-query", "--show", "--showformat", "${db:Status-Status}", name]).stdout != "installed"
    ]
