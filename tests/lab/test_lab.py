# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab promises, on one node of a set of its own. Run it with `pytest tests/lab`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "tests" / "lab" / "lab"
INVENTORY = ROOT / "inventories" / "lab" / "nodes.py"
SET = "labtest"
NODE = "one"
SPEC = f"{NODE}=debian13:forge_app,extra"


def lab(*arguments: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    command, rest = arguments[0], arguments[1:]
    done = subprocess.run(
        [LAB, command, "--set", SET, *rest], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def inside(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return lab("exec", NODE, "--", *command, check=check, timeout=120)


def over_ssh(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return lab("ssh", NODE, "--", *command, check=check, timeout=60)


def shown() -> dict[str, list]:
    return json.loads(lab("list", "--json").stdout)


def inventory() -> dict[str, dict]:
    environment = {**os.environ, "FORGE_LAB_SET": SET}
    done = subprocess.run([INVENTORY, "--list"], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answers(address: str, port: int, patience: float = 10) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((address, port), timeout=2).close()
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


@pytest.fixture(scope="module", autouse=True)
def node() -> Iterator[None]:
    lab("clean")
    lab("up", SPEC)
    yield
    lab("clean")


def test_it_is_a_virgin_host() -> None:
    assert inside("systemctl", "is-system-running").stdout.strip() == "running"
    assert inside("sh", "-c", "ls /var/lib/apt/lists").stdout == ""
    assert inside("python3", "-m", "venv", "/tmp/x", check=False).returncode, "no venv before someone installs it"
    assert inside("hostname").stdout.strip() == NODE


def test_one_logs_in_as_a_normal_user_with_sudo_and_not_as_root() -> None:
    assert over_ssh("id", "-un").stdout.strip() == "admin"
    assert over_ssh("sudo", "-n", "id", "-un").stdout.strip() == "root"
    host = inventory()["_meta"]["hostvars"][NODE]
    refused = subprocess.run(
        ["ssh", "-i", host["ansible_ssh_private_key_file"], *host["ansible_ssh_common_args"].split()]
        + ["-o", "BatchMode=yes", f"root@{host['ansible_host']}", "true"],
        capture_output=True,
        timeout=30,
    )
    assert refused.returncode == 255


def test_the_inventory_says_groups_and_address() -> None:
    found = inventory()
    assert found["forge_app"]["hosts"] == [NODE] == found["extra"]["hosts"]
    assert found["_meta"]["hostvars"][NODE]["ansible_host"] == shown()["nodes"][0]["address"]


def test_an_empty_set_is_an_empty_inventory_with_a_hint() -> None:
    environment = {**os.environ, "FORGE_LAB_SET": "nosuchset"}
    done = subprocess.run([INVENTORY, "--list"], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"_meta": {"hostvars": {}}}
    assert "lab up" in done.stderr


def test_a_sandboxed_service_works() -> None:
    sandbox = """
        User=nobody ProtectSystem=strict ProtectHome=yes PrivateTmp=yes PrivateDevices=yes PrivateUsers=yes
        ProtectProc=invisible NoNewPrivileges=yes SystemCallFilter=@system-service RestrictNamespaces=yes
        MemoryDenyWriteExecute=yes CapabilityBoundingSet= RuntimeDirectory=a/b StateDirectory=a
    """
    properties = [part for setting in sandbox.split() for part in ("-p", setting)]
    script = "touch /run/a/b/yes && ! touch /etc/no && ! ls /home && id -un"
    done = inside("systemd-run", "--wait", "--pipe", "--quiet", "--collect", *properties, "sh", "-c", script)
    assert done.stdout.strip() == "nobody"


def test_apt_works_and_gives_to_the_others() -> None:
    inside("apt-get", "-qq", "update")
    assert (ROOT / "build/lab/apt-cache/debian13/lists.tar").exists()
    assert inside("apt-cache", "policy", "python3-venv").stdout


def test_up_leaves_a_running_node_alone() -> None:
    before = shown()["nodes"]
    inside("touch", "/run/still-the-same-boot")
    assert "was running" in lab("up", SPEC).stderr
    assert shown()["nodes"] == before
    inside("test", "-e", "/run/still-the-same-boot")


def test_power_cut_keeps_files_and_journal() -> None:
    inside("sh", "-c", "echo kept > /var/lib/kept; touch /run/gone; logger -t before-the-cut hello; journalctl --sync")
    lab("kill", NODE)
    assert shown()["nodes"][0]["state"] == "exited"
    off = inventory()["_meta"]["hostvars"][NODE]["ansible_host"]
    assert off.endswith(".invalid"), "a node that is off is in the inventory, and unreachable"
    lab("start", NODE)
    assert over_ssh("cat", "/var/lib/kept").stdout.strip() == "kept"
    assert inside("test", "-e", "/run/gone", check=False).returncode
    assert "hello" in inside("journalctl", "--no-pager", "-t", "before-the-cut").stdout


def test_orderly_stop_and_up_again() -> None:
    before = shown()["nodes"][0]["address"]
    lab("stop", NODE)
    assert shown()["nodes"][0]["state"] == "exited"
    assert "started" in lab("up").stderr
    assert shown()["nodes"][0]["address"] == before
    # not -b -1: all boots of a container have the boot id of the machine's kernel
    assert "Stopped" in inside("journalctl", "--no-pager", "-u", "ssh.service").stdout


def test_cut_blocks_all_but_ssh_from_here_and_survives_a_power_cut() -> None:
    fetch = ("curl", "--silent", "--head", "--max-time", "4", "http://deb.debian.org/debian/")
    over_ssh(*fetch)
    address = shown()["nodes"][0]["address"]
    server = ("systemd-run", "--collect", "--unit=web", "python3", "-m", "http.server", "8099")
    inside(*server)
    assert answers(address, 8099)
    lab("cut", NODE)
    try:
        assert over_ssh(*fetch, check=False).returncode, "apt's archive is out of reach"
        assert not answers(address, 8099, patience=0), "no port but SSH answers"
        assert over_ssh("curl", "--silent", "--head", "http://127.0.0.1:8099/").stdout, "loopback does"
        lab("kill", NODE)
        lab("start", NODE)
        assert over_ssh(*fetch, check=False).returncode, "still cut off"
        assert shown()["nodes"][0]["cut_off"]
    finally:
        lab("join", NODE)
    over_ssh(*fetch)


def test_up_makes_a_half_made_node_anew() -> None:
    """As an `up` leaves it that is killed at once, when the container is there, and a moment later."""
    container = f"forge-lab-{SET}-{NODE}"
    for moment in ("at once", "when it is there", "a moment later"):
        lab("clean")
        run = subprocess.Popen([LAB, "up", "--set", SET, SPEC], stderr=subprocess.DEVNULL)
        if moment != "at once":
            while subprocess.run(["podman", "container", "exists", container]).returncode and run.poll() is None:
                pass
        if moment == "a moment later":
            time.sleep(0.3)
        run.kill()
        run.wait()
        if moment == "when it is there":
            assert "half-made" in lab("list").stdout
        lab("up", SPEC)
        assert [item["complete"] for item in shown()["nodes"]] == [True]


def test_clean_leaves_nothing_of_the_set_and_all_of_the_others() -> None:
    def names(*command: str) -> set[str]:
        return set(subprocess.run(["podman", *command], capture_output=True, text=True, check=True).stdout.split())

    listings = (
        ("ps", "--all", "--format", "{{.Names}}"),
        ("volume", "ls", "--format", "{{.Name}}"),
        ("images", "--format", "{{.Repository}}"),
        ("network", "ls", "--format", "{{.Name}}"),
    )
    before = set().union(*(names(*listing) for listing in listings))
    lab("clean")
    after = set().union(*(names(*listing) for listing in listings))
    assert not {name for name in after if name.startswith(f"forge-lab-{SET}-")}
    assert {name for name in before if not name.startswith(f"forge-lab-{SET}-")} <= after
    assert not any(shown().values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("up", "app=debian99:x"), "no image for 'debian99'"),
        (("up", "app"), "is not NODE=OS:GROUP"),
        (("up",), "has no nodes"),
        (("kill", "nobody"), "has no node nobody"),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    done = lab(*arguments, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
