# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the lab, without a node."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

LAB = Path(__file__).with_name("lab")


@pytest.mark.parametrize("arguments", [["--inventory"], ["--json"]])
def test_a_reader_that_has_seen_enough_ends_the_list_quietly(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [LAB, "list", "--set", "nobody", *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(writing)
    assert "Error" not in done.stderr
    assert "Exception" not in done.stderr
