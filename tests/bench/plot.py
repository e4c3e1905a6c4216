"""Draws build/bench/converge.json: plot.py JSON SVG. Needs matplotlib."""

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


def main() -> None:
    rows = [row for row in json.loads(Path(sys.argv[1]).read_text()) if row.get("work") in LABELS]
    fleets = sorted({row["hosts"] for row in rows})
    works = [work for work in LABELS if any(row["work"] == work for row in rows)]
    figure, all_axes = plt.subplots(
        len(works), len(fleets), figsize=(4.2 * len(fleets), 1.25 * len(works)), squeeze=False, layout="constrained"
    )
    for work, line in zip(works, all_axes, strict=True):
        for hosts, axes in zip(fleets, line, strict=True):
            found = {row["tool"]: row for row in rows if (row["work"], row["hosts"]) == (work, hosts)}
            tools = [tool for tool in COLOURS if tool in found]
            if not tools:
                axes.set_axis_off()
                continue
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
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
