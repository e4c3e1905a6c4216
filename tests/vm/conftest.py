# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""One real machine that serves the reference app with its database: an own kernel with cgroup v2, and a disk whose cache a
power cut loses. It is emulated, and so ten times slower than a host; figures are counts, not times.

With FORGE_KEEP_VM its disk stays, with the app on it, and the next run goes on from that.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "tests" / "lab"), str(REPOSITORY / "tests" / "system")]

from counted import check_lost, counted  # noqa: E402
from forge_lab import vm  # noqa: E402


def nodes_of_the_lab() -> ModuleType:
    """The other conftest.py, which has the same name."""
    spec = importlib.util.spec_from_file_location("forge_nodes", REPOSITORY / "tests" / "system" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


nodes = nodes_of_the_lab()
HOST = "vm"
READY = "ready"
SOON = 15  # seconds, for some requests of each kind
FILLING_UP = "keepalive=1,closing=1,pausing=1"
CLIENTS = f"{FILLING_UP},post=1"
# Loading the app takes the emulated processor half a minute.
SETTINGS = {"forge_workers": 2, "forge_watch_seconds": 4, "forge_drain_seconds": 5, "forge_health_deadline": 180,
            "forge_keep": 1}  # fmt: skip
# How long the app waits for its database is for a machine that is not emulated: file, what it says, and what it says here.
PATIENCE = {
    "database.py": ("TRANSACTION_SECONDS = 10.0", "TRANSACTION_SECONDS = 60.0"),
    "settings.py": ('"connect_timeout": "3"', '"connect_timeout": "30"'),
}
ROWS: list[dict[str, Any]] = []


@dataclass
class Machine(nodes.Fleet):
    """The machine as the tests of the lab know their nodes; where they name one it is this one."""

    vm: vm.Vm = None
    groups: dict[str, str] = field(default_factory=dict)

    def play(
        self, playbook: str = "site", check: bool = True, limit: str = "", flags: tuple[str, ...] = (), **extra: Any
    ) -> nodes.Run:
        began = time.monotonic()
        process = self.start_play(playbook, limit=limit, flags=flags, **extra)
        try:
            output, _errors = process.communicate(timeout=1500)
        finally:
            process.kill()
        run = nodes.Run(process.returncode, output, time.monotonic() - began)
        if check:
            assert run.rc == 0, run.output[-6000:]
        return run

    def start_play(
        self, playbook: str, collections: Path | None = None, limit: str = "", flags: tuple[str, ...] = (), **extra: Any
    ) -> subprocess.Popen[str]:
        """Begin to run a playbook; its standard output has all that it says.

        :param collections: where Ansible finds the collection, when that is not this repository.
        """
        inventory = self.vm.inventory(vm.PLACE / "inventory" / "hosts.json", **self.groups)
        command = ["ansible-playbook", "-i", str(inventory), f"playbooks/{playbook}.yml", *flags]
        command += ["--limit", limit] if limit else []
        command += ["--extra-vars", json.dumps({**self.variables, **extra})]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_TIMEOUT": "60"}
        if collections:
            environment["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def on(self, node: str, script: str, check: bool = True) -> str:
        done = self.vm.ssh(script)
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def run(self, script: str, check: bool = True) -> str:
        """Run a shell script on it, as root."""
        return self.on(HOST, script, check)

    def url(self, node: str, path: str) -> str:
        return f"http://127.0.0.1:{self.vm.port}{path}"

    def serving(self) -> str:
        """The generation that serves: the only one that runs, the one that ``current`` names, and the one that answers.

        :raises AssertionError: when these differ.
        """
        running = self.run(
            "systemctl list-units --plain --no-legend --all --state=active,activating,deactivating "
            "'forge@*.service' | awk '{print $1}'"
        ).split()
        live = self.live(HOST)
        answered = self.get(HOST, "/version", timeout=60).json()["generation"]
        assert (running, answered) == ([f"forge@{live}.service"], live)
        return live

    def wait_until_served(self, seconds: float = 240) -> str:
        """As :meth:`serving`, when it has come so far."""
        return str(self.until(self.serving, seconds, "one generation that serves"))

    def contents(self, generation: str) -> dict[str, str]:
        """Path to hash of every file that the generation runs with. Bytecode and records are made on the host, and differ."""
        record = json.loads(self.run(f"cat /srv/forge/generations/{generation}/release.json"))
        below = f"releases/{record['release']} layers/{record['layer']} generations/{generation}"
        units = f"/etc/systemd/system/forge.s* /etc/systemd/system/forge@{generation}.*"
        named = "-type f ! -name '*.pyc' ! -name release.json ! -name .complete"
        listing = self.run(f"cd /srv/forge; find {below} {units} {named} -print0 | xargs -0 sha256sum")
        return {path: digest for digest, path in (line.split(maxsplit=1) for line in listing.splitlines())}

    def keep(self) -> None:
        """Make what there is now what :meth:`again` begins with."""
        self.run("sync")
        self.vm.save(READY)

    def again(self) -> None:
        """Go on from the state that was kept, whatever became of the machine."""
        self.vm.kill()
        self.vm.power_on(READY)
        self.vm.wait()
        self.run(f"date -s @{int(time.time())}")

    def boot(self) -> float:
        """Switch the power off and on; seconds until one can log in."""
        self.vm.kill()
        self.vm.power_on()
        return self.vm.wait()


@contextmanager
def load(machine: Machine, what: str, clients: str = CLIENTS, may_lose: str = "") -> Iterator[dict[str, Any]]:
    """A few requests a second while the block runs, none of which may be lost; the block may add to the row of the table.

    :param may_lose: why this loses requests whatever one does.
    """
    row: dict[str, Any] = {"what": what, "happened": ""}
    ROWS.append(row)
    with counted(row, machine.url(HOST, ""), clients, 0.5, may_lose, seconds=3000):
        yield row
    check_lost(row)


@pytest.fixture(scope="session", autouse=True)
def table() -> Iterator[None]:
    """All that was seen, in the end."""
    yield
    lines = ["| what | what happened | lost |", "| --- | --- | --- |"]
    for row in ROWS:
        lost = f"{row['lost']} of {row['requests']}" if "requests" in row else ""
        lost += f" ({row['why']})" if row.get("why") else ""
        lines.append(f"| {row['what']} | {row['happened']} | {lost} |")
    bench = REPOSITORY / "build" / "bench"
    bench.mkdir(parents=True, exist_ok=True)
    (bench / "vm.json").write_text(json.dumps(ROWS, indent=2) + "\n")
    print("\n" + "\n".join(lines))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the reference app that tests may change, with a route that eats memory."""
    copy = tmp_path_factory.mktemp("source") / "app"
    shutil.copytree(REPOSITORY / "app", copy, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".pytest_cache"))
    package = copy / "src" / "thecodeforge"
    (package / "main.py").write_text(
        (package / "main.py").read_text() + (Path(__file__).parent / "leak.py").read_text()
    )
    for name, (seconds, patient) in PATIENCE.items():
        text = (package / name).read_text()
        assert seconds in text
        (package / name).write_text(text.replace(seconds, patient))
    return copy


def change(source: Path, text: str) -> None:
    """Make another release of the app."""
    (source / "src" / "thecodeforge" / "changed.py").write_text(f"CHANGED = {text!r}\n")


@pytest.fixture(scope="session")
def virgin(source: Path) -> Iterator[Machine]:
    """The machine as it came; or, with FORGE_KEEP_VM, as the last run has left it."""
    machine = vm.Vm(vm.ensure())
    shared = yaml.safe_load((REPOSITORY / "inventories" / "lab" / "group_vars" / "all.yml").read_text())
    places = {"forge_source": str(source), "forge_build_cache": str(REPOSITORY / "build" / "cache")}
    found = Machine({**shared, **SETTINGS, **places}, vm=machine, groups={"forge_app": HOST, "forge_database": HOST})
    keep = bool(os.environ.get("FORGE_KEEP_VM"))
    try:
        if keep and machine.has(READY):
            found.again()
        else:
            machine.new_disk()
            machine.power_on()
            machine.wait()
        yield found
    finally:
        machine.kill()
        if not keep:
            machine.disk.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def machine(virgin: Machine, source: Path) -> Machine:
    """The machine with the app, which it has got from nothing."""
    if virgin.run("ls /srv/forge/current 2>/dev/null", check=False):
        return virgin
    change(source, "first")
    run = virgin.play("site")
    assert virgin.wait_until_served()
    ROWS.append({"what": "site.yml on a machine with nothing", "happened": f"serves after {run.seconds:.0f} s"})
    change(source, "second")
    virgin.play("deploy")
    virgin.keep()
    return virgin


@pytest.fixture
def kept(machine: Machine) -> Machine:
    """The machine in the same state for each test."""
    machine.again()
    return machine


def sentence(text: str, pattern: str) -> str:
    """What a text has that fits, on one line, for the table."""
    found = re.search(pattern, re.sub(r"\s+", " ", text))
    assert found, text[-3000:]
    return found[0]
