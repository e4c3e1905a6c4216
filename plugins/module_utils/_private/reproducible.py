# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes the same source give the same wheel."""

from __future__ import annotations

EPOCH = "315532800"  # SOURCE_DATE_EPOCH: 1980, where the time of a zip archive begins
