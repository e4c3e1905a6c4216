# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes: made, healed, started, cut off, and found again. What podman says is the only truth about them."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import images
from .machine import HOME, KEY, PREFIX, LabError, as_root, lock, need, podman, run, runtime_flags, say, until
from .state import NETWORK, USER, Node, cut_marker, find, get, marker, ssh_command

ADMIN_ID = 1000
BOOT = 90  # seconds from power to running, on a loaded machine
CACHE_LIMIT = 1 << 30


@dataclass(frozen=True)
class Spec:
    """What a person asks for: app12=debian12:forge_app,other."""

    name: str
    os: str
    groups: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Spec:
        match = re.fullmatch(r"([a-z0-9][a-z0-9-]{0,40})=([a-z0-9]+):(\w+(?:,\w+)*)", text)
        if not match:
            raise LabError(f"{text!r} is not NODE=OS:GROUP[,GROUP…], as in app12=debian12:forge_app.")
        name, system, groups = match.groups()
        if system not in images.SYSTEMS:
            raise LabError(f"no image for {system!r}; there are {', '.join(images.SYSTEMS)}.")
        return cls(name, system, tuple(groups.split(",")))


# --- making -----------------------------------------------------------------------------------------------------


def ensure_key() -> None:
    if KEY.exists() and KEY.with_suffix(".pub").exists():
        return
    KEY.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEY.parent) as scratch:
        new_key(Path(scratch) / "key", f"{PREFIX}controller")
        os.replace(Path(scratch) / "key", KEY)
        os.replace(Path(scratch) / "key.pub", KEY.with_suffix(".pub"))
    # a node made for another key cannot be entered any more
    shutil.rmtree(HOME / "nodes", ignore_errors=True)


def new_key(path: Path, comment: str) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def ensure_network() -> None:
    if podman("network", "exists", NETWORK, check=False).returncode:
        podman("network", "create", "--label", "forge-lab=net", NETWORK)


def free_address() -> str:
    """One that no node has, running or not: like other hosts, a node keeps its address when it starts again.

    By chance, as another checkout may be looking for one at the same time.
    """
    listing = podman("ps", "--all", "--format", '{{index .Labels "forge-lab.address"}}').stdout.split()
    taken = {*listing, *(node.address for node in find())}
    network = json.loads(podman("network", "inspect", NETWORK).stdout)[0]
    hosts = list(ipaddress.ip_network(network["subnets"][0]["subnet"]).hosts())[1:]  # the first is the gateway's
    return random.choice([str(host) for host in hosts if str(host) not in taken])


def trim_cache() -> None:
    """Forget the oldest downloads beyond the limit."""
    debs = [(deb.stat(), deb) for deb in (HOME / "apt-cache").glob("*/*") if deb.is_file()]
    size = sum(stat.st_size for stat, _ in debs)
    for stat, deb in sorted(debs, key=lambda pair: pair[0].st_mtime):
        if size <= CACHE_LIMIT:
            return
        run(as_root(["rm", "-f", str(deb)]))
        size -= stat.st_size


def up(set_name: str, specs: list[Spec]) -> None:
    """All these nodes running; no spec means: those the set has."""
    if len({spec.name for spec in specs}) != len(specs):
        raise LabError("a node is named twice.")
    with lock(f"set-{set_name}"):
        present = {node.name: node for node in find(set_name)}
        for node in present.values():
            if node.owner != str(HOME):
                raise LabError(f"set {set_name} belongs to {node.owner}; use another --set, or `lab clean` it there.")
        forget(set_name, {node.id for node in present.values()})
        if not specs:
            if not present:
                raise LabError(f"set {set_name} has no nodes; say which, as in app12=debian12:forge_app.")
            specs = [Spec(node.name, node.os, node.groups) for node in present.values()]
        with lock("shared"):
            ensure_key()
            ensure_network()
            trim_cache()
        with ThreadPoolExecutor(len(specs) + len(images.SYSTEMS)) as pool:
            kept = {spec.name for spec in specs if fits(present.get(spec.name), spec)}
            systems = {spec.os for spec in specs if spec.name not in kept}
            image = {name: pool.submit(images.ensure, images.SYSTEMS[name]) for name in systems}
            tasks = [pool.submit(_up, set_name, spec, present.get(spec.name), image.get(spec.os)) for spec in specs]
        failures = [str(error) for task in tasks if (error := task.exception())]
        if failures:
            raise LabError("\n".join(dict.fromkeys(failures)))


def forget(set_name: str, present: set[str]) -> None:
    """Marks of containers that someone removed."""
    for mark in (HOME / "nodes" / set_name).glob("*"):
        if mark.name.partition(".")[0] not in present:
            mark.unlink()


def fits(node: Node | None, spec: Spec) -> bool:
    return node is not None and node.complete and (node.os, node.groups) == (spec.os, spec.groups)


def _up(set_name: str, spec: Spec, node: Node | None, image: Future[str] | None) -> None:
    reference = image.result() if image else ""
    began = time.monotonic()
    if node and fits(node, spec):
        done = "was running" if node.running else "started"
        if not node.running:
            power_on(node)
        ready, failed = wait(set_name, spec.name)
        if failed:  # of its tenants; a used node may well boot that way
            done += f" (degraded: {', '.join(failed)})"
    else:
        done = "made"
        if node:
            was = f"{node.os}:{','.join(node.groups)}"
            done = f"made anew, was {was}" if node.complete else "made anew, was half-made"
        _create(set_name, spec, reference)
        podman("start", f"{PREFIX}{set_name}-{spec.name}")
        ready, failed = wait(set_name, spec.name)
        if failed:
            raise LabError(f"{spec.name} is degraded although it is new, failed units: {', '.join(failed)}.")
        mark = marker(set_name, ready.id)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    say(f"{spec.name:<12} {spec.os:<11} {ready.address:<13} {done}, {time.monotonic() - began:.1f} s")


def _create(set_name: str, spec: Spec, image: str) -> None:
    remove(f"{PREFIX}{set_name}-{spec.name}")
    container = f"{PREFIX}{set_name}-{spec.name}"
    cache = HOME / "apt-cache" / spec.os
    cache.mkdir(parents=True, exist_ok=True)
    with lock("addresses"):
        address = free_address()
        labels = {
            "address": address,
            "set": set_name,
            "node": spec.name,
            "os": spec.os,
            "groups": ",".join(spec.groups),
            "home": str(HOME),
        }
        podman(
            *("create", "--pull=never", "--name", container, "--hostname", spec.name, "--network", NETWORK),
            # As hosts have it, too: others on the network go on knowing it.
            *("--ip", address, "--mac-address", "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))),
            *("--privileged", "--systemd=always", "--pids-limit=-1", "--log-opt", "max-size=1mb"),
            *runtime_flags(),
            *(part for key, value in labels.items() for part in ("--label", f"forge-lab.{key}={value}")),
            # podman's own: a small shared memory, in newer versions a noexec /tmp and a journal in memory
            *("--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777", "--shm-size", "2g"),
            *("--volume", f"{container}-journal:/var/log/journal"),
            *("--volume", f"{cache}:{images.APT_CACHE}"),
            image,
        )
    with tempfile.TemporaryDirectory(dir=KEY.parent) as scratch:
        host_key = Path(scratch) / "host_key"
        new_key(host_key, f"root@{spec.name}")
        home = f"/home/{USER}/.ssh/"
        files: dict[str, str | bytes] = {
            home: b"",
            f"{home}authorized_keys": KEY.with_suffix(".pub").read_bytes(),
            "/etc/ssh/ssh_host_ed25519_key": host_key.read_bytes(),
            "/etc/ssh/ssh_host_ed25519_key.pub": host_key.with_suffix(".pub").read_bytes(),
        }
        modes = {home: 0o700, f"{home}authorized_keys": 0o600, "/etc/ssh/ssh_host_ed25519_key": 0o600}
        owners = {home: ADMIN_ID, f"{home}authorized_keys": ADMIN_ID}
        podman("cp", "--archive=false", "-", f"{container}:/", stdin=images.tar_of(files, modes, owners))


def remove(container: str) -> None:
    podman("rm", "--force", "--ignore", "--time", "0", container)
    podman("volume", "rm", "--force", f"{container}-journal", check=False)


# --- waiting ----------------------------------------------------------------------------------------------------


def wait(set_name: str, name: str, timeout: float = BOOT) -> tuple[Node, list[str]]:
    """Until systemd has finished to boot and a login over SSH works; the second is the failed units."""
    deadline = time.monotonic() + timeout
    state = "nothing"
    for left in until(deadline):
        node = get(set_name, name)
        if not node.running:
            raise LabError(f"{name} is {node.state}, not running: see `podman logs {node.container}`.")
        try:
            # --wait returns when the boot is over; before systemd has its sockets it fails at once
            asked = ("exec", node.container, "systemctl", "is-system-running", "--wait")
            answer = podman(*asked, check=False, timeout=left)
        except LabError:
            break
        state = answer.stdout.strip() or state
        if state in ("running", "degraded"):
            _wait_ssh(node, deadline)
            return node, failed_units(node) if state == "degraded" else []
    raise LabError(f"{name} did not finish to boot within {timeout:.0f} s (systemd says {state}).")


def failed_units(node: Node) -> list[str]:
    listing = podman("exec", node.container, "systemctl", "--failed", "--plain", "--no-legend").stdout
    return [line.split()[0] for line in listing.splitlines() if line.strip()] or ["none any more"]


def _wait_ssh(node: Node, deadline: float) -> None:
    said = ""
    for left in until(deadline):
        patience = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={max(1, int(left))}"]
        try:
            answer = run(ssh_command(node, patience, ["true"]), check=False, timeout=left)
        except LabError as error:
            said = str(error)
            break
        if answer.returncode == 0:
            return
        said = answer.stderr.strip()
    raise LabError(f"{node.name} runs, but SSH does not answer: {said or 'no message'}")


# --- power and network ------------------------------------------------------------------------------------------


def power_on(node: Node) -> None:
    podman("start", node.container)
    if node.cut_off:
        _filter(get(node.set, node.name))


def start(node: Node) -> None:
    if not node.complete:
        raise LabError(f"{node.name} is half-made; `lab up` makes it anew.")
    if not node.running:
        power_on(node)
    _, failed = wait(node.set, node.name)
    if failed:
        say(f"{node.name} is degraded, failed units: {', '.join(failed)}")


def restart(node: Node) -> None:
    stop(node)
    start(get(node.set, node.name))


def stop(node: Node) -> None:
    podman("stop", "--time", "40", node.container, timeout=60)


def kill(node: Node) -> None:
    if node.running:
        podman("kill", "--signal", "KILL", node.container)
        podman("wait", node.container, timeout=30)


def _filter(node: Node) -> None:
    """Nothing passes but loopback and SSH from the controller; without state, so open connections fall silent too."""
    rules = f"""
table inet forge_lab_cut
delete table inet forge_lab_cut
table inet forge_lab_cut {{
    chain input {{
        type filter hook input priority -300; policy drop;
        iif lo accept
        ip saddr {node.gateway} tcp dport 22 accept
    }}
    chain output {{
        type filter hook output priority -300; policy drop;
        oif lo accept
        ip daddr {node.gateway} tcp sport 22 accept
    }}
}}
"""
    _nft(node, ["-f", "-"], rules.encode())


def _nft(node: Node, arguments: list[str], stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    command = ["nsenter", "--target", str(node.pid), "--net", "nft", *arguments]
    return run(as_root(command), stdin=stdin, check=stdin is not None)


def cut(node: Node) -> None:
    need("nft", "nsenter")
    if not node.running:
        raise LabError(f"{node.name} is {node.state}; a cut needs a running node.")
    _filter(node)
    cut_marker(node.set, node.id).touch()


def join(node: Node) -> None:
    cut_marker(node.set, node.id).unlink(missing_ok=True)
    if node.running:
        _nft(node, ["delete", "table", "inet", "forge_lab_cut"])


# --- everything of ours -----------------------------------------------------------------------------------------


def belongings(set_name: str | None = None) -> dict[str, list[str]]:
    """Names of all we have on this machine, also what a killed run left; of one set, or of all."""
    prefix = f"{PREFIX}{set_name}-" if set_name else PREFIX

    def names(*command: str) -> list[str]:
        return sorted({n for n in podman(*command).stdout.split() if n.removeprefix("localhost/").startswith(prefix)})

    found = {
        "nodes": names("ps", "--all", "--external", "--format", "{{.Names}}"),
        "volumes": names("volume", "ls", "--format", "{{.Name}}"),
    }
    if set_name is None:
        found["networks"] = names("network", "ls", "--format", "{{.Name}}")
        found["images"] = names("images", "--format", "{{.Repository}}:{{.Tag}}")
        found["files"] = sorted(str(path) for path in HOME.glob("*")) if HOME.exists() else []
    else:
        files = HOME / "nodes" / set_name
        found["files"] = [str(files)] if files.exists() else []
    return found


def clean(set_name: str | None = None) -> None:
    """Remove what belongs to the set, or everything; then look again."""
    with lock(f"set-{set_name}" if set_name else "shared"):
        ours = belongings(set_name)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: podman("rm", "--force", "--ignore", "--time", "0", name), ours["nodes"]))
        for volume in belongings(set_name)["volumes"]:
            podman("volume", "rm", "--force", volume)
        for network in ours.get("networks", []):
            podman("network", "rm", "--force", network)
        for image in ours.get("images", []):
            podman("rmi", "--force", image)
        for path in [HOME / "nodes" / set_name] if set_name else [HOME]:
            images.remove_tree(path)
    left = [name for names in belongings(set_name).values() for name in names]
    if left:
        raise LabError(f"could not remove {', '.join(left)}.")
