# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages: what is installed or provided, and what no source has. Texts are of Debian 13."""

from __future__ import annotations

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.debian import (
    installed_packages,
    is_available,
    is_met,
)

LISTED = (
    "installed\tlibmagic1t64\tamd64\t1:5.46-5\tlibmagic1 (= 1:5.46-5)\n"
    "installed\tpython3\tamd64\t3.13.5-1\tpython3-profiler, python3:any (= 3.13.5-1)\n"
    "installed\tca-certificates\tall\t20250419\t\n"
    "installed\tdma\tamd64\t0.13-1\tmail-transport-agent\n"
    "config-files\tffmpeg\tamd64\t7:7.1.1\t\n"
)


@pytest.mark.parametrize(
    ("specifier", "is_there"),
    [
        ("libmagic1t64", True),
        ("libmagic1", True),  # provided
        ("libmagic1=1:5.46*", True),
        ("libmagic1=1:5.44-3", False),
        ("mail-transport-agent", True),
        ("mail-transport-agent=1", False),  # provided in no version
        ("python3:any", True),
        ("python3:amd64", True),
        ("python3:arm64", False),
        ("ca-certificates:amd64", True),  # of no architecture
        ("python3=3.13.5-1", True),
        ("python3=3.13*", True),
        ("python3=3.11*", False),
        ("python3-prof*", True),
        ("dma/trixie-backports", True),
        ("ffmpeg", False),  # removed, but for its configuration
        ("libpq5", False),
        ("not a package", False),
    ],
)
def test_what_apt_takes_for_installed_is(specifier: str, is_there: bool) -> None:
    assert any(is_met(specifier, package) for package in installed_packages(LISTED)) is is_there


@pytest.mark.parametrize(
    ("section", "available"),
    [
        (
            "libpq5\nVersions: \n17.12-0+deb13u1 (/var/lib/apt/lists/x_Packages)\n\nReverse Depends: \nReverse Provides: \n",
            True,
        ),
        ("libmagic1\nVersions: \n\nReverse Depends: \nReverse Provides: \nlibmagic1t64 1:5.46-5 (= 1:5.46-5)\n", True),
        ("python3.14\nVersions: \n\nReverse Depends: \n  a,python3.14\nProvides: \nReverse Provides: \n", False),
    ],
)
def test_what_a_source_has_or_provides_is_available(section: str, available: bool) -> None:
    assert is_available(section) is available
