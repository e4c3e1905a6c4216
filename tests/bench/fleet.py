# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a fleet takes from its first switch to the end, how far apart the hosts of a wave switch, and how soon a wave that
fails is taken back.

usage: fleet.py [--hosts 3,10] [--rounds 5] [--pause 0.2]

Releases of a small app to nodes of the lab that share this machine, with three clients on every host that never retry: with the default
waves, and host by host. Then releases that turn sick on the last host. Prints a row for each; writes medians to
build/bench/fleet.json: `hosts`, `waves`, `wall_s` (first switch to the end of the run), `switch_spread_s` (inside the largest wave),
`take_back_s` (from the first host that went back to the last), `lost`, `requests`, `watch_s`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "system"))
os.environ.setdefault("FORGE_TEST_SET", "fleet")

from conftest import SET, Fleet  # noqa: E402
from test_waves import HEALTH, MAIN, SETTINGS  # noqa: E402
from tiny import load, write_project  # noqa: E402

RESULT = REPOSITORY / "build" / "bench" / "fleet.json"
WATCH = 10  # seconds, the default
WAYS: dict[str, dict[str, Any]] = {"1, 100%": {}, "host by host": {"forge_batch": "1"}}
CLIENTS = {"keepalive": 1, "closing": 1, "post": 1}


def names(count: int) -> list[str]:
    return [f"f{number:02}" for number in range(1, count + 1)]


def change(source: Path) -> None:
    (source / "shop" / "version.py").write_text(f"VERSION = {time.time()}\n")


def switched_at(fleet: Fleet, hosts: list[str]) -> list[float]:
    return [float(fleet.on(host, "stat -c %.Y /srv/wavy/current")) for host in hosts]


@contextmanager
def loaded(fleet: Fleet, hosts: list[str], pause: float, sick: str = "") -> Iterator[dict[str, int]]:
    """Clients on each host while the block runs.

    :param sick: host whose app answers 503 for a while, which is no loss of the release's.
    """
    counts = {"lost": 0, "requests": 0}
    with ExitStack() as stack:
        results = {host: stack.enter_context(load(fleet.url(host, ""), pause=pause, **CLIENTS)) for host in hosts}
        time.sleep(1)
        yield counts
        time.sleep(1)
    counts["lost"] = sum(
        count
        for host, result in results.items()
        for how, count in result["lost"].items()
        if host != sick or not how.endswith("status 503")
    )
    counts["requests"] = sum(result["total"] for result in results.values())


def release(fleet: Fleet, hosts: list[str], way: dict[str, Any], pause: float, sick: bool) -> dict[str, Any]:
    """One release under load; one that is sick on the last host is taken back."""
    change(Path(fleet.variables["forge_source"]))
    limit = ":".join(hosts)
    if sick:
        fleet.on(hosts[-1], "touch /run/sick")
    with loaded(fleet, hosts, pause, hosts[-1] if sick else "") as counts:
        run = fleet.play("deploy", check=False, limit=limit, **way)
        ended = time.time()
    if sick:
        fleet.on(hosts[-1], "rm /run/sick")
    if bool(run.rc) != sick:
        raise SystemExit(run.output[-3000:])
    times = switched_at(fleet, hosts)
    wave = times[1:] if not way and len(hosts) > 1 else times
    row = {
        "wall_s": ended - min(times),
        "switch_spread_s": 0.0 if way else max(wave) - min(wave),
        "take_back_s": max(times) - times[-1] if sick else 0.0,
        **counts,
    }
    return {name: round(value, 2) for name, value in row.items()}


def measure_all(fleet: Fleet, given: argparse.Namespace) -> None:
    sizes = sorted(map(int, given.hosts.split(",")))
    main_py = MAIN.replace('lambda: (int(os.environ.get("HEALTH", 200)), {})', "health") + HEALTH
    source = write_project(RESULT.parent / "wavy", "gunicorn", "uvicorn-worker", main=main_py)
    fleet.variables = {**SETTINGS, "forge_watch_seconds": WATCH, "forge_source": str(source)}
    fleet.play("site")
    rows = []
    for size in sizes:
        for name, way in WAYS.items():
            count = 1 if way and size > 3 else given.rounds  # ten watches, one after the other: what it was before
            rounds = [release(fleet, names(size), way, given.pause, sick=False) for _ in range(count)]
            sick = (
                [release(fleet, names(size), way, given.pause, sick=True) for _ in range(given.rounds)]
                if not way
                else []
            )
            row: dict[str, Any] = {"hosts": size, "waves": name, "watch_s": WATCH, "pause_s": given.pause}
            for what in ("wall_s", "switch_spread_s"):
                row[what] = median(each[what] for each in rounds)
            row["take_back_s"] = median(each["take_back_s"] for each in sick) if sick else None
            row["lost"] = sum(each["lost"] for each in rounds + sick)
            row["requests"] = sum(each["requests"] for each in rounds + sick)
            row["all"] = {"releases": rounds, "taken back": sick}
            rows.append(row)
            print({key: value for key, value in row.items() if key != "all"}, flush=True)
            RESULT.write_text(json.dumps(rows, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", default="3,10")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--pause",
        type=float,
        default=0.2,
        help="seconds between two requests of a client; 0 takes all that the machine has",
    )
    given = parser.parse_args()
    sizes = sorted(map(int, given.hosts.split(",")))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    with Fleet(lab_set=f"{SET}waves", without_database=True).with_nodes(
        *(f"{name}=debian{12 + index % 2}:forge_app" for index, name in enumerate(names(sizes[-1])))
    ) as fleet:
        measure_all(fleet, given)


if __name__ == "__main__":
    main()
