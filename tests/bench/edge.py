# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What our edge costs, beside an HAProxy that somebody has tuned by hand for the same hosts.

usage: edge.py [--rounds 5] [--seconds 8]

Both run on one node of the lab, in front of the same two nodes, with the same certificate, and wrk asks now one and now the other:
GET over kept connections, and POST. Writes build/bench/edge.json: rows `{what, rps, p99_ms, by_hand_rps, by_hand_p99_ms, ratio,
p99_ratio}`, medians over the rounds; a ratio of 0.9 is the budget, of latency it is the one by hand divided by ours.
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
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "system"))
os.environ.setdefault("FORGE_TEST_SET", "edgebench")

from conftest import SET, Fleet  # noqa: E402
from converge import as_root, run  # noqa: E402
from test_edge import NAME, SETTINGS, certificate  # noqa: E402
from tiny import write_project  # noqa: E402

RESULT = REPOSITORY / "build" / "bench" / "edge.json"
NODES = ("e1=debian12:forge_edge", "w1=debian12:forge_app", "w2=debian13:forge_app")
PORT = 8443  # of the one by hand
BY_HAND = """\
global
    log /dev/log local0
    stats socket /run/haproxy-by-hand.sock
    maxconn 8000
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
defaults
    mode http
    log global
    option httplog
    timeout connect 3s
    timeout client 60s
    timeout server 60s
frontend https
    bind :{port} ssl crt /etc/haproxy/forge/certificates/tiny.pem alpn h2,http/1.1
    http-request set-header x-forwarded-for %[src]
    http-request set-header x-forwarded-proto https
    default_backend app
backend app
    balance leastconn
    http-reuse always
    option httpchk GET /-/ready
    server w1 {w1}:8000 check
    server w2 {w2}:8000 check
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
    """Medians of both, asked in turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in addresses}
    for number in range(count):
        for name in sorted(addresses, reverse=bool(number % 2)):
            found[name].append(measure(addresses[name], seconds, *options))
    middle = {
        name: {what: median(each[what] for each in all_) for what in ("rps", "p99_ms")} for name, all_ in found.items()
    }
    ours, by_hand = middle["ours"], middle["by hand"]
    return {
        **{name: round(value, 2) for name, value in ours.items()},
        **{f"by_hand_{name}": round(value, 2) for name, value in by_hand.items()},
        "ratio": round(ours["rps"] / by_hand["rps"], 3),
        "p99_ratio": round(by_hand["p99_ms"] / ours["p99_ms"], 3),
    }


def measure_all(fleet: Fleet, given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source = write_project(Path(directory, "shop"), "gunicorn", "uvicorn-worker")
        settings = {"forge_source": str(source), "forge_workers": 0, **certificate(Path(directory))}
        fleet.variables = {**SETTINGS, **settings}
        fleet.play("site")
        text = BY_HAND.format(port=PORT, **{host: fleet.address(host) for host in ("w1", "w2")})
        fleet.on(
            "e1",
            f"cat > /root/by-hand.cfg <<'EOF'\n{text}\nEOF\nsystemd-run --unit by-hand -p LimitNOFILE=20000 haproxy -f /root/by-hand.cfg",
        )
        addresses = {
            name: f"https://{fleet.address('e1')}:{port}/version" for name, port in (("ours", 443), ("by hand", PORT))
        }
        script = Path(directory, "post.lua")
        script.write_text(POST)
        fleet.until(lambda: subprocess.run(["curl", "-skf", addresses["by hand"]], capture_output=True).returncode == 0)
        rows = []
        for what, options in (("GET", ()), ("POST", ("--script", str(script)))):
            rows.append({"what": what, **rounds(addresses, given.rounds, given.seconds, *options)})
            print(rows[-1], flush=True)
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
