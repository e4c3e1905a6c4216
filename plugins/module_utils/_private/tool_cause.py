# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first cause in what a build tool, a compiler or a build backend has printed."""

from __future__ import annotations

import re

TRACEBACK = "Traceback (most recent call last):"
EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(:|$)")
ERROR = re.compile(r"(^|[\s:])(fatal )?error: |^(fatal|error)\b|not installed|not found|No such file", re.IGNORECASE)
NOISE = re.compile(r"^(Building (wheel|source distribution)\b.*|\s*\^+\s*|hint: .*)$")


def tool_cause(text: str, length: int = 400) -> str:
    """The exception of the first traceback, else the first line with an error, with what follows it, on one line.

    :param length: characters; what is longer is cut at its end.
    """
    lines = [line for line in text.splitlines() if line.strip() and not NOISE.match(line)]
    start = next((index for index, line in enumerate(lines) if TRACEBACK in line), None)
    if start is not None:
        start = next((index for index in range(start + 1, len(lines)) if EXCEPTION.match(lines[index])), start)
    else:
        start = next((index for index, line in enumerate(lines) if ERROR.search(line)), 0)
    said = " ".join(" ".join(lines[start:]).split())
    return said if len(said) <= length else said[:length].rpartition(" ")[0] + " …"
