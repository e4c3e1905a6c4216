#!/usr/bin/env -S python3 -IS
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's nodes as an inventory: those of the set FORGE_LAB_SET, or demo. Addresses are asked, never kept."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "lab"))

from forge_lab.inventory import show
from forge_lab.state import default_set

show(default_set())
