# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What serving costs: our worker class beside others, on loopback, with the sockets that systemd would pass.

usage: serve.py [--rounds N] [--seconds N]

A and B serve at the same time, and wrk asks now one and now the other, so that a busy machine is busy for both. Ours is
started as on a host: the same gunicorn.conf.py, worker, environment and pair of sockets. Writes build/bench/serve.json:
- "ratio": ours to bare Gunicorn + UvicornWorker with equal workers, medians over the rounds;
- "sizing": throughput by number of workers, beside what the sizing policy gives this machine;
- "beside": other servers, with as many workers as CPUs; and the memory of a worker (PSS) of each.
No server writes an access log.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from converge import BENCH, REPOSITORY, RIVALS, UV, App, as_root, run, say

PYTHON = BENCH / "serve" / "bin" / "python"
SERVICE = REPOSITORY / "roles" / "service"
CPUS = sorted(os.sched_getaffinity(0))
BOOT = 60  # seconds, on a busy machine


@dataclass
class Server:
    """A running server: where it answers, and its processes."""

    url: str
    process: subprocess.Popen[bytes]

    def workers(self) -> list[int]:
        """The processes that serve: those without children of their own."""

        def children(pid: int) -> list[int]:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            below = children(pid)
            todo += below
            found += [] if below else [pid]
        return [pid for pid in found if "resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_text()]

    def cpu(self) -> float:
        """CPU seconds that the workers have used."""
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9 for pid in self.workers())

    def memory_mb(self) -> float:
        """PSS of a worker: what it shares with others counts in part."""
        sizes = []
        for pid in self.workers():
            found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            assert found
            sizes.append(int(found[1]) / 1024)
        return round(statistics.mean(sizes), 1)


@dataclass
class Bench:
    app: App
    directory: Path
    cpus: list[int] = field(default_factory=lambda: CPUS)

    def environment(self) -> dict[str, str]:
        keep = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        return {**keep, "PYTHONPATH": str(self.app.source / "src"), "FORGE_GREETING": "hello"}

    def configuration(self, home: Path, workers: int) -> str:
        """gunicorn.conf.py as the role writes it, with its defaults."""
        variables = {
            "__forge_workers": {"count": workers, "reason": "benchmark"},
            "forge_app": "bench",
            "forge_server": "gunicorn",
            "forge_worker_class": "",
            "forge_preload": ["fastapi"],
            "forge_timeout": 60,
            "forge_drain_seconds": 5,
            "forge_finish_seconds": 0,
            "forge_keepalive": 75,
            "forge_trusted_proxies": ["127.0.0.1", "::1"],
            "forge_access_log": False,
        }
        environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
        environment.filters["to_json"] = json.dumps
        environment.filters["bool"] = bool
        text = environment.from_string((SERVICE / "templates" / "gunicorn.conf.py.j2").read_text())
        return text.render(variables)

    @contextmanager
    def started(self, kind: str, workers: int) -> Iterator[Server]:
        """A server that answers, until the end of the block."""
        home = Path(tempfile.mkdtemp(prefix=f"{kind.split()[0]}-", dir=self.directory))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command, environment = getattr(self, kind.replace(" ", "_"))(home, port, workers)
        cpus = ",".join(map(str, self.cpus))
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                ["taskset", "--cpu-list", cpus, *command],
                env=environment, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        server = Server(f"http://127.0.0.1:{port}/", process)
        try:
            deadline = time.monotonic() + BOOT
            while len(server.workers()) < workers or not answers(server.url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"bench: {kind} does not serve:\n{(home / 'log').read_text()}")
                time.sleep(0.1)
            time.sleep(0.5)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()

    def ours(self, home: Path, port: int, workers: int) -> tuple[list[str], dict[str, str]]:
        """As a live generation: systemd's two sockets, and a link that names it."""
        generation = home / "generations" / "bench"
        generation.mkdir(parents=True)
        (home / "current").symlink_to(generation)
        (home / "state").mkdir()
        for name in ("forge_server.py", "forge_worker.py"):
            shutil.copy(SERVICE / "files" / name, generation)
        (generation / "gunicorn.conf.py").write_text(self.configuration(home, workers))
        gunicorn = [
            str(PYTHON),
            "-m",
            "gunicorn",
            "--config",
            str(generation / "gunicorn.conf.py"),
            "thecodeforge.main:app",
        ]
        environment = self.environment()
        environment |= {
            "PYTHONPATH": f"{generation}:{environment['PYTHONPATH']}",
            "RUNTIME_DIRECTORY": str(home),
            "FORGE_WORKER_CURRENT": str(home / "current"),
            "FORGE_WORKER_GENERATION": "bench",
            "FORGE_WORKER_STATE": str(home / "state"),
        }
        return [sys.executable, __file__, "--as-systemd", str(port), str(home / "private.sock"), *gunicorn], environment

    def gunicorn(self, home: Path, port: int, workers: int, worker: str = "uvicorn_worker.UvicornWorker"):
        """The same configuration and another worker class."""
        text = self.configuration(home, workers).replace("forge_worker.ForgeWorker", worker)
        (home / "gunicorn.conf.py").write_text(f'{text}\nbind = "127.0.0.1:{port}"\n')
        command = [str(PYTHON), "-m", "gunicorn", "--config", str(home / "gunicorn.conf.py"), "thecodeforge.main:app"]
        return command, {**self.environment(), "RUNTIME_DIRECTORY": str(home)}

    def gunicorn_asgi(self, home: Path, port: int, workers: int):
        return self.gunicorn(home, port, workers, worker="asgi")

    def uvicorn(self, home: Path, port: int, workers: int):
        options = ["--port", str(port), "--workers", str(workers), "--no-access-log", "--backlog", "4096"]
        return [str(PYTHON), "-m", "uvicorn", *options, "thecodeforge.main:app"], self.environment()

    def granian(self, home: Path, port: int, workers: int):
        options = ["--interface", "asgi", "--port", str(port), "--workers", str(workers), "--backlog", "4096"]
        return [str(PYTHON.with_name("granian")), *options, "thecodeforge.main:app"], self.environment()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def as_systemd(port: str, private: str, command: list[str]) -> None:
    """Become the command, with the sockets that forge.socket and forge@.socket pass."""
    public = socket.create_server(("127.0.0.1", int(port)), backlog=4096)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(private)
    unix.listen()
    copies = [os.dup2(sock.fileno(), 100 + number) for number, sock in enumerate((public, unix))]
    for number, copy in enumerate(copies):
        os.dup2(copy, 3 + number, inheritable=True)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "public:private"}
    os.execv(command[0], command)


def load(server: Server, seconds: float, cpus: list[int], connections: int = 64) -> dict[str, float]:
    """What wrk measures, answers a second and latency; and the workers' CPU time for an answer."""
    before = server.cpu()
    command = ["taskset", "--cpu-list", ",".join(map(str, cpus)), "wrk", "--latency", "--threads", "1"]
    output = run(*command, "--connections", str(connections), "--duration", f"{seconds:g}s", server.url)
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"bench: wrk saw errors:\n{output}")
    rate = re.search(r"Requests/sec: +([\d.]+)", output)
    tail = re.search(r"99% +([\d.]+)(us|ms|s)", output)
    answered = re.search(r"(\d+) requests in", output)
    if not (rate and tail and answered):
        raise SystemExit(f"bench: wrk said:\n{output}")
    return {
        "rps": float(rate[1]),
        "p99_ms": float(tail[1]) * {"us": 0.001, "ms": 1, "s": 1000}[tail[2]],
        "cpu_us": (server.cpu() - before) * 1e6 / int(answered[1]),
    }


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(each[key] for each in runs), 2) for key in runs[0]} | {
        f"{key}_{name}": round(extreme(each[key] for each in runs), 2)
        for key in runs[0]
        for name, extreme in (("min", min), ("max", max))
    }


def ratio(bench: Bench, workers: int, rounds: int, seconds: float, client: list[int]) -> dict[str, object]:
    """A B B A …: ours and bare Gunicorn, both up all the time."""
    with bench.started("ours", workers) as ours, bench.started("gunicorn", workers) as bare:
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
        pair = [("ours", ours), ("bare", bare)]
        for _name, server in pair:
            load(server, min(2, seconds), client)
        for number in range(rounds):
            for name, server in pair if number % 2 == 0 else reversed(pair):
                runs[name].append(load(server, seconds, client))
        result: dict[str, object] = {"workers": workers, "ours": medians(runs["ours"]), "bare": medians(runs["bare"])}
        # of pairs, as the machine's speed changes from minute to minute
        for figure in ("rps", "p99_ms", "cpu_us"):
            pairs = [mine[figure] / theirs[figure] for mine, theirs in zip(runs["ours"], runs["bare"], strict=True)]
            result[f"{figure}_ratio_of_medians"] = round(
                statistics.median(each[figure] for each in runs["ours"])
                / statistics.median(each[figure] for each in runs["bare"]), 4
            )  # fmt: skip
            result[f"{figure}_ratio"] = round(statistics.median(pairs), 4)
            result[f"{figure}_ratio_quartiles"] = [round(part, 4) for part in statistics.quantiles(pairs, n=4)[::2]]
        return result


def policy() -> dict[str, object]:
    """What the sizing filter gives this machine."""
    host = {
        "cpus": len(CPUS),
        "cpu_quota": 0,
        "memory_mb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
    }
    script = "import json, sys; from ansible_collections.thecodeforge.fastapi.plugins.filter.workers import workers"
    script += "; print(json.dumps(workers(json.loads(sys.argv[1]))))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "build" / "collections")}
    return dict(json.loads(run(sys.executable, "-c", script, json.dumps(host), env=environment)))


def sizing(bench: Bench, rounds: int, seconds: float) -> dict[str, object]:
    """Throughput by number of workers: all up at once, asked in turns."""
    counts = sorted({*range(1, 10, 2), len(CPUS), int(str(policy()["count"]))})
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    memory = {}
    with ExitStack() as stack:
        servers = {count: stack.enter_context(bench.started("ours", count)) for count in counts}
        for _ in range(rounds):
            for count, server in servers.items():
                runs[count].append(load(server, seconds, CPUS))
        for count, server in servers.items():
            memory[count] = server.memory_mb()
    by_count = {count: {**medians(runs[count]), "worker_mb": memory[count]} for count in counts}
    best = max(by_count, key=lambda count: by_count[count]["rps"])
    chosen = policy()
    return {
        "by_workers": by_count,
        "best": best,
        "policy": chosen,
        "policy_to_best": round(by_count[int(str(chosen["count"]))]["rps"] / by_count[best]["rps"], 4),
    }


def beside(bench: Bench, rounds: int, seconds: float) -> dict[str, object]:
    kinds = ("ours", "gunicorn", "gunicorn asgi", "uvicorn", "granian")
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(bench.started(kind, len(CPUS))) for kind in kinds}
        for _ in range(rounds):
            for kind, server in servers.items():
                runs[kind].append(load(server, seconds, CPUS))
        return {kind: {**medians(runs[kind]), "worker_mb": server.memory_mb()} for kind, server in servers.items()}


def install(app: App) -> None:
    """wrk, and the app's own locked dependencies with granian beside them."""
    if not shutil.which("wrk"):
        run(*as_root("apt-get", "install", "-y", "-qq", "--no-install-recommends", "wrk"))
    if not PYTHON.exists():
        run(UV, "venv", "--quiet", "--python", sys.executable, PYTHON.parents[1])
    requirements = ("--requirements", app.requirements, "--requirements", RIVALS / "serve.txt")
    run(UV, "pip", "install", "--quiet", "--python", PYTHON, "--no-verify-hashes", *requirements)


def main() -> int:
    if sys.argv[1:2] == ["--as-systemd"]:
        as_systemd(sys.argv[2], sys.argv[3], sys.argv[4:])
    parser = argparse.ArgumentParser(description="Compare what serving costs.")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--parts", default="ratio,sizing,beside")
    given = parser.parse_args()
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="forge-serve-") as scratch:
        app = App(Path(scratch))
        app.become("1")
        install(app)
        few = max(2, given.rounds // 3)
        if "ratio" in given.parts:
            say("Ours and bare Gunicorn, one worker on a CPU of its own")
            alone = Bench(app, Path(scratch), CPUS[:1])
            result["ratio_of_one_worker"] = ratio(alone, 1, given.rounds, given.seconds, CPUS[1:] or CPUS)
            say("Ours and bare Gunicorn, a worker a CPU")
            result["ratio"] = ratio(Bench(app, Path(scratch)), len(CPUS), given.rounds, given.seconds, CPUS)
        if "sizing" in given.parts:
            say("By number of workers")
            result["sizing"] = sizing(Bench(app, Path(scratch)), few, given.seconds)
        if "beside" in given.parts:
            say("Beside other servers")
            result["beside"] = beside(Bench(app, Path(scratch)), few, given.seconds)
    (BENCH / "serve.json").write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    return 0


def show(result: dict[str, object]) -> None:
    def line(name: object, row: dict[str, float]) -> None:
        memory = f"  {row['worker_mb']:5.1f} MB a worker" if "worker_mb" in row else ""
        cpu = f"{row['cpu_us']:6.1f} us of CPU an answer"
        print(f"  {name:14} {row['rps']:8.0f} answers/s  p99 {row['p99_ms']:7.2f} ms  {cpu}{memory}")

    for name in ("ratio_of_one_worker", "ratio"):
        if isinstance(found := result.get(name), dict):
            print(f"ours to bare Gunicorn, workers: {found['workers']} (median of pairs, quartiles)")
            for figure in ("rps", "p99_ms", "cpu_us"):
                low, high = found[f"{figure}_ratio_quartiles"]
                print(f"  {figure:14} {found[f'{figure}_ratio']:.3f}  ({low:.3f} … {high:.3f})")
            line("ours", found["ours"])
            line("bare", found["bare"])
    if isinstance(found := result.get("sizing"), dict):
        chosen = found["policy"]
        print(
            f"sizing: {chosen['count']} workers ({chosen['reason']}), {found['policy_to_best']:.3f} of the best, {found['best']}"
        )
        for count, row in found["by_workers"].items():
            line(f"{count} workers", row)
    if isinstance(found := result.get("beside"), dict):
        print(f"beside others, {len(CPUS)} workers each")
        for kind, row in found.items():
            line(kind, row)


if __name__ == "__main__":
    sys.exit(main())
