# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a kernel with cgroup v2 enforces: limits of memory and CPU, and who may connect; and a disk of logs that is full."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx
from conftest import FILLING_UP, HOST, ROWS, Machine, change, load, sentence

LIMIT = 320  # MiB; two workers and their master take about half of that
LEAK = 16  # MiB a request, as leak.py has it


def cgroup(machine: Machine, what: str) -> str:
    """A file of the control group of what serves."""
    return machine.run(f"cat /sys/fs/cgroup/$(systemctl show -P ControlGroup forge@{machine.live(HOST)})/{what}")


def new_workers(machine: Machine, before: list[int]) -> list[int]:
    return [worker for worker in machine.workers(HOST) if worker not in before]


def test_worker_that_leaks_is_ended_by_the_limit_and_another_serves(kept: Machine) -> None:
    kept.play("deploy", forge_memory_max_mb=LIMIT)
    live = kept.wait_until_served()
    assert cgroup(kept, "memory.max") == str(LIMIT << 20)
    master, workers = kept.master(HOST), kept.workers(HOST)
    used = int(cgroup(kept, "memory.current")) >> 20
    why = "what the worker had accepted that the kernel killed"
    with load(kept, f"a worker leaks, forge_memory_max_mb: {LIMIT}", FILLING_UP, may_lose=why) as row:
        asked = 0
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.Client(timeout=60) as client,
        ):  # one connection, one worker
            while asked < 2 * LIMIT // LEAK:
                client.get(kept.url(HOST, "/misbehave/leak"))
                asked += 1
        kept.until(lambda: "oom_kill 0" not in cgroup(kept, "memory.events"), 60, "the kernel's kill")
        kept.until(lambda: len(new_workers(kept, workers)) == len(kept.workers(HOST)) - 1 == 1, 120, "another worker")
        assert kept.wait_until_served() == live
        said = kept.run(f"journalctl --no-pager -o cat -u forge@{live} --since -15min")
        kernel = kept.run("journalctl -k --no-pager -o cat --since -15min")
        row["happened"] = (
            f"after {asked} requests of {LEAK} MiB on {used} MiB, in the journal: "
            + sentence(said, r"Worker \(pid:\d+\) was sent SIGKILL! Perhaps out of memory\?")
            + "; another worker took its place"
        )
    assert "Memory cgroup out of memory: Killed process" in kernel
    assert kept.live(HOST) == live
    assert kept.master(HOST) == master, "the others went on"
    assert len(kept.workers(HOST)) == 2
    with load(kept, "after that") as row:
        kept.play("status")
        row["happened"] = "`status` finds nothing wrong"


def test_limit_that_is_too_small_is_the_cause_that_a_release_names(kept: Machine) -> None:
    before = kept.serving()
    with load(kept, "a release with a limit of 24 MiB") as row:
        run = kept.play("deploy", check=False, forge_memory_max_mb=24)
        row["happened"] = sentence(run.output, r"msg: (.*?still serves\.)").removeprefix("msg: ").strip()
    assert run.rc != 0
    assert "killed by the kernel: out of memory" in row["happened"]
    assert "forge_memory_max_mb" in row["happened"]
    assert kept.wait_until_served() == before


def test_workers_are_counted_by_the_cpus_that_the_service_may_use(kept: Machine) -> None:
    """A quota on the slice in which systemd runs services holds for the app."""
    kept.run("systemctl set-property system.slice CPUQuota=100%")
    with load(kept, "a release, system.slice has one CPU of two") as row:
        run = kept.play("deploy", forge_workers=0)
        said = sentence(run.output, r"[^.\n]{0,80}quota of 1 CPUs[^.\n]{0,40}") if "quota of" in run.output else ""
        kept.wait_until_served()
        row["happened"] = f"{len(kept.workers(HOST))} workers {said}"
    assert len(kept.workers(HOST)) == 3, run.output[-3000:]


def test_full_disk_of_logs_stops_nothing(kept: Machine, source: Path) -> None:
    before = kept.serving()
    kept.run("""
        set -e
        mkdir /mnt/logs; mount -t tmpfs -o size=12m tmpfs /mnt/logs; cp -a /var/log/postgresql /mnt/logs; mkdir /mnt/logs/journal
        mount --move /mnt/logs /var/log 2>/dev/null || mount --bind /mnt/logs /var/log
        systemctl restart systemd-journald; journalctl --flush
        dd if=/dev/zero of=/var/log/filling bs=64k 2>/dev/null || true
        test "$(df --output=avail /var/log | tail -1)" -lt 100""")
    change(source, "logs are full")
    with load(kept, "/var/log is full, and a release") as row:
        run = kept.play("deploy")
        row["happened"] = f"the new one serves, {run.seconds:.0f} s"
    after = kept.wait_until_served()
    assert after != before
    assert kept.run("df --output=avail /var/log | tail -1") == "0"


def test_nobody_but_the_edges_may_connect(kept: Machine) -> None:
    """A namespace of the network is another host: its address is not the machine's own, and is routed to it."""
    kept.run("""
        set -e
        ip netns add other; ip link add forge-in type veth peer name forge-out netns other
        ip address add 10.9.0.1/24 dev forge-in; ip link set forge-in up
        ip -n other address add 10.9.0.2/24 dev forge-out; ip -n other link set forge-out up""")

    def ask(port: int, netns: str = "") -> str:
        """Status that is answered at a port of the machine; 000 for none."""
        wanted = (
            f"-s -m 20 -o /dev/null -w '%{{http_code}}' -H 'Host: parts.example.org' http://10.9.0.1:{port}/version"
        )
        return kept.run(f"{netns} curl {wanted}", check=False)

    other = "ip netns exec other"
    assert (ask(8000, other), ask(8000)) == ("200", "200")
    kept.groups = {**kept.groups, "forge_edge": HOST}
    try:
        kept.play("site", forge_edge_names=["parts.example.org"], forge_edge_tls="none")
        assert "IPAddressDeny=any" in kept.run("cat /etc/systemd/system/forge.socket.d/edge.conf")
        found = {"another address": ask(8000, other), "its own": ask(8000), "through the edge": ask(80, other)}
    finally:
        kept.groups.pop("forge_edge")
    ROWS.append({"what": "an edge is put in front of the app", "happened": str(found)})
    assert found == {"another address": "000", "its own": "200", "through the edge": "200"}
