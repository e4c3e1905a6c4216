# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real systemd nodes, provisioned once by site.yml, for the tests of this directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

REPOSITORY = Path(__file__).parents[2]
LAB = REPOSITORY / "tests" / "lab" / "lab"
# With another name a second checkout can test beside this one; each worker of pytest-xdist has nodes of its own.
SET = os.environ.get("FORGE_TEST_SET", "system") + os.environ.get("PYTEST_XDIST_WORKER", "")
NODES = ("app12=debian12:forge_app", "app13=debian13:forge_app", "db=debian12:forge_database")
HOSTS = ("app12", "app13")


def some_of(cases: Iterable[str], *kept: str) -> list[Any]:
    """Cases for ``pytest.mark.parametrize``: ``make test`` tries those that are kept, ``make test-thorough`` the others."""
    return [case if case in kept else pytest.param(case, marks=pytest.mark.thorough) for case in cases]


@dataclass
class Run:
    """What a playbook did."""

    rc: int
    output: str
    seconds: float

    def changed(self, host: str) -> int:
        return self._recap(host, "changed")

    def failed(self, host: str) -> int:
        return self._recap(host, "failed")

    def _recap(self, host: str, what: str) -> int:
        found = re.search(rf"^{host}\s+:.*\b{what}=(\d+)", self.output, re.MULTILINE)
        assert found, f"no recap for {host} in:\n{self.output[-3000:]}"
        return int(found[1])

    def said(self) -> str:
        """Output with line breaks folded, as messages are wrapped."""
        return re.sub(r"\s+", " ", self.output)


@dataclass
class Fleet:
    """The nodes of this set."""

    variables: dict[str, Any] = field(default_factory=dict)
    lab_set: str = SET
    without_database: bool = False

    def play(
        self, playbook: str = "site", check: bool = True, limit: str = "", flags: tuple[str, ...] = (), **extra: Any
    ) -> Run:
        """Run a playbook of the collection as a user does.

        :param check: fail the test when the playbook fails.
        :param extra: variables, on top of those of the fleet.
        """
        command = [
            "ansible-playbook",
            "-i",
            str(REPOSITORY / "inventories" / "lab"),
            f"playbooks/{playbook}.yml",
            *flags,
        ]
        command += ["--extra-vars", json.dumps({**self.variables, **extra})]
        if limit:
            command += ["--limit", limit]
        environment = {**os.environ, "FORGE_LAB_SET": self.lab_set, "ANSIBLE_NOCOLOR": "1"}
        began = time.monotonic()
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        run = Run(done.returncode, done.stdout + done.stderr, time.monotonic() - began)
        logs = REPOSITORY / "build" / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        (logs / f"last-play-{self.lab_set}.log").write_text(f"$ {' '.join(command)}\n{run.output}")
        assert limit or self.without_database or "no hosts matched" not in run.output
        if check:
            assert run.rc == 0, run.output[-6000:]
        return run

    @contextmanager
    def with_nodes(self, *specs: str) -> Iterator[Fleet]:
        """Virgin nodes, which go in the end; with FORGE_KEEP_NODES those of the last run, and they stay."""
        keep = bool(os.environ.get("FORGE_KEEP_NODES"))
        try:
            if not keep:
                self.lab("clean")
            self.lab("up", *specs)
            yield self
        finally:
            if not keep:
                self.lab("clean")

    def lab(self, verb: str, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [str(LAB), verb, "--set", self.lab_set, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,  # the first time it makes an image
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def on(self, node: str, script: str, check: bool = True) -> str:
        """Run a shell script on a node, as root: as ``lab exec`` does it, which takes longer to begin than most scripts take."""
        return self._podman(["exec", f"forge-lab-{self.lab_set}-{node}", "sh", "-c", script], check)

    def _podman(self, arguments: list[str], check: bool = True) -> str:
        as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        done = subprocess.run(
            [*as_root, "podman", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def address(self, node: str) -> str:
        """Its address, also after another start."""
        shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self._podman(["inspect", "--format", shown, f"forge-lab-{self.lab_set}-{node}"])

    def url(self, node: str, path: str) -> str:
        return f"http://{self.address(node)}:8000{path}"

    def get(self, node: str, path: str, timeout: float = 10) -> httpx.Response:
        return httpx.get(self.url(node, path), timeout=timeout)

    def live(self, node: str) -> str:
        """Id of the generation that ``current`` names."""
        return self.on(node, "basename $(readlink /srv/forge/current)")

    def master(self, node: str) -> int:
        return int(self.on(node, f"systemctl show -P MainPID forge@{self.live(node)}"))

    def workers(self, node: str) -> list[int]:
        return [int(pid) for pid in self.on(node, f"pgrep -P {self.master(node)}").split()]

    def fingerprint(self, node: str) -> str:
        """What a deploy may touch on a node: to see that nothing did."""
        return self.on(
            node,
            "{ find /srv /etc/systemd/system -printf '%p %s %T@ %m %l\\n' 2>/dev/null | sort; "
            "getent passwd forge; dpkg-query -W | md5sum; } | md5sum",
        )

    def until(self, true: Callable[[], Any], seconds: float = 30, what: str = "it") -> Any:
        """Wait until something is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                found = true()
            except (httpx.HTTPError, AssertionError, ValueError):
                found = None
            if found:
                return found
            time.sleep(0.2)
        raise AssertionError(f"{what} did not happen within {seconds} s")


@pytest.fixture(scope="session")
def nodes() -> Iterator[Fleet]:
    with Fleet().with_nodes(*NODES) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def box() -> Iterator[Fleet]:
    """One virgin node by itself, for apps without a database. FORGE_TEST_BOX says which system it has."""
    spec = f"box={os.environ.get('FORGE_TEST_BOX', 'debian12')}:forge_app"
    with Fleet(lab_set=f"{SET}box", without_database=True).with_nodes(spec) as alone:
        yield alone


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the reference app that tests may change, with routes that misbehave on demand."""
    copy = tmp_path_factory.mktemp("source") / "app"
    shutil.copytree(REPOSITORY / "app", copy, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".pytest_cache"))
    main = copy / "src" / "thecodeforge" / "main.py"
    main.write_text(main.read_text() + (Path(__file__).parent / "misbehaviour.py").read_text())
    return copy


@pytest.fixture(scope="session")
def fleet(nodes: Fleet, source: Path) -> Fleet:
    """Nodes that serve the app."""
    # Each candidate loads the app once for each worker: two are enough to be several.
    nodes.variables = {"forge_source": str(source), "forge_watch_seconds": 1, "forge_workers": 2}
    nodes.play("site")
    return nodes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bad input first, while the nodes are still virgin; then what takes longest, so that no worker ends long before another."""
    names = "errors faults release swap database sources gate servers takeover restart controller roles ownership"
    first = [f"test_{name}.py" for name in names.split()]
    items.sort(key=lambda item: first.index(item.path.name) if item.path.name in first else len(first))
