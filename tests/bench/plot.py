# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws build/bench/converge.json, or several such of one fleet each: plot.py JSON… SVG. Needs matplotlib."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "forge", "font.size": 9})

from matplotlib import pyplot as plt  # noqa: E402

LABELS = {
    "provision": "first provision",
    "nothing": "nothing changes",
    "code": "code-only release",
    "setting": "changed setting",
    "rollback": "rollback",
}
COLOURS = {"ours": "#2f6f4f", "pyinfra": "#7a8fb8", "mitogen": "#c9a25c", "ansible": "#b4646a"}
COLUMNS = 3


def main() -> None:
    rows = [row for path in sys.argv[1:-1] for row in json.loads(Path(path).read_text()) if row.get("work") in LABELS]
    panels = [
        (work, hosts, {row["tool"]: row for row in rows if (row["work"], row["hosts"]) == (work, hosts)})
        for hosts in sorted({row["hosts"] for row in rows})
        for work in LABELS
    ]
    panels = [panel for panel in panels if set(panel[2]) & set(COLOURS)]
    lines = -(-len(panels) // COLUMNS)
    figure, all_axes = plt.subplots(
        lines, COLUMNS, figsize=(4.2 * COLUMNS, 1.25 * lines), squeeze=False, layout="constrained"
    )
    for axes in all_axes.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (work, hosts, found) in zip(all_axes.flat, panels, strict=False):
        tools = [tool for tool in COLOURS if tool in found]
        walls = [found[tool]["wall_s"] for tool in tools]
        spread = [
            [wall - found[tool]["wall_s_min"] for tool, wall in zip(tools, walls, strict=True)],
            [found[tool]["wall_s_max"] - wall for tool, wall in zip(tools, walls, strict=True)],
        ]
        bars = axes.barh(tools, walls, xerr=spread, color=[COLOURS[tool] for tool in tools], ecolor="#888")
        axes.bar_label(bars, [f"{wall:.1f}" for wall in walls], label_type="center", color="white")
        if "floor" in found:
            axes.axvline(found["floor"]["wall_s"], color="black", linestyle=":", linewidth=1)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{LABELS[work]}, {hosts} host{'s' if hosts > 1 else ''} (s)", loc="left", fontsize=9)
    figure.savefig(sys.argv[-1], metadata={"Date": None})


if __name__ == "__main__":
    main()
