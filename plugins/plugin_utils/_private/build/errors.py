# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class BuildError(Exception):
    """A build that cannot go on. Its text is for the user: what is wrong, where, what to do; never a secret."""
