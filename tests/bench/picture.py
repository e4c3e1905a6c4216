# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws what swap.py gives on standard input: requests per 100 ms and the worst latency of each, swaps marked."""

import json
import sys

import matplotlib.pyplot as plt

ways = json.load(sys.stdin)
figure, rows = plt.subplots(len(ways), 1, figsize=(10, 1.9 * len(ways) + 0.4), sharex=True, squeeze=False)
for (axis,), way in zip(rows, ways, strict=True):
    seconds = [slot / 10 for slot in range(len(way["count"]))]
    axis.step(seconds, way["count"], color="tab:blue", linewidth=0.6)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("answers / 100 ms", color="tab:blue", fontsize=8)
    other = axis.twinx()
    other.plot(seconds, way["worst"], color="tab:orange", linewidth=0.5)
    other.set_yscale("symlog", linthresh=10)
    other.set_ylim(bottom=0)
    other.set_ylabel("slowest, ms", color="tab:orange", fontsize=8)
    for swap in way["swaps"]:
        axis.axvline(swap, color="tab:green", linewidth=1, linestyle="--")
    axis.set_title(f"{way['name']}: {way['lost']} of {way['total']} requests lost in all", fontsize=9, loc="left")
    for each in (axis, other):
        each.tick_params(labelsize=7)
rows[-1][0].set_xlabel("seconds; dashed: a swap", fontsize=8)
figure.tight_layout()
figure.savefig(sys.argv[1], dpi=75)
