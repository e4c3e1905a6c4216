# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at backups on the host of a database: ``python3 -m forge_backup.run_watch SETTINGS``, the file that the role backup writes."""

from __future__ import annotations

import sys
import time

from .backup import read_document
from .backup_watch import watch
from .forge_notice import tell


def main() -> int:
    found = watch(read_document(sys.argv[1]), time.time(), tell)
    print("\n".join(found) or "Nothing is wrong.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
