# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Swaps under load: what is lost, by this collection and by what people use instead.

usage: swap.py [--swaps 20] [--requests 1000000] [--short]

Two generations are staged by site.yml and deploy.yml on a node of the lab. The swaps between them are the steps of
the rollout module, called over SSH as the playbooks call them; only the playbook around them is left out, so that
twenty take minutes. The same load then meets, on the same node with the same code, layer, settings and number of
workers: ``systemctl restart`` of one Gunicorn with the stock UvicornWorker, its HUP, and two such units that share a
socket of systemd, the new one started before the old one is stopped.

Clients: load.py, of seven kinds, for all ways alike: POST with serials that are looked up in the database afterwards,
slow answers, event streams, websockets, pauses, and when each answer came. The million comes from wrk beside it,
keep-alive and "Connection: close": it counts each failed connect, read, write and status, and never retries (hey
retries silently, h2load does not reconnect). The others go without wrk: where nobody listens it tries again at once,
thousands of times, and its count would say how fast wrk is.

Prints a table; writes build/bench/swap.json and docs/swap.png (--short: four swaps of ours, and no picture).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "system"))
os.environ.setdefault("FORGE_TEST_SET", "swap")

from conftest import LAB, SET, Fleet  # noqa: E402

RESULTS = REPOSITORY / "build" / "bench"
NODE, DATABASE = "app12", "db"
PORT, OTHER_PORT = 8000, 8100
DRAIN = 8  # seconds: more than the slow request, and streams end a second before
CLIENTS = "keepalive=4,closing=3,post=4,slow=4,sse=4,websocket=4,pausing=6"
KINDS = tuple(part.split("=")[0] for part in CLIENTS.split(","))
SETTINGS: dict[str, Any] = {"forge_drain_seconds": DRAIN, "forge_watch_seconds": 1, "forge_access_log": False,
                            "forge_streams": "end"}  # fmt: skip


@dataclass
class Variant:
    """One way to bring new code into service, and what it did to the clients."""

    name: str
    requests: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0
    swaps: list[dict[str, float]] = field(default_factory=list)
    samples: list[tuple[str, float, float]] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    writes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0

    def quick(self) -> list[tuple[float, float]]:
        """When and how long, of the kinds whose answer takes no time by itself."""
        return [(when, seconds) for kind, when, seconds in self.samples if kind != "slow"]

    def summary(self) -> dict[str, Any]:
        flips = [swap["flipped"] for swap in self.swaps]
        in_swap, outside = [], []
        for when, seconds in self.quick():
            if any(flip <= when < flip + 1 for flip in flips):
                in_swap.append(seconds)
            elif not any(swap["began"] <= when < swap["ended"] for swap in self.swaps):
                outside.append(seconds)
        took = [swap["ended"] - swap["began"] for swap in self.swaps]
        flip_took = [swap["switched_in"] for swap in self.swaps if "switched_in" in swap]
        return {
            "name": self.name,
            "seconds": round(self.seconds, 1),
            "swaps": len(self.swaps),
            "requests": dict(self.requests),
            "total": sum(self.requests.values()),
            "lost": dict(self.lost),
            "total_lost": sum(self.lost.values()),
            "ends": dict(self.ends),
            "reconnects": self.reconnects,
            "writes": self.writes,
            "p99_in_swap_ms": p99(in_swap),
            "p99_outside_ms": p99(outside),
            "p99_all_ms": p99([seconds for _when, seconds in self.quick()]),
            "flip_seconds": {"median": median(flip_took), "longest": max(flip_took, default=None)},
            "swap_seconds": {"median": median(took), "longest": round(max(took, default=0), 2)},
        }


def p99(seconds: list[float]) -> float | None:
    ordered = sorted(seconds)
    return round(1000 * ordered[int(len(ordered) * 0.99)], 1) if ordered else None


def median(numbers: list[float]) -> float | None:
    return round(statistics.median(numbers), 2) if numbers else None


# -- load ------------------------------------------------------------------------------------------


@contextmanager
def load(fleet: Fleet, variant: Variant, port: int, bulk: bool, resumes: bool) -> Iterator[None]:
    """Clients of every kind against the node while the block runs; what they saw is added to the variant."""
    url = f"http://{fleet.address(NODE)}:{port}"
    name = f"swap-{os.getpid()}-{time.time_ns()}"
    samples = RESULTS / f"{name}.samples"
    own = subprocess.Popen(
        [
            sys.executable, str(REPOSITORY / "tests" / "bench" / "load.py"), url, "--seconds", "900",
            "--clients", CLIENTS, "--pause", "0.02", "--name", name, "--samples", str(samples),
            *(["--resumes"] if resumes else []),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    wrks = {}
    if bulk:
        wrk = ["wrk", "--threads", "1", "--duration", "900", "--timeout", "30"]
        for kind, options in (
            ("keepalive", ["--connections", "16"]),
            ("closing", ["--connections", "8", "--header", "Connection: close"]),
        ):
            command = ["nice", *wrk, *options, f"{url}/healthz"]
            wrks[kind] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    began = time.time()
    try:
        time.sleep(2)
        yield
        time.sleep(2)
    finally:
        for process in wrks.values():
            process.send_signal(signal.SIGINT)
        printed = {kind: process.communicate(timeout=60)[0] for kind, process in wrks.items()}
        output, _errors = own.communicate(timeout=60)
    variant.seconds += time.time() - began
    seen = json.loads(output)
    variant.requests.update(seen["requests"])
    variant.lost.update(seen["lost"])
    variant.ends.update(seen["ends"])
    variant.reconnects += seen["reconnects"]
    for kind, text in printed.items():
        requests, lost = read_wrk(text)
        variant.requests[kind] += requests + sum(lost.values())
        variant.lost.update({f"{kind}: {how}": count for how, count in lost.items()})
    with samples.open(encoding="ascii") as handle:
        for line in handle:
            kind, when, seconds = line.split()
            variant.samples.append((kind, float(when), float(seconds)))
    samples.unlink()
    check_writes(fleet, variant, name, seen)


def read_wrk(text: str) -> tuple[int, dict[str, int]]:
    """Requests answered, and how others failed, from what wrk prints at its end."""
    answered = re.search(r"(\d+) requests in ", text)
    if not answered:
        raise RuntimeError(f"wrk printed no result: {text!r}")
    lost = {}
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    if errors:
        names = ("refused", "cut: read", "cut: write", "timed out")
        lost = {name: int(count) for name, count in zip(names, errors.groups(), strict=True) if int(count)}
    status = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if status:
        lost["status"] = int(status[1])
    return int(answered[1]) - lost.get("status", 0), lost


def check_writes(fleet: Fleet, variant: Variant, name: str, seen: dict[str, Any]) -> None:
    """Every acknowledged write exactly once, and none that was not sent."""
    query = f"select serial from parts where name = '{name}'"
    stored = Counter(fleet.on(DATABASE, f'runuser -u postgres -- psql -At forge -c "{query}"').split())
    acknowledged, unsure = set(seen["acknowledged"]), set(seen["unsure"])
    found = {
        "acknowledged": len(acknowledged),
        "missing": len(acknowledged - stored.keys()),
        "twice": sum(count > 1 for count in stored.values()),
        "never_sent": len(stored.keys() - acknowledged - unsure),
        "stored_but_not_acknowledged": len(stored.keys() & unsure),
    }
    variant.writes = {key: variant.writes.get(key, 0) + count for key, count in found.items()}


# -- ours ------------------------------------------------------------------------------------------


def prepare(fleet: Fleet, source: Path) -> list[str]:
    """Ids of two generations of the app, with the bench's routes, staged on the node; the last one serves."""
    changed = source / "src" / "thecodeforge" / "swapped.py"
    generations = []
    for version in ("one", "two"):
        changed.write_text(f"SWAPPED = {version!r}\n")
        fleet.play("deploy", limit=NODE, **SETTINGS)
        generations.append(fleet.live(NODE))
    return generations


def add_routes(source: Path) -> None:
    main = source / "src" / "thecodeforge" / "main.py"
    text, routes = main.read_text(), (REPOSITORY / "tests" / "bench" / "routes.py").read_text()
    if routes not in text:
        main.write_text(f"{text}\n\n{routes}")


def step(generation: str, name: str) -> dict[str, Any]:
    """One step of the rollout module, over SSH."""
    arguments = {"app": "forge", "root": "/srv", "generation": generation, "step": name, "by": "bench",
                 "drain_seconds": DRAIN, "watch_seconds": SETTINGS["forge_watch_seconds"],
                 **({"through": "finish"} if name == "switch" else {})}  # fmt: skip
    done = subprocess.run(
        ["ansible", NODE, "-i", str(REPOSITORY / "inventories" / "lab"), "--become",
         "-m", "thecodeforge.fastapi.rollout", "-a", json.dumps(arguments)],
        cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "FORGE_LAB_SET": SET, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"step {name} of {generation} failed: {done.stdout}{done.stderr}")
    return json.loads(done.stdout[done.stdout.index("{") :])


def swap(fleet: Fleet, generation: str) -> dict[str, float]:
    began = time.time()
    candidate = step(generation, "candidate")
    if not candidate["healthy"]:
        raise RuntimeError(candidate["reason"])
    switched = step(generation, "switch")
    ended = time.time()
    flipped = float(fleet.on(NODE, "stat -c %.Y /srv/forge/current"))
    return {"began": began, "flipped": flipped, "ended": ended, "switched_in": switched["switched_in"]}


def ours(fleet: Fleet, generations: list[str], swaps: int, requests: int, bulk: bool) -> Variant:
    """Rounds of swaps until there were enough of them, and of requests."""
    variant = Variant("this collection" + (", and wrk" if bulk else ""))
    deadline = time.monotonic() + 720
    while (len(variant.swaps) < swaps or sum(variant.requests.values()) < requests) and time.monotonic() < deadline:
        with load(fleet, variant, PORT, bulk, resumes=True):
            for _ in range(min(5, swaps)):
                variant.swaps.append(swap(fleet, generations[fleet.live(NODE) == generations[0]]))
                time.sleep(1)
        print(f"  {len(variant.swaps)} swaps, {sum(variant.requests.values())} requests, "
              f"{sum(variant.lost.values())} lost, {variant.seconds:.0f} s", flush=True)  # fmt: skip
    return variant


# -- what people use instead -----------------------------------------------------------------------

UNIT = """\
[Unit]
Description=bench: what people use instead
[Service]
Type=notify
NotifyAccess=main
User=forge
Group=forge
RuntimeDirectory=%N
WorkingDirectory={release}
{environment}
ExecStart={python} -m gunicorn --worker-class uvicorn_worker.UvicornWorker --workers {workers} --keep-alive 75 \
--timeout 60 --graceful-timeout {drain} --backlog 4096 --worker-tmp-dir /run/%N --no-control-socket {bind} {target}
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
TimeoutStopSec=35
"""


def write_others(fleet: Fleet, generation: str) -> None:
    """Units with the live generation's code, layer, settings and number of workers, and the stock worker."""
    record = json.loads(fleet.on(NODE, f"cat /srv/forge/generations/{generation}/release.json"))
    unit = fleet.on(NODE, f"cat /etc/systemd/system/forge@{generation}.service").replace("%i", generation)
    lines = [line for line in unit.splitlines() if line.startswith(("Environment=", "EnvironmentFile="))]
    words = {
        "release": f"/srv/forge/releases/{record['release']}",
        "environment": "\n".join(lines),
        "python": f"/srv/forge/layers/{record['layer']}/bin/python",
        "workers": record["workers"],
        "drain": DRAIN,
        "target": record["target"],
    }
    plain = UNIT.format(**words, bind=f"--bind 0.0.0.0:{OTHER_PORT}")
    shared = UNIT.format(**words, bind="").replace("[Service]", "[Service]\nSockets=bench-shared.socket")
    socket = f"[Socket]\nListenStream=0.0.0.0:{OTHER_PORT}\nBacklog=4096\nService=bench-shared@one.service\n"
    for name, text in {
        "bench-plain.service": plain,
        "bench-shared@.service": shared,
        "bench-shared.socket": socket,
    }.items():
        fleet.on(NODE, f"cat > /etc/systemd/system/{name} <<'END'\n{text}\nEND")
    fleet.on(NODE, "systemctl daemon-reload && systemctl stop forge 'forge@*.service' forge.socket")


def others(fleet: Fleet, swaps: int) -> Iterator[Variant]:
    turns = iter(range(1000))

    def restart() -> None:
        fleet.on(NODE, "systemctl restart bench-plain")

    def reload() -> None:
        fleet.on(NODE, "systemctl reload bench-plain")
        time.sleep(3)

    def overlap() -> None:
        old, new = ("one", "two") if next(turns) % 2 == 0 else ("two", "one")
        fleet.on(NODE, f"systemctl start bench-shared@{new} && sleep 3 && systemctl stop bench-shared@{old}")

    ways: list[tuple[str, str, Callable[[], None]]] = [
        ("systemctl restart", "bench-plain.service", restart),
        ("Gunicorn HUP", "bench-plain.service", reload),
        ("two units, stock worker", "bench-shared.socket bench-shared@one.service", overlap),
    ]
    for name, units, change in ways:
        fleet.on(NODE, f"systemctl start {units}")
        address = f"http://{fleet.address(NODE)}:{OTHER_PORT}/healthz"
        fleet.until(
            lambda address=address: subprocess.run(["curl", "-sf", address], capture_output=True).returncode == 0
        )
        variant = Variant(name)
        with load(fleet, variant, OTHER_PORT, bulk=False, resumes=False):
            for _ in range(swaps):
                began = time.time()
                change()
                variant.swaps.append({"began": began, "flipped": began, "ended": time.time()})
                time.sleep(2)
        fleet.on(NODE, "systemctl stop 'bench-*.service' 'bench-*.socket'")
        yield variant


# -- what is shown ---------------------------------------------------------------------------------

HEAD = ("way", "swaps", "requests", "lost", "p99 in the second of a swap", "p99 outside", "swap, seconds", "writes")


def table(summaries: list[dict[str, Any]]) -> str:
    rows = [HEAD]
    for each in summaries:
        writes = each["writes"]
        wrong = {key: writes[key] for key in ("missing", "twice", "never_sent") if writes[key]}
        rows.append((
            each["name"], str(each["swaps"]), str(each["total"]), str(each["total_lost"]),
            f"{each['p99_in_swap_ms']} ms", f"{each['p99_outside_ms']} ms",
            f"{each['swap_seconds']['median']} (at most {each['swap_seconds']['longest']})",
            f"{writes['acknowledged']} acknowledged, {wrong or 'all there once'}",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("")
    for each in summaries:
        for how, count in sorted(each["lost"].items()):
            lines.append(f"lost by {each['name']}: {count} x {how}")
    for each in summaries:
        ends = ", ".join(f"{count} x {how}" for how, count in sorted(each["ends"].items()))
        lines.append(f"streams that ended properly by {each['name']}: {ends or 'none'}")
    return "\n".join(lines)


def draw(variants: list[Variant], path: Path, seconds: float = 60) -> None:
    """Requests per 100 ms, and latency, of each way over a minute, swaps marked. matplotlib is not ours: uv has it."""
    shown = []
    for variant in variants:
        start = variant.swaps[0]["began"] - 2
        bins: dict[int, list[float]] = {}
        for when, took in variant.quick():
            if 0 <= when - start < seconds:
                bins.setdefault(int((when - start) * 10), []).append(took * 1000)
        shown.append({
            "name": variant.name, "lost": sum(variant.lost.values()), "total": sum(variant.requests.values()),
            "count": [len(bins.get(slot, [])) for slot in range(int(seconds * 10))],
            "worst": [max(bins.get(slot, [0])) for slot in range(int(seconds * 10))],
            "swaps": [swap["flipped"] - start for swap in variant.swaps if swap["flipped"] - start < seconds],
        })  # fmt: skip
    subprocess.run(
        ["uv", "run", "--quiet", "--no-project", "--with", "matplotlib", "python",
         str(REPOSITORY / "tests" / "bench" / "picture.py"), str(path)],
        input=json.dumps(shown), text=True, check=True,
    )  # fmt: skip


def broken_promises(summary: dict[str, Any]) -> list[str]:
    """What of the promise was not kept; the bench fails then."""
    problems = [f"{count} lost: {how}" for how, count in summary["lost"].items()]
    problems += [f"no {kind} request" for kind in KINDS if not summary["requests"].get(kind)]
    problems += [f"{summary['writes'][key]} writes {key}" for key in ("missing", "twice", "never_sent")
                 if summary["writes"][key]]  # fmt: skip
    problems += [f"no {kind} was ended" for kind in ("sse: end of stream", "websocket: 1012")
                 if not summary["ends"].get(kind)]  # fmt: skip
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--short", action="store_true", help="4 swaps with our own clients, nothing to compare with")
    given = parser.parse_args()
    if not given.short and not shutil.which("wrk"):
        as_root = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*as_root, "apt-get", "--quiet", "--quiet", "--yes", "install", "wrk"], check=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    subprocess.run([str(LAB), "up", "--set", SET, f"{NODE}=debian12:forge_app", f"{DATABASE}=debian12:forge_database"],
                   check=True)  # fmt: skip
    source = RESULTS / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(REPOSITORY / "app", source, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*_cache"))
    add_routes(source)
    fleet = Fleet({"forge_source": str(source)})
    fleet.play("site", **SETTINGS)
    generations = prepare(fleet, source)
    print(f"two generations are staged after {time.monotonic() - began:.0f} s", flush=True)

    if given.short:
        variants = [ours(fleet, generations, 4, 0, bulk=False)]
    else:
        variants = [ours(fleet, generations, 5, 0, bulk=False),
                    ours(fleet, generations, given.swaps - 5, given.requests, bulk=True)]  # fmt: skip
        write_others(fleet, fleet.live(NODE))
        for variant in others(fleet, 5):
            variants.append(variant)
            print(
                f"  {variant.name}: {sum(variant.lost.values())} of {sum(variant.requests.values())} lost", flush=True
            )
        fleet.on(NODE, "systemctl start forge")
    summaries = [variant.summary() for variant in variants]
    text = table(summaries)
    result = {
        "clients": CLIENTS,
        "settings": SETTINGS,
        "ways": summaries,
        "seconds": round(time.monotonic() - began, 1),
    }
    (RESULTS / "swap.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "swap.txt").write_text(text + "\n")
    print(f"\n{text}\n{time.monotonic() - began:.0f} s in all; build/bench/swap.json")
    if not given.short:
        draw([variants[0], *variants[2:]], REPOSITORY / "docs" / "swap.png")
    mine = summaries[: 1 if given.short else 2]
    problems = [problem for summary in mine for problem in broken_promises(summary)]
    swaps, requests = (sum(summary[what] for summary in mine) for what in ("swaps", "total"))
    if swaps < (4 if given.short else given.swaps) or (not given.short and requests < given.requests):
        problems.append(f"only {swaps} swaps and {requests} requests in the time there was")
    if problems:
        sys.exit("\n".join(["The promise was not kept:", *problems]))


if __name__ == "__main__":
    main()
