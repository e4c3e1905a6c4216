# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet switches in waves: a canary, then the rest together; what fails is taken back everywhere."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import SET, Fleet
from tiny import MAIN, PLAIN, load, write_project

pytestmark = pytest.mark.fleet
HOSTS = ("w1", "w2", "w3", "w4")
NODES = tuple(f"{host}=debian{12 + number % 2}:forge_app" for number, host in enumerate(HOSTS))
WATCH = 4
# Sick from the moment in which it serves, on a host that says so: no gate can know it before.
HEALTH = """
def health():
    link = "/srv/wavy/current"
    serves = os.path.islink(link) and os.path.basename(os.readlink(link)) == os.environ.get("FORGE_WORKER_GENERATION")
    return (503 if serves and os.path.exists("/run/sick") else 200), {}
"""
SETTINGS: dict[str, Any] = {
    **PLAIN,
    "forge_app": "wavy",
    "forge_project": "waves",
    "forge_listen": ["8000"],
    "forge_workers": 1,
    "forge_watch_seconds": WATCH,
    "forge_drain_seconds": 4,
}
CLIENTS = {"keepalive": 1, "closing": 1, "post": 1, "pausing": 1}


@pytest.fixture(scope="module")
def wavy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    main = MAIN.replace('lambda: (int(os.environ.get("HEALTH", 200)), {})', "health") + HEALTH
    source = write_project(tmp_path_factory.mktemp("wavy") / "shop", "gunicorn", "uvicorn-worker", main=main)
    fleet = Fleet({**SETTINGS, "forge_source": str(source)}, lab_set=f"{SET}waves", without_database=True)
    with fleet.with_nodes(*NODES):
        fleet.play("site")
        yield fleet


def change(fleet: Fleet) -> None:
    package = Path(fleet.variables["forge_source"], "shop")
    (package / "version.py").write_text(f"VERSION = {time.time()}\n")


def live(fleet: Fleet, host: str) -> str:
    return fleet.on(host, "basename $(readlink /srv/wavy/current)")


def switched_at(fleet: Fleet, host: str) -> float:
    return float(fleet.on(host, "stat -c %.Y /srv/wavy/current"))


def serves(fleet: Fleet) -> dict[str, str]:
    """What each host answers; it must be what is live there, and alone."""
    found = {}
    for host in HOSTS:
        answered = fleet.get(host, "/version").json()["generation"]
        running = fleet.on(host, "systemctl list-units --plain --no-legend 'wavy@*.service' | awk '{print $1}'").split()
        assert running == [f"wavy@{answered}.service"], host
        assert live(fleet, host) == answered
        found[host] = answered
    return found


@contextmanager
def loaded(fleet: Fleet, sick: str = "", hosts: Sequence[str] = HOSTS) -> Iterator[None]:
    """Requests to the hosts while the block runs; none may be lost.

    :param sick: host whose app answers 503 for a while, as clients ask for what the health check does.
    """
    with ExitStack() as stack:
        results = {host: stack.enter_context(load(fleet.url(host, ""), **CLIENTS)) for host in hosts}
        time.sleep(1)
        yield
        time.sleep(1)
    lost = {(host, how) for host, result in results.items() for how in result["lost"]}
    assert {(host, how) for host, how in lost if host != sick or not how.endswith("status 503")} == set()
    assert all(result["total"] > 50 for result in results.values())


def outcome(output: str) -> dict[str, str]:
    """Of the table that a release which failed ends with: host to what became of it."""
    return dict(re.findall(r"^\W*(w\d) .*?  (it [a-z ]+|its [a-z ]+)", output, re.MULTILINE))


# The second is what a release of this size needs where all hosts share two cores: alone it is a fifth of a second.
@pytest.mark.parametrize(
    ("flags", "spread"), [((), 3), (("--forks", "2"), 8)], ids=["at once", "fewer forks than hosts"]
)
def test_canary_first_and_then_the_others_together(wavy: Fleet, flags: tuple[str, ...], spread: float) -> None:
    change(wavy)
    before = serves(wavy)
    with loaded(wavy):
        wavy.play("deploy", flags=flags)
    after = serves(wavy)
    assert all(after[host] != before[host] for host in HOSTS)
    canary, *others = (switched_at(wavy, host) for host in HOSTS)
    assert min(others) - canary >= WATCH
    assert max(others) - min(others) < spread
    run = wavy.play("deploy", flags=flags)
    assert [run.changed(host) for host in HOSTS] == [0] * len(HOSTS)


@pytest.mark.parametrize("host", ["w1", "w3"], ids=["canary", "second wave"])
def test_failure_is_taken_back_everywhere(wavy: Fleet, host: str) -> None:
    change(wavy)
    before = serves(wavy)
    wavy.on(host, "touch /run/sick")
    try:
        with loaded(wavy, sick=host):
            run = wavy.play("deploy", check=False)
    finally:
        wavy.on(host, "rm /run/sick")
    assert run.rc
    assert "answered 503" in run.said()
    wavy.until(lambda: serves(wavy) == before, 20, "all hosts back at what they had")
    others = set(HOSTS) - {host}
    rest = "it was taken back" if host == "w3" else "it was not switched"
    assert outcome(run.output) == {host: "its release failed", **dict.fromkeys(others, rest)}
    if host == "w3":
        back = [switched_at(wavy, each) for each in HOSTS]
        # bench-fleet measures it; here four hosts and sixteen clients share two cores.
        assert max(back) - back[HOSTS.index(host)] < 20
    assert wavy.play("deploy").rc == 0  # nothing of it is in the way
    assert all(now != before[each] for each, now in serves(wavy).items())


def test_only_the_host_that_failed_goes_back_where_that_is_chosen(wavy: Fleet) -> None:
    change(wavy)
    before = serves(wavy)
    wavy.on("w3", "touch /run/sick")
    try:
        run = wavy.play("deploy", check=False, forge_take_back=False, forge_quick_calls=False)
    finally:
        wavy.on("w3", "rm /run/sick")
    assert run.rc
    now = wavy.until(lambda: serves(wavy), 20)
    assert [host for host in HOSTS if now[host] == before[host]] == ["w3"]
    assert outcome(run.output)["w1"] == "it keeps what it was released"
    wavy.play("deploy")
    assert len(set(serves(wavy).values())) == 2  # one for each system


def test_a_check_between_waves_stops_the_release(wavy: Fleet) -> None:
    change(wavy)
    before = serves(wavy)
    run = wavy.play(
        "deploy", check=False, forge_wave_check="sh -c 'echo it is $FORGE_WAVE; exit 3'", forge_wave_pause=1
    )
    assert run.rc
    assert "it is w1" in run.output
    wavy.until(lambda: serves(wavy) == before, 20, "the canary back at what it had")
    assert outcome(run.output) == {"w1": "it was taken back", **dict.fromkeys(HOSTS[1:], "it was not switched")}


def test_host_that_dies_in_its_wave(wavy: Fleet) -> None:
    change(wavy)
    before = serves(wavy)

    def killed() -> None:
        wavy.until(lambda: live(wavy, "w1") != before["w1"], 60, "the switch of the canary")
        time.sleep(WATCH + 1.5)
        wavy.lab("kill", "w2")

    killer = threading.Thread(target=killed)
    killer.start()
    run = wavy.play("deploy", check=False)
    killer.join()
    assert run.rc
    wavy.lab("start", "w2")
    assert outcome(run.output)["w2"] == "it could not be asked"
    for host in ("w1", "w3", "w4"):
        assert wavy.until(lambda host=host: live(wavy, host) == before[host], 20, f"{host} back")
    wavy.play("deploy")
    assert all(now != before[each] for each, now in serves(wavy).items())


def test_rollback_goes_the_same_way(wavy: Fleet) -> None:
    before = serves(wavy)
    with loaded(wavy):
        wavy.play("rollback")
    assert all(now != before[each] for each, now in serves(wavy).items())
    canary, *others = (switched_at(wavy, host) for host in HOSTS)
    assert min(others) - canary >= WATCH


@contextmanager
def away(fleet: Fleet, host: str, how: str) -> Iterator[None]:
    """A host does not answer while the block runs: it refuses, or it is off."""
    stop, start = {
        "refuses": (
            lambda: fleet.on(host, "systemctl stop ssh.socket ssh"),
            lambda: fleet.on(host, "systemctl start ssh"),
        ),
        "is off": (lambda: fleet.lab("kill", host), lambda: fleet.lab("start", host)),
    }[how]
    stop()
    try:
        # Not over a connection that is still open from before.
        with tempfile.TemporaryDirectory() as sockets, pytest.MonkeyPatch.context() as patch:
            patch.setenv("ANSIBLE_SSH_CONTROL_PATH_DIR", sockets)
            yield
    finally:
        start()


@pytest.mark.parametrize(("host", "how"), [("w1", "refuses"), ("w4", "is off")])
def test_host_that_is_away_is_said_first_and_left_out_when_told(wavy: Fleet, host: str, how: str) -> None:
    """The first one too: no host is special. It catches up when it is back, and the others are left alone then."""
    change(wavy)
    before = serves(wavy)
    others = [each for each in HOSTS if each != host]
    with away(wavy, host, how):
        stopped = wavy.play("deploy", check=False)
        assert stopped.rc
        assert re.search(rf"{host} \([^)]+\) does not answer: start what is down, or go on without it", stopped.said())
        assert {each: live(wavy, each) for each in others} == {each: before[each] for each in others}
        with loaded(wavy, hosts=others):
            wavy.play("deploy", forge_unreachable="go_on")
        now = {each: live(wavy, each) for each in others}
        assert all(now[each] != before[each] for each in others)
        status = wavy.play("status", check=False)
        assert status.rc
        assert re.search(rf"^\W*{host} .* no: it does not answer", status.output, re.MULTILINE)
        wavy.play("rollback", forge_unreachable="go_on")
        assert {each: live(wavy, each) for each in others} == {each: before[each] for each in others}
        wavy.play("deploy", forge_unreachable="go_on")
    assert serves(wavy) == {**now, host: before[host]}
    run = wavy.play("deploy")
    assert [run.changed(each) for each in others] == [0] * 3
    assert serves(wavy)[host] != before[host]


def test_deploys_that_share_a_host_take_turns_and_others_do_not_wait(wavy: Fleet) -> None:
    """No lock on a host that stands for all: w2 and w3 are in both runs, and neither run has the whole fleet."""
    change(wavy)
    before = serves(wavy)
    with ThreadPoolExecutor() as pool, loaded(wavy):
        runs = list(pool.map(lambda limit: wavy.play("deploy", limit=limit), ("w1,w2,w3", "w2,w3,w4")))
    assert any("who holds the lock" in run.output for run in runs)
    assert all(now != before[each] for each, now in serves(wavy).items())
    ledgers = {host: wavy.on(host, "grep -c switched /srv/wavy/ledger.jsonl") for host in HOSTS}
    change(wavy)
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda limit: wavy.play("deploy", limit=limit), ("w1,w2", "w3,w4")))
    assert not any("who holds the lock" in run.output for run in runs)
    after = {host: wavy.on(host, "grep -c switched /srv/wavy/ledger.jsonl") for host in HOSTS}
    assert all(int(after[host]) == int(ledgers[host]) + 1 for host in HOSTS), (ledgers, after)
