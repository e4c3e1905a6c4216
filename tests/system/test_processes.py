# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What else belongs to a release: other processes, settings files, writable directories; and another app beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Fleet
from tiny import MAIN, load, write_project

# Says on every beat which generation works, and finishes what it has begun when it is told to stop.
WORKER = """
import os
import signal
import sys
import time

stopping = False


def stop(*_):
    global stopping
    stopping = True


signal.signal(signal.SIGTERM, stop)
me = f"{os.environ['SHOP_GENERATION']} {os.getpid()}"
if os.environ.get("SHOP_WORKER") == "dies":
    sys.exit("the queue is not there: " + open(os.environ["SHOP_CONFIG"]).read())


def say(word):
    with open("/var/lib/shop/beats", "a") as beats:
        beats.write(f"{time.time():.3f} {me} {word}\\n")


say("begins")
while not stopping:
    time.sleep(0.1)
time.sleep(1.5)
say("ends")
"""
NIGHTLY = """
import os
import time

with open("/var/lib/shop/nightly", "a") as nights:
    nights.write(f"{os.environ['SHOP_GENERATION']} {os.getcwd()}\\n")
"""
# What libraries do: compile as they run, are called back from C, run programs they have written, share memory, set priorities.
POWERS = """
def powers():
    import ctypes
    import mmap
    import multiprocessing
    import socket
    import subprocess
    from multiprocessing import shared_memory

    def program():
        with open("/tmp/program", "w") as handle:
            handle.write("#!/bin/sh\\nexit 7\\n")
        os.chmod("/tmp/program", 0o700)
        return subprocess.run(["/tmp/program"]).returncode == 7

    def memory():
        shared_memory.SharedMemory(create=True, size=16).unlink()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(abs, (-1,)) == 1

    found = {}
    for name, attempt in {
        "jit": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
        "callback": lambda: ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 3)() == 3,
        "program": program,
        "memory": memory,
        "priority": lambda: os.nice(1),
        "affinity": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)) is None,
        "machine": lambda: open("/proc/meminfo").read(),
        "addresses": lambda: socket.getaddrinfo("localhost", 80),
    }.items():
        try:
            found[name] = bool(attempt())
        except OSError as error:
            found[name] = str(error)
    return 200, found
"""
SHOP: dict[str, Any] = {
    "forge_app": "shop",
    "forge_user": "shop",
    "forge_group": "shop",
    "forge_listen": ["0.0.0.0:8100"],
    "forge_target": "shop.main:create_app()",
    "forge_migrations": [],
    "forge_schema_version": "",
    "forge_server": "uvicorn",
    "forge_environment_prefix": "SHOP_",
    "forge_environment": {"COLOUR": "blue"},
    "forge_environment_plain": {"TRY": "/var/lib/shop:/var/cache/shop:/srv/shop:/mnt:/tmp", "LOG_LEVEL": "info 100%"},
    "forge_files": [{"name": "settings.toml", "content": 'secret = "hunter22"\n', "variable": "SHOP_CONFIG"}],
    "forge_state_directories": ["shop"],
    "forge_cache_directories": ["shop"],
    "forge_writable_paths": ["/mnt"],
    "forge_directory": "data",
    "forge_watch_seconds": 2,
    "forge_processes": {
        "worker": {"command": "python -m shop.worker", "stop_seconds": 20},
        "nightly": {"command": "python -m shop.nightly", "schedule": "*:*:0/2"},
    },
}
OTHER: dict[str, Any] = {
    "forge_target": "shop.main:app",
    "forge_migrations": [],
    "forge_schema_version": "",
    "forge_server": "uvicorn",
    "forge_environment": {},
    "forge_watch_seconds": 1,
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    main = MAIN.replace('"/place": place', '"/place": place, "/powers": powers') + POWERS
    directory = tmp_path_factory.mktemp("shop") / "shop"
    source = write_project(directory, "uvicorn", main=main, worker=WORKER, nightly=NIGHTLY)
    (source / "data").mkdir()
    (source / "data" / "kept").touch()
    return source


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, box: Fleet) -> dict[str, Any]:
    """An app that serves on the node before the other one comes."""
    settings = {**OTHER, "forge_source": str(write_project(tmp_path_factory.mktemp("other") / "shop", "uvicorn"))}
    box.on("box", "chmod 1777 /mnt")
    box.play("site", **settings)
    return settings


def place(box: Fleet, path: str = "/place") -> dict[str, Any]:
    return json.loads(box.on("box", f"curl -s -m 10 http://127.0.0.1:8100{path}"))


def live(box: Fleet) -> str:
    return box.on("box", "basename $(readlink /srv/shop/current)")


def pid(box: Fleet, unit: str) -> int:
    return int(box.on("box", f"systemctl show -P MainPID {unit}"))


def beats(box: Fleet) -> list[list[str]]:
    return [line.split() for line in box.on("box", "cat /var/lib/shop/beats").splitlines()]


def units(box: Fleet) -> set[str]:
    shown = box.on("box", "systemctl list-units --plain --no-legend 'shop*@*.service' 'shop*@*.timer' | cut -d' ' -f1")
    return set(shown.split())


def test_second_app_comes_beside_the_first(box: Fleet, other: dict[str, Any], shop: Path) -> None:
    first = box.master("box")
    run = box.play("site", **SHOP, forge_source=str(shop))
    assert "hunter22" not in run.output
    assert live(box)
    assert box.master("box") == first
    assert box.get("box", "/healthz").status_code == 200


def test_app_has_its_directory_settings_and_places_to_write(box: Fleet) -> None:
    found = place(box)
    environment = found["environment"]
    assert found["cwd"].endswith("/data")
    assert found["settings"] == 'secret = "hunter22"\n'
    assert environment["SHOP_COLOUR"] == "blue"
    assert environment["LOG_LEVEL"] == "info 100%"
    assert environment["HOME"] == "/var/lib/shop"
    assert environment["SHOP_GENERATION"] == live(box)
    assert set(found["writable"]) == {"/var/lib/shop", "/var/cache/shop", "/mnt", "/tmp"}
    kept = box.on("box", "stat -c '%a %U %G' /srv/shop/current/files/settings.toml")
    assert kept == "640 root shop"


def test_processes_run_as_the_app_does(box: Fleet) -> None:
    now = live(box)
    running = units(box) - {f"shop.nightly@{now}.service"}  # the timer's command, now and then
    assert running == {f"shop@{now}.service", f"shop.worker@{now}.service", f"shop.nightly@{now}.timer"}
    box.until(lambda: now in box.on("box", "cat /var/lib/shop/nightly"), what="the command of the timer")
    assert box.on("box", "tail -1 /var/lib/shop/nightly").endswith("/data")
    assert box.on("box", f"ps -o user= -p {pid(box, f'shop.worker@{now}')}") == "shop"


def test_little_is_exposed(box: Fleet) -> None:
    """By systemd's own measure, from 0 to 10: a service without a sandbox has 9.6."""
    now = live(box)
    table = json.loads(box.on("box", "systemd-analyze security --json=short"))
    scores = {row["unit"]: float(row["exposure"]) for row in table if now in row["unit"]}
    assert set(scores) >= {f"shop@{now}.service", f"shop.worker@{now}.service"}  # of the timer's, while it runs
    assert max(scores.values()) <= 1.2, scores


def test_what_libraries_do_is_not_forbidden(box: Fleet) -> None:
    found = place(box, "/powers")
    assert set(found.values()) == {True}, found


def test_second_run_restarts_no_process(box: Fleet, other: dict[str, Any], shop: Path) -> None:
    before = pid(box, f"shop.worker@{live(box)}")
    assert box.play("deploy", **SHOP, forge_source=str(shop)).changed("box") == 0
    assert box.play("deploy", **other).changed("box") == 0
    assert pid(box, f"shop.worker@{live(box)}") == before


def test_processes_change_with_the_release_and_never_work_beside_each_other(
    box: Fleet, other: dict[str, Any], shop: Path
) -> None:
    first, old, unit = box.master("box"), live(box), {"forge_source": str(shop)}
    files = [{"name": "settings.toml", "content": "new = 1\n", "variable": "SHOP_CONFIG"}]
    changed = {**SHOP, "forge_files": files, "forge_sandbox": {"MemoryDenyWriteExecute": True, "PrivateUsers": False}}
    with load(f"http://{box.address('box')}:8100") as result:
        box.play("deploy", **changed, **unit)
        new = live(box)
        assert place(box)["settings"] == "new = 1\n"
        assert place(box, "/powers")["jit"] in ("[Errno 1] Operation not permitted", "[Errno 13] Permission denied")
        assert box.on("box", f"systemctl show -P PrivateUsers shop@{new} shop.worker@{new}").split() == ["no", "no"]
        box.play("rollback", **SHOP, **unit)
    assert result["lost"] == {}
    assert live(box) == old != new
    assert place(box)["settings"] == 'secret = "hunter22"\n'
    assert place(box, "/powers")["jit"] is True
    told = [(generation, word) for _time, generation, _pid, word in beats(box)]
    assert told == [(old, "begins"), (old, "ends"), (new, "begins"), (new, "ends"), (old, "begins")]
    assert {unit for unit in units(box) if new in unit} == set()
    assert box.master("box") == first
    assert box.get("box", "/version").json()["generation"] == box.live("box")


def test_release_whose_process_dies_goes_back(box: Fleet, shop: Path) -> None:
    before = live(box)
    bad = {**SHOP, "forge_environment": {"WORKER": "dies"}, "forge_source": str(shop)}
    run = box.play("deploy", check=False, **bad)
    assert run.rc != 0
    assert "Process worker of" in run.said()
    assert "the queue is not there: secret = " in run.said()
    assert "hunter22" not in run.output
    assert f"The host went back to {before}" in run.said()
    assert live(box) == before
    assert pid(box, f"shop.worker@{before}") > 0
    assert {unit for unit in units(box) if before not in unit} == set()
    assert place(box)["environment"]["SHOP_COLOUR"] == "blue"


def test_schedule_that_systemd_cannot_read_is_refused(box: Fleet, shop: Path) -> None:
    before = live(box)
    bad = {**SHOP, "forge_processes": {"nightly": {"command": "true", "schedule": "sometimes"}}}
    run = box.play("deploy", check=False, **bad, forge_source=str(shop))
    assert run.rc != 0
    assert "forge_processes: nightly: systemd cannot read the schedule 'sometimes'" in run.said()
    assert live(box) == before


def test_stop_start_and_a_power_cut_bring_the_processes_too(box: Fleet, other: dict[str, Any]) -> None:
    now = live(box)
    box.on("box", "systemctl stop shop")
    box.until(lambda: units(box) == set(), what="the end of the worker, which finishes its work")
    assert box.get("box", "/healthz").status_code == 200
    box.on("box", "systemctl start shop")
    assert pid(box, f"shop.worker@{now}") > 0
    box.lab("kill", "box")
    box.lab("start", "box")
    box.until(lambda: pid(box, f"shop.worker@{now}") > 0, what="the worker after the boot")
    box.until(lambda: f"shop.nightly@{now}.timer" in units(box), what="the timer after the boot")
    assert box.until(lambda: place(box), what="the app after the boot")["environment"]["SHOP_GENERATION"] == now
    assert box.until(lambda: box.get("box", "/healthz").status_code == 200)


def test_process_that_was_stopped_by_hand_is_said_and_started_again(box: Fleet, shop: Path) -> None:
    unit = f"shop.worker@{live(box)}.service"
    box.on("box", f"systemctl stop {unit}")
    status = box.play("status", check=False, **SHOP, forge_source=str(shop))
    assert status.rc != 0
    assert f"{unit} should run and does not" in status.said()
    assert box.play("deploy", **SHOP, forge_source=str(shop)).changed("box") > 0
    assert pid(box, unit) > 0
    assert box.play("status", **SHOP, forge_source=str(shop)).rc == 0
