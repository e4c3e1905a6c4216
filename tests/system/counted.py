# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Light load while something happens to what serves, as a row of a table that says what was lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOAD = Path(__file__).parents[1] / "bench" / "load.py"
FEWEST = 10  # requests: fewer prove nothing


@contextmanager
def counted(
    row: dict[str, Any], url: str, clients: str, pause: float, may_lose: str = "", seconds: int = 300
) -> Iterator[None]:
    """Requests while the block runs; afterwards the row has what became of them.

    :param clients: as tests/bench/load.py takes them.
    :param pause: seconds that a client waits after each request.
    :param may_lose: why this loses requests whatever one does.
    :param seconds: after which the load ends by itself.
    """
    command = [sys.executable, str(LOAD), url, "--clients", clients, "--pause", str(pause), "--seconds", str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        output, _errors = process.communicate(timeout=90)
    seen = json.loads(output)
    row |= {"requests": seen["total"], "lost": seen["total_lost"], "how": seen["lost"], "why": may_lose}
    row |= {"p50_ms": seen["p50_ms"], "p99_ms": seen["p99_ms"]}


def check_lost(row: dict[str, Any]) -> None:
    """Fail where requests were lost that need not be, or there were too few to tell."""
    assert row["requests"] > FEWEST
    assert row["why"] or row["how"] == {}, row["how"]
