# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes as podman sees them: the only truth about what is there, what runs, and at which address.

Ansible asks this for every run, so it imports little.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from .machine import HOME, KEY, PREFIX, LabError, podman

NETWORK = f"{PREFIX}net"
USER = "admin"

SSH_OPTIONS = (
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
    *("-o", "IdentitiesOnly=yes", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)


class Node(NamedTuple):
    set: str
    name: str
    os: str
    groups: tuple[str, ...]
    state: str
    address: str  # empty unless it runs
    gateway: str
    complete: bool
    cut_off: bool
    id: str
    pid: int
    owner: str

    @property
    def container(self) -> str:
        return f"{PREFIX}{self.set}-{self.name}"

    @property
    def running(self) -> bool:
        return self.state == "running"

    def public(self) -> dict[str, object]:
        hidden = ("id", "pid", "gateway", "owner")
        return {key: value for key, value in self._asdict().items() if key not in hidden}


def default_set() -> str:
    return os.environ.get("FORGE_LAB_SET", "demo")


def check_set(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]{1,20}", name):
        raise LabError(f"{name!r} is no name for a set: use a-z and 0-9 only.")
    return name


def marker(set_name: str, container_id: str) -> Path:
    """Exists once the node was seen running; a container cannot be labelled after it was made."""
    return HOME / "nodes" / set_name / container_id


def cut_marker(set_name: str, container_id: str) -> Path:
    return marker(set_name, f"{container_id}.cut")


def inspect(ids: list[str]) -> list[Node]:
    """Those of the containers that are ours. One may vanish meanwhile: podman still prints the others."""
    if not ids:
        return []
    nodes = []
    for item in json.loads(podman("container", "inspect", *ids, check=False).stdout or "[]"):
        labels = item["Config"]["Labels"] or {}
        if "forge-lab.set" not in labels:
            continue
        state, set_name, ident = item["State"], labels["forge-lab.set"], item["Id"]
        network = item["NetworkSettings"]["Networks"].get(NETWORK) or {}
        nodes.append(
            Node(
                set=set_name,
                name=labels["forge-lab.node"],
                os=labels["forge-lab.os"],
                groups=tuple(labels["forge-lab.groups"].split(",")),
                state=state["Status"],
                address=network.get("IPAddress", "") if state["Status"] == "running" else "",
                gateway=network.get("Gateway", ""),
                complete=marker(set_name, ident).exists(),
                cut_off=cut_marker(set_name, ident).exists(),
                id=ident,
                pid=state["Pid"],
                owner=labels["forge-lab.home"],
            )
        )
    return sorted(nodes)


def find(set_name: str | None = None) -> list[Node]:
    """All nodes, half-made ones too."""
    label = f"label=forge-lab.set={set_name}" if set_name else "label=forge-lab.set"
    return inspect(podman("ps", "--all", "--no-trunc", "--quiet", "--filter", label).stdout.split())


def complete(set_name: str) -> list[Node]:
    """The nodes of a set that were finished, with one call to podman."""
    folder = HOME / "nodes" / set_name
    return inspect([name for name in os.listdir(folder) if "." not in name] if folder.exists() else [])


def get(set_name: str, name: str) -> Node:
    for node in inspect([f"{PREFIX}{set_name}-{name}"]):
        return node
    raise LabError(f"set {set_name} has no node {name}; `lab list` shows what there is.")


def ssh_command(node: Node, options: list[str], command: list[str]) -> list[str]:
    return ["ssh", "-i", str(KEY), *SSH_OPTIONS, *options, f"{USER}@{node.address}", *command]
