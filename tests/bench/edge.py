# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What our edge costs, beside an HAProxy that somebody has tuned by hand for the same hosts.

usage: edge.py [--rounds 5] [--seconds 8]

Both run on one node of the lab, in front of the same two nodes, with the same certificate, and wrk asks now one and now the other:
GET over kept connections, and POST. By hand there are two: *fast* keeps connections to the app for every method, as many do, and
*safe* opens one for each POST, as ours does. Then clients post through all three while releases go by and hosts' services are
restarted by hand. Writes build/bench/edge.json: rows `{what, rps, p99_ms, fast_rps, fast_p99_ms, safe_…, ratio_to_fast, ratio_to_safe}`,
medians over the rounds (a ratio of 0.9 is the budget), and `{what, event, posts, lost}`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "system"))
os.environ.setdefault("FORGE_TEST_SET", "edgebench")

from conftest import SET, Fleet  # noqa: E402
from converge import as_root, run  # noqa: E402
from test_edge import NAME, SETTINGS, certificate, change  # noqa: E402
from tiny import load, write_project  # noqa: E402

RESULT = REPOSITORY / "build" / "bench" / "edge.json"
NODES = ("e1=debian12:forge_edge", "w1=debian12:forge_app", "w2=debian13:forge_app")
BY_HAND = {"fast": 8443, "safe": 8444}
CLIENTS = {"post": 6}  # each of whom posts again at once
CONFIGURATION = """\
global
    log /dev/log local0
    maxconn 8000
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
defaults
    mode http
    log global
    option httplog
    timeout connect 3s
    timeout client 60s
    timeout server 60s
    balance leastconn
    option redispatch 1
    option httpchk GET /-/ready
frontend fast
    bind :{fast} ssl crt /etc/haproxy/forge/certificates/tiny.pem alpn h2,http/1.1
    http-request set-header x-forwarded-for %[src]
    http-request set-header x-forwarded-proto https
    default_backend kept
frontend safe
    bind :{safe} ssl crt /etc/haproxy/forge/certificates/tiny.pem alpn h2,http/1.1
    http-request set-header x-forwarded-for %[src]
    http-request set-header x-forwarded-proto https
    use_backend kept if METH_GET
    default_backend own
backend kept
    http-reuse always
    server w1 {w1}:8000 check
    server w2 {w2}:8000 check
backend own
    option http-server-close
    server w1 {w1}:8000 track kept/w1
    server w2 {w2}:8000 track kept/w2
"""
POST = 'wrk.method = "POST"\nwrk.body = string.rep("x", 512)\nwrk.path = "/parts"\n'


def measure(url: str, seconds: float, *options: str) -> dict[str, float]:
    command = ["wrk", "--latency", "--threads", "1", "--connections", "32", "--duration", f"{seconds:g}s"]
    output = run(*command, "--header", f"Host: {NAME}", *options, url)
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"bench: wrk saw errors:\n{output}")
    rate, tail = re.search(r"Requests/sec: +([\d.]+)", output), re.search(r"99% +([\d.]+)(us|ms|s)", output)
    if not (rate and tail):
        raise SystemExit(f"bench: wrk said:\n{output}")
    return {"rps": float(rate[1]), "p99_ms": float(tail[1]) * {"us": 0.001, "ms": 1, "s": 1000}[tail[2]]}


def rounds(addresses: dict[str, str], count: int, seconds: float, *options: str) -> dict[str, Any]:
    """Medians of all, asked in turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in addresses}
    for number in range(count):
        for name in sorted(addresses, reverse=bool(number % 2)):
            found[name].append(measure(addresses[name], seconds, *options))
    middle = {
        name: {what: round(median(each[what] for each in all_), 2) for what in ("rps", "p99_ms")}
        for name, all_ in found.items()
    }
    ours = middle.pop("ours")
    return {
        **ours,
        **{f"{name}_{what}": value for name, each in middle.items() for what, value in each.items()},
        **{f"ratio_to_{name}": round(ours["rps"] / each["rps"], 3) for name, each in middle.items()},
    }


def losses(fleet: Fleet, addresses: dict[str, str], count: int) -> list[dict[str, Any]]:
    """What is lost through each while releases go by, with their drains, and while services are restarted by hand."""

    def release() -> None:
        change(fleet)
        fleet.play("deploy")
        time.sleep(SETTINGS["forge_drain_seconds"] + 2)

    def restart() -> None:
        for host in ("w1", "w2"):
            fleet.on(host, "systemctl restart tiny")
            time.sleep(2)

    rows = []
    for event, happen in (("release", release), ("restart", restart)):
        with ExitStack() as stack:
            results = {
                name: stack.enter_context(load(address.removesuffix("/version"), NAME, **CLIENTS))
                for name, address in addresses.items()
            }
            for _ in range(count):
                happen()
        for name, result in results.items():
            lost = result["total_lost"]
            rows.append(
                {
                    "what": name,
                    "event": f"{count} {event}s",
                    "posts": result["total"],
                    "lost": lost,
                    "how": result["lost"],
                }
            )
            print(rows[-1], flush=True)
    return rows


def measure_all(fleet: Fleet, given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source = write_project(Path(directory, "shop"), "gunicorn", "uvicorn-worker")
        settings = {"forge_source": str(source), "forge_workers": 0, **certificate(Path(directory))}
        fleet.variables = {**SETTINGS, **settings}
        fleet.play("site")
        text = CONFIGURATION.format(**BY_HAND, **{host: fleet.address(host) for host in ("w1", "w2")})
        fleet.on(
            "e1",
            f"cat > /root/by-hand.cfg <<'EOF'\n{text}\nEOF\nsystemd-run --unit by-hand -p LimitNOFILE=20000 haproxy -f /root/by-hand.cfg",
        )
        addresses = {
            name: f"https://{fleet.address('e1')}:{port}/version" for name, port in {"ours": 443, **BY_HAND}.items()
        }
        script = Path(directory, "post.lua")
        script.write_text(POST)
        for name in BY_HAND:
            reach = ["curl", "-skf", "-o", "/dev/null", addresses[name]]
            fleet.until(lambda reach=reach: subprocess.run(reach).returncode == 0)
        rows: list[dict[str, Any]] = []
        for what, options in (("GET", ()), ("POST", ("--script", str(script)))):
            rows.append({"what": what, **rounds(addresses, given.rounds, given.seconds, *options)})
            print(rows[-1], flush=True)
        rows += losses(fleet, addresses, given.rounds)
        RESULT.write_text(json.dumps(rows, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    given = parser.parse_args()
    if not shutil.which("wrk"):
        run(*as_root("apt-get", "install", "-y", "-qq", "--no-install-recommends", "wrk"))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    with Fleet(lab_set=SET, without_database=True).with_nodes(*NODES) as fleet:
        measure_all(fleet, given)


if __name__ == "__main__":
    main()
