#!/usr/bin/env python3
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a build of the reference app for two platforms takes, cold and warm, and what becomes of it on a host.

Prints a table, and writes build/bench/build.json. Cold: nothing is cached, neither of ours nor of uv's. Host: a layer is unpacked,
made an environment and compiled here, with a Python of one of the platforms, as the module stage does it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
PLATFORMS = (("3.11.2", "x86_64", "2.36"), ("3.13.5", "x86_64", "2.41"))  # Debian 12 and 13
OPTIONS: dict[str, Any] = {
    "source": str(REPOSITORY / "app"), "target": "thecodeforge.main:app", "directory": "", "sha256": "", "extras": [],
    "dirty": True, "server": "gunicorn", "server_requirements": ["gunicorn", "uvicorn-worker", "uvicorn[standard]"],
    "exclude": ["tests"], "artifact": "", "cache_mb": 0,
}  # fmt: skip


def cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measured(action: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    started, used = time.monotonic(), cpu_seconds()
    result = action()
    return {"seconds": time.monotonic() - started, "cpu_seconds": cpu_seconds() - used}, result


def run_once(scratch: Path) -> dict[str, dict[str, float]]:
    from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.archive import unpack
    from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layer import (
        compile_bytecode,
        make_environment,
    )
    from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.release import build
    from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform
    from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace

    os.environ["UV_CACHE_DIR"] = str(scratch / "uv")
    workspace = Workspace(scratch / "cache")
    platforms = [Platform(*each, (f"host{number}",)) for number, each in enumerate(PLATFORMS)]
    # What runs here too, so that a host can be played.
    python = next((each for each in platforms if each.python.startswith(platform.python_version()[:4])), platforms[0])

    def built() -> dict[str, Any]:
        return build(OPTIONS, platforms, workspace, "bench")

    cold, result = measured(built)
    warm, _result = measured(built)
    blob = result["hosts"][python.hosts[0]]["blob"]["path"]

    def on_host() -> None:
        layer = str(scratch / "layer")
        unpack(blob, layer)
        make_environment(layer, layer, sys.executable)
        compile_bytecode(layer, layer, sys.executable)

    host, _none = measured(on_host)
    sent = Path(blob).stat().st_size + Path(result["code"]["path"]).stat().st_size
    return {"cold": cold, "warm": warm, "host": host, "sent": {"bytes": float(sent)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=5)
    reps = parser.parse_args().reps
    sys.path.insert(0, str(REPOSITORY / "build" / "collections"))
    runs = []
    for _number in range(reps):
        with tempfile.TemporaryDirectory() as scratch:
            runs.append(run_once(Path(scratch)))
    medians = {
        step: {key: round(statistics.median(run[step][key] for run in runs), 2) for key in runs[0][step]}
        for step in runs[0]
    }
    for step, values in medians.items():
        print(f"{step:6}" + "  ".join(f"{key} {value:g}" for key, value in values.items()))
    path = REPOSITORY / "build" / "bench" / "build.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"platforms": PLATFORMS, "medians": medians, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
