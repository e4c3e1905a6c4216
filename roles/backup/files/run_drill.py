# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a drill on the host of a database: ``python3 -m forge_backup.run_drill SETTINGS``, the file that the role backup writes."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from .backup import read_document
from .drill import record


def stop(*_signal: object) -> NoReturn:
    """What was begun is removed again."""
    sys.exit(1)


def main() -> int:
    signal.signal(signal.SIGTERM, stop)
    settings = read_document(sys.argv[1])
    problem = record(settings["cluster"], settings["port"], settings["database"], settings["drill_command"])
    print(problem or "The database comes back.")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
