# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every Python file of the collection says its licence in the same two lines."""

from __future__ import annotations

import re
import subprocess

from scripts import TOOLS

REPOSITORY = TOOLS.parent
HEADER = (
    "# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE\n"
    "# SPDX-License-Identifier: GPL-3.0-or-later\n"
)
APPS = ("app/", "tests/fixtures/apps/", "tests/apps/projects/", "tests/bench/rivals/app/")  # as users write them


def test_every_file_says_its_licence() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    without = []
    for name in tracked.stdout.split("\0"):
        path = REPOSITORY / name
        if name.startswith(APPS) or not path.is_file() or path.suffix not in ("", ".py"):
            continue
        text = path.read_text(encoding="utf-8")
        if (path.suffix == ".py" and text) or re.match("#!.*python", text):
            head = re.sub(r"\A#!.*\n", "", text)
            without += [] if head.startswith(HEADER) else [name]
    assert without == []
