# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long this collection, plain Ansible, Ansible with Mitogen, and pyinfra take for the same work on the same nodes.

usage: converge.py [--hosts 1,10,30] [--reps N] [--tools ours,pyinfra] [--works nothing,code] [--full] [--plot] [--keep]

All serve the same app from the same nodes, each on its own port, so that their runs can alternate: A B C D, A B C D.
A run begins with no open connection, and ends when every host answers with the version and the setting it should have.
For first provisions the nodes are made anew. Prints a table; writes build/bench/converge.json, and with --plot docs/converge.svg.

Wall and CPU are of the controller, SSH included (measured.py). Calls are the SSH sessions, commands and file transfers,
that sshd on the hosts says it has started; Mitogen sends its calls through one session, so there they say little. Bytes
are all that leaves the controller for the hosts' port 22.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent
RIVALS = HERE / "rivals"
LAB = REPOSITORY / "tests" / "lab" / "lab"
BENCH = REPOSITORY / "build" / "bench"
LOGS = BENCH / "logs"
WORK = Path(tempfile.gettempdir()) / "forge-bench"  # not below the repository: git ignores what is in build
UV = REPOSITORY / "build" / "uv" / "bin" / "uv"
MATPLOTLIB = "matplotlib==3.11.1"
TABLE = "forge_bench"  # of nftables

PORTS = {"ours": 8000, "ansible": 8001, "mitogen": 8002, "pyinfra": 8003}
TOOLS = (*PORTS, "floor")
WORKS = ("provision", "nothing", "code", "setting", "rollback")
LARGE = 20  # from so many hosts on one worker each, and only these works:
WORKS_OF_LARGE = ("nothing", "code")
MAIN_WORKS = ("nothing", "code")  # fewer repetitions of others on a fleet, as they take minutes
NODE_MB, WORKER_MB, RESERVE_MB = 150, 70, 4096


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def as_root(*command: str) -> list[str]:
    return [*([] if os.geteuid() == 0 else ["sudo", "-n"]), *command]


def run(*command: str | Path, check: bool = True, **options: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, **options
    )
    if check and done.returncode:
        raise SystemExit(f"bench: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class State:
    """What a host should serve."""

    version: str
    greeting: str

    def answer(self) -> dict[str, str]:
        return {"version": self.version, "greeting": self.greeting}


@dataclass
class Nodes:
    """Lab nodes of one size of fleet."""

    name: str
    count: int
    addresses: dict[str, str] = field(default_factory=dict)
    variables: dict[str, dict[str, str]] = field(default_factory=dict)

    def lab(self, verb: str, *arguments: str, check: bool = True) -> str:
        return run(LAB, verb, "--set", self.name, *arguments, check=check)

    def fresh(self) -> None:
        """All made anew: virgin hosts, which log the start of every SSH session."""
        self.lab("clean")
        self.lab("up", *(f"n{number}=debian12:forge_app" for number in range(1, self.count + 1)))
        inventory = json.loads(self.lab("list", "--inventory"))
        self.variables = inventory["_meta"]["hostvars"]
        self.addresses = {node: each["ansible_host"] for node, each in self.variables.items()}
        self.on_all("echo LogLevel VERBOSE > /etc/ssh/sshd_config.d/bench.conf && systemctl reload ssh")

    def on_all(self, script: str) -> list[str]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda node: self.lab("exec", node, "--", "sh", "-c", script), self.addresses))

    def sessions(self) -> int:
        """SSH sessions that the hosts have started since they were made."""
        script = "journalctl --sync; journalctl -q -o cat -t sshd -t sshd-session | grep -c '^Starting session' || :"
        return sum(int(count) for count in self.on_all(script))

    def first(self) -> Nodes:
        node = next(iter(self.addresses))
        return Nodes(self.name, 1, {node: self.addresses[node]}, {node: self.variables[node]})

    def share(self, *paths: str) -> None:
        """Give every node what the first has."""
        first, *others = self.addresses
        enter = [*as_root("podman", "exec", "--interactive")]
        packed = subprocess.run(
            [*enter, self.container(first), "tar", "-cf-", "-C/", *paths], capture_output=True, check=True
        )
        for node in others:
            subprocess.run([*enter, self.container(node), "tar", "-xf-", "-C/"], input=packed.stdout, check=True)

    def container(self, node: str) -> str:
        return f"forge-lab-{self.name}-{node}"

    def clean(self) -> None:
        self.lab("clean")


@contextmanager
def bytes_to(addresses: list[str]) -> Iterator[Callable[[], int]]:
    """Counts what this machine sends to the hosts' port 22."""
    rules = f"""
        table inet {TABLE} {{
          chain output {{
            type filter hook output priority 0;
            ip daddr {{ {", ".join(addresses)} }} tcp dport 22 counter
          }}
        }}"""
    run(*as_root("nft", "delete", "table", "inet", TABLE), check=False)
    subprocess.run(as_root("nft", "-f", "-"), input=rules, text=True, check=True)

    def count() -> int:
        listed = json.loads(run(*as_root("nft", "-j", "list", "table", "inet", TABLE)))["nftables"]
        rule = next(entry["rule"] for entry in listed if "rule" in entry)
        return next(part["counter"]["bytes"] for part in rule["expr"] if "counter" in part)

    try:
        yield count
    finally:
        run(*as_root("nft", "delete", "table", "inet", TABLE), check=False)


@contextmanager
def room_for(hosts: int) -> Iterator[None]:
    """Each node's systemd takes about ten inotify instances, of which a user has 128: more for a while."""
    limit = "fs.inotify.max_user_instances"
    had = int(run("sysctl", "-n", limit))
    needed = max(had, 64 * hosts)
    try:
        if needed > had:
            run(*as_root("sysctl", "-qw", f"{limit}={needed}"))
        yield
    finally:
        if needed > had:
            run(*as_root("sysctl", "-qw", f"{limit}={had}"))


class App:
    """The app of the benchmark as a project: that of app/ with its lock, and a main module without a database."""

    def __init__(self, directory: Path) -> None:
        self.source = directory / "source"
        self.code, self.requirements = directory / "code.tar.gz", directory / "requirements.txt"
        shutil.rmtree(self.source, ignore_errors=True)
        ignored = shutil.ignore_patterns(".venv", "tests", ".*", "__pycache__")
        shutil.copytree(REPOSITORY / "app", self.source, ignore=ignored)
        shutil.copy(RIVALS / "app" / "main.py", self.source / "src" / "thecodeforge" / "main.py")
        export = ("export", "--quiet", "--locked", "--no-dev", "--no-emit-project", "--project", self.source)
        run(UV, *export, "--output-file", self.requirements)

    def become(self, version: str) -> None:
        (self.source / "src" / "thecodeforge" / "version.py").write_text(f'VERSION = "{version}"\n')
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for path in sorted(self.source.rglob("*")):
                if path.is_file():
                    entry = tar.gettarinfo(path, str(path.relative_to(self.source)))
                    entry.uid = entry.gid = entry.mtime = 0
                    entry.uname = entry.gname = "root"
                    with path.open("rb") as content:
                        tar.addfile(entry, content)
        self.code.write_bytes(gzip.compress(packed.getvalue(), mtime=0))


class Tool:
    """Something that deploys; its files lie in a directory of its own."""

    def __init__(self, name: str, nodes: Nodes, app: App, workers: int) -> None:
        self.name, self.nodes, self.app, self.workers = name, nodes, app, workers
        self.home = WORK / name
        self.home.mkdir(parents=True, exist_ok=True)
        self.history: list[State] = []
        # Bytecode is kept, as where people use these tools.
        left_out = ("ANSIBLE_", "PYTHONDONTWRITEBYTECODE")
        keep = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        path = f"{REPOSITORY}/.venv/bin:{UV.parent}:{os.environ['PATH']}"
        self.environment = {**keep, "PATH": path, "UV_CACHE_DIR": str(self.home / "uv")}

    @property
    def port(self) -> int:
        return PORTS[self.name]

    @property
    def urls(self) -> str:
        return ",".join(f"http://{address}:{self.port}/version" for address in self.nodes.addresses.values())

    def data(self, state: State) -> dict[str, object]:
        """Variables of the rivals."""
        return {
            "service": self.name,
            "listen_port": self.port,
            "workers": self.workers,
            "greeting": state.greeting,
            "code": str(self.app.code),
            "requirements": str(self.app.requirements),
        }

    def command(self, work: str, state: State) -> list[str]:
        """Writes what the command reads, too."""
        raise NotImplementedError

    def changes(self, output: str) -> int:
        """How many changes the output speaks of."""
        raise NotImplementedError

    def forget(self) -> None:
        """What a controller remembers of earlier releases."""

    def heavy(self) -> list[str]:
        """What takes minutes to install on a fleet and is the same on every host."""
        return [f"srv/{self.name}/venv", f"srv/{self.name}/requirements.txt"]


class Ansible(Tool):
    configuration = RIVALS / "ansible.cfg"

    def command(self, work: str, state: State) -> list[str]:
        self.configure(self.data(state))
        return ["ansible-playbook", "-i", str(self.home / "inventory"), str(self.home / "site.yml")]

    def configure(self, variables: dict[str, object]) -> None:
        """A playbook, an inventory and an ansible.cfg beside each other, as people have them."""
        if not (self.home / "site.yml").exists():
            shutil.copytree(RIVALS / "templates", self.home / "templates")
            shutil.copy(RIVALS / "site.yml", self.home)
        shutil.copy(self.configuration, self.home / "ansible.cfg")
        inventory = {"forge_app": {"hosts": self.nodes.variables, "vars": variables}}
        (self.home / "inventory").mkdir(exist_ok=True)
        (self.home / "inventory" / "hosts.json").write_text(json.dumps(inventory, indent=2))
        self.environment["ANSIBLE_SSH_CONTROL_PATH_DIR"] = str(WORK / "cp")
        self.environment["ANSIBLE_NOCOLOR"] = "1"

    def changes(self, output: str) -> int:
        recap = output.rpartition("PLAY RECAP")[2]
        return sum(int(word.partition("=")[2]) for word in recap.split() if word.startswith("changed="))


class Mitogen(Ansible):
    def configure(self, variables: dict[str, object]) -> None:
        super().configure(variables)
        package = BENCH / "mitogen"
        self.environment["PYTHONPATH"] = str(package)
        self.environment["ANSIBLE_STRATEGY_PLUGINS"] = str(package / "ansible_mitogen" / "plugins" / "strategy")
        self.environment["ANSIBLE_STRATEGY"] = "mitogen_linear"
        self.environment["ANSIBLE_HOST_KEY_CHECKING"] = "false"  # as the lab's SSH options, which it does not read


class Ours(Ansible):
    """As users have it: an ansible.cfg like the example's, where there is one, else like plain Ansible's here."""

    @property
    def configuration(self) -> Path:  # type: ignore[override]
        example = REPOSITORY / "inventories" / "example" / "ansible.cfg"
        return example if example.exists() else RIVALS / "ansible.cfg"

    def command(self, work: str, state: State) -> list[str]:
        variables: dict[str, object] = {
            "forge_source": str(self.app.source),
            "forge_target": "thecodeforge.main:app",
            "forge_migrations": ["python -c pass"],
            "forge_environment": {"GREETING": state.greeting},
            "forge_listen": [f"0.0.0.0:{self.port}"],
            "forge_workers": self.workers,
            "forge_build_cache": str(self.home / "cache"),
        }
        if "watch" not in work:
            variables["forge_watch_seconds"] = 0
        if "at once" in work:
            variables["forge_batch"] = "100%"
        self.configure(variables)
        self.environment["ANSIBLE_COLLECTIONS_PATH"] = str(REPOSITORY / "build" / "collections")
        playbook = {"provision": "site", "rollback": "rollback"}.get(work.partition(",")[0], "deploy")
        return ["ansible-playbook", "-i", str(self.home / "inventory"), f"thecodeforge.fastapi.{playbook}"]

    def forget(self) -> None:
        for name in ("cache", "uv"):
            shutil.rmtree(self.home / name, ignore_errors=True)

    def heavy(self) -> list[str]:
        return []


class Pyinfra(Tool):
    def command(self, work: str, state: State) -> list[str]:
        if not (self.home / "templates").exists():
            shutil.copytree(RIVALS / "templates", self.home / "templates")
            shutil.copy(RIVALS / "deploy.py", self.home)
        hosts = [
            (
                node,
                {
                    "ssh_hostname": each["ansible_host"],
                    "ssh_user": each["ansible_user"],
                    "ssh_key": each["ansible_ssh_private_key_file"],
                    "ssh_known_hosts_file": "/dev/null",
                    "ssh_strict_host_key_checking": "no",
                },
            )
            for node, each in self.nodes.variables.items()
        ]
        (self.home / "inventory.py").write_text(f"forge_app = ({hosts!r}, {self.data(state)!r})\n")
        return [str(BENCH / "pyinfra" / "bin" / "pyinfra"), "-y", "inventory.py", "deploy.py"]

    def changes(self, output: str) -> int:
        """Of the table's last line: operations, changed, no change, …"""
        last = [line for line in output.splitlines() if line.strip().startswith("Grand total")][-1]
        return int(last.split()[3].replace("-", "0"))


class Floor(Tool):
    """Nothing to do, and one SSH call a host to see it."""

    port = PORTS["ours"]

    def command(self, work: str, state: State) -> list[str]:
        calls = [
            f"ssh -n -i {each['ansible_ssh_private_key_file']} {each['ansible_ssh_common_args']} "
            f"{each['ansible_user']}@{each['ansible_host']} curl -sf http://127.0.0.1:{self.port}/version >/dev/null &"
            for each in self.nodes.variables.values()
        ]
        return ["bash", "-c", "\n".join([*calls, "wait"])]

    def changes(self, output: str) -> int:
        return 0


KINDS: dict[str, type[Tool]] = {
    "ours": Ours, "ansible": Ansible, "mitogen": Mitogen, "pyinfra": Pyinfra, "floor": Floor,
}  # fmt: skip


@dataclass
class Results:
    """Figures of every run, by tool, work and number of hosts; and what did not do its work, with the reason."""

    runs: dict[tuple[str, str, int], list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))
    left_out: list[dict[str, object]] = field(default_factory=list)

    def table(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for (tool, work, hosts), runs in self.runs.items():
            row: dict[str, object] = {"tool": tool, "work": work, "hosts": hosts}
            for figure in ("wall_s", "cpu_s", "calls_per_host", "bytes_sent"):
                row[figure] = round(statistics.median(each[figure] for each in runs), 2)
            for figure in ("wall_s", "cpu_s"):
                row[f"{figure}_min"] = round(min(each[figure] for each in runs), 2)
                row[f"{figure}_max"] = round(max(each[figure] for each in runs), 2)
            rows.append({**row, "runs": len(runs)})
        return rows

    def write(self) -> None:
        BENCH.mkdir(parents=True, exist_ok=True)
        (BENCH / "converge.json").write_text(json.dumps(self.table() + self.left_out, indent=1) + "\n")


class Bench:
    def __init__(
        self, nodes: Nodes, tools: list[str], works: list[str], results: Results, wanted: int, full: bool
    ) -> None:
        self.nodes, self.works, self.results, self.wanted, self.full = nodes, works, results, wanted, full
        self.app = App(WORK)
        workers = 1 if nodes.count >= LARGE else 2
        self.tools = {name: KINDS[name](name, nodes, self.app, workers) for name in tools}
        self.serial = 0
        self.count: Callable[[], int] = lambda: 0

    def deployers(self) -> list[Tool]:
        return [tool for name, tool in self.tools.items() if name != "floor"]

    def new(self) -> str:
        self.serial += 1
        return f"{int(time.time())}.{self.serial}"

    def measure(self, tool: Tool, work: str, state: State, record: bool = True) -> bool:
        """One run; whether it did what it should. A tool that fails is left out from then on, a variant each time."""
        if work.partition(",")[0] != "rollback" or tool.name != "ours":
            self.app.become(state.version)
        command = tool.command(work, state)
        result = WORK / "result.json"
        result.unlink(missing_ok=True)
        sessions, sent = tool.nodes.sessions(), self.count()
        log = LOGS / f"{tool.name}-{work.replace(', ', '-').replace(' ', '-')}-{tool.nodes.count}.log"
        with log.open("w") as output:
            subprocess.run(
                [sys.executable, str(HERE / "measured.py"), str(result), json.dumps(state.answer()), tool.urls, *command],
                cwd=tool.home, env=tool.environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        figures = json.loads(result.read_text())
        figures["bytes_sent"] = self.count() - sent
        figures["calls_per_host"] = (tool.nodes.sessions() - sessions) / tool.nodes.count
        problem = figures.pop("problem")
        if not problem and work == "nothing" and (changes := tool.changes(log.read_text())):
            problem = f"{changes} changes where there is nothing to change"
        line = f"{time.strftime('%H:%M:%S')} {tool.nodes.count:3} hosts  {tool.name:8} {work:20}"
        line += f" {figures['wall_s']:7.2f} s  {figures['cpu_s']:7.2f} CPU-s"
        line += f"  {figures['calls_per_host']:5.1f} calls  {figures['bytes_sent'] / 1024:8.0f} KiB"
        say(line + ("" if record else "  (warm-up)") + (f"  FAILED: {problem}, see {log}" if problem else ""))
        if problem:
            self.results.left_out.append(
                {"tool": tool.name, "work": work, "hosts": tool.nodes.count, "left_out": problem}
            )
            if work in WORKS:
                del self.tools[tool.name]
            return False
        if record:
            self.results.runs[tool.name, work, self.nodes.count].append(figures)
            self.results.write()
        return True

    def provision(self) -> None:
        """First provisions, of nodes made anew before each. Ours once with nothing built before, and once again."""
        for _ in range(self.repetitions("provision")):
            for tool in self.deployers():
                works = ["provision", "provision, built"] if tool.name == "ours" else ["provision"]
                for work in works:
                    self.nodes.fresh()
                    with bytes_to(list(self.nodes.addresses.values())) as self.count:
                        if work == "provision":
                            tool.forget()
                        if not self.measure(tool, work, State(self.new(), "hello")):
                            break

    def steady(self) -> None:
        """All tools serve on the same nodes; the first round is a warm-up."""
        self.nodes.fresh()
        with bytes_to(list(self.nodes.addresses.values())) as self.count:
            first = State(self.new(), "hello")
            for tool in self.deployers():
                if self.nodes.count > 1 and tool.heavy():
                    tool.nodes = self.nodes.first()
                    self.measure(tool, "provision", first, record=False)
                    tool.nodes = self.nodes
                    self.nodes.share(*tool.heavy())
                if self.measure(tool, "provision", first, record=False):
                    tool.history = [first]
            for number in range(max(map(self.repetitions, self.works)) + 1):
                self.round([work for work in self.works if number <= self.repetitions(work)], record=number > 0)

    def repetitions(self, work: str) -> int:
        few = self.nodes.count >= LARGE or (self.nodes.count > 1 and work not in MAIN_WORKS)
        return max(1, self.wanted // 2) if few and not self.full else self.wanted

    def round(self, works: list[str], record: bool) -> None:
        """Every tool in turn, work by work; no work needs another."""
        if "nothing" in works:
            for tool in list(self.tools.values()):
                served_by = self.tools.get("ours") if tool.name == "floor" else tool
                if served_by:
                    self.measure(tool, "nothing", served_by.history[-1], record)
        if "code" in works or "rollback" in works:
            version = self.new()
            for tool in self.deployers():
                self.step(tool, "code", State(version, tool.history[-1].greeting), record)
        if "code" in works and "ours" in self.tools:
            tool = self.tools["ours"]
            variant = "code, all at once" if self.nodes.count > 1 else "code, 10 s watch"
            self.step(tool, variant, State(self.new(), tool.history[-1].greeting), record)
        if "rollback" in works:
            for tool in self.deployers():
                del tool.history[-1]
                self.measure(tool, "rollback", tool.history[-1], record)
        if "setting" in works:
            greeting = f"hello {self.new()}"
            for tool in self.deployers():
                self.step(tool, "setting", State(tool.history[-1].version, greeting), record)

    def step(self, tool: Tool, work: str, state: State, record: bool) -> None:
        if self.measure(tool, work, state, record):
            tool.history.append(state)


def enough_memory(hosts: int, tools: int) -> bool:
    """Whether the nodes fit, with a reserve; says so if not."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) // 1024 - RESERVE_MB
    needed = hosts * (NODE_MB + tools * (1 + (1 if hosts >= LARGE else 2)) * WORKER_MB)
    if needed > available:
        say(f"bench: {hosts} hosts need about {needed} MB, and {available} MB are free: left out.")
    return needed <= available


def install(tools: list[str]) -> None:
    """What the benchmark needs beside the lab; done once."""
    if not shutil.which("nft"):
        run(*as_root("apt-get", "install", "-y", "-qq", "--no-install-recommends", "nftables"))
    BENCH.mkdir(parents=True, exist_ok=True)
    if "pyinfra" in tools and not (BENCH / "pyinfra" / "bin" / "pyinfra").exists():
        run(UV, "venv", "--quiet", "--clear", BENCH / "pyinfra")
        run(UV, "pip", "install", "--quiet", "--python", BENCH / "pyinfra" / "bin" / "python",
            "--requirements", RIVALS / "pyinfra.txt")  # fmt: skip
    if "mitogen" in tools and not (BENCH / "mitogen" / "ansible_mitogen").exists():
        run(UV, "pip", "install", "--quiet", "--python", sys.executable, "--target", BENCH / "mitogen",
            "--requirements", RIVALS / "mitogen.txt")  # fmt: skip


def print_table(rows: list[dict[str, object]], left_out: list[dict[str, object]]) -> None:
    def place(row: dict[str, object]) -> tuple[object, ...]:
        work = str(row["work"])
        return row["hosts"], WORKS.index(work.partition(",")[0]), work, TOOLS.index(str(row["tool"]))

    lines = [("hosts", "work", "tool", "wall s", "min … max", "CPU s", "calls/host", "KiB sent", "runs")]
    for row in sorted(rows, key=place):
        spread = f"{row['wall_s_min']} … {row['wall_s_max']}"
        figures = [row[key] for key in ("hosts", "work", "tool", "wall_s")] + [
            spread,
            row["cpu_s"],
            row["calls_per_host"],
        ]
        lines.append(tuple(map(str, [*figures, int(float(str(row["bytes_sent"]))) // 1024, row["runs"]])))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for row in left_out:
        print(f"left out: {row['tool']}, {row['work']} on {row['hosts']} hosts: {row['left_out']}")
    print(
        "ours: no watch after the switch (forge_watch_seconds: 0) but in “10 s watch”; a canary and then the others, but in “all at once”."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare what deploys take.")
    parser.add_argument("--hosts", default="1,10,30")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--set", default="bench", help="name of the lab's set")
    parser.add_argument("--full", action="store_true", help="as many repetitions of everything on every fleet")
    parser.add_argument("--plot", action="store_true", help="draw docs/converge.svg")
    parser.add_argument("--keep", action="store_true", help="leave the nodes")
    given = parser.parse_args()
    tools, works = given.tools.split(","), given.works.split(",")
    if wrong := {*tools} - {*TOOLS} | {*works} - {*WORKS}:
        parser.error(f"unknown: {', '.join(sorted(wrong))}; tools are {', '.join(TOOLS)}; works are {', '.join(WORKS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # with what "finally" says
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(mode=0o700)
    LOGS.mkdir(parents=True, exist_ok=True)
    install(tools)
    results = Results()
    for hosts in map(int, given.hosts.split(",")):
        if not enough_memory(hosts, len(tools)):
            continue
        nodes = Nodes(given.set if hosts == 1 else f"{given.set}fleet", hosts)
        here = [work for work in works if hosts < LARGE or work in WORKS_OF_LARGE]
        failed = {str(row["tool"]) for row in results.left_out if row["work"] in WORKS}
        working = [tool for tool in tools if tool not in failed]
        bench = Bench(nodes, working, here, results, given.reps, given.full)
        with room_for(hosts):
            try:
                if "provision" in here:
                    bench.provision()
                bench.works = [work for work in here if work != "provision"]
                if bench.works and bench.tools:
                    bench.steady()
            finally:
                if not given.keep:
                    nodes.clean()
    results.write()
    shutil.rmtree(WORK, ignore_errors=True)
    print_table(results.table(), results.left_out)
    if given.plot:
        run(UV, "run", "--quiet", "--no-project", "--with", MATPLOTLIB, HERE / "plot.py", BENCH / "converge.json",
            REPOSITORY / "docs" / "converge.svg")  # fmt: skip
    return 1 if any(row["tool"] == "ours" for row in results.left_out) else 0


if __name__ == "__main__":
    sys.exit(main())
