# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller needs, from its own distribution; only what is missing is installed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .machine import LabError, as_root, run, say

VM = [("qemu-system-x86",), ("qemu-utils",), ("e2fsprogs",)]


def wanted(vm: bool = False) -> list[tuple[str, ...]]:
    """Packages; where one line has several, the first that the distribution has will do.

    :param vm: with those of the virtual machine.
    """
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    return [
        ("podman",),
        ("crun", "runc") if unified else ("runc",),  # crun refuses hybrid cgroups
        ("netavark", "containernetworking-plugins"),
        ("aardvark-dns", "golang-github-containernetworking-plugin-dnsname"),
        ("iptables",),  # netavark before 1.12 calls it
        ("nftables",),  # newer ones, and `lab cut`
        ("mmdebstrap",),
        ("gpg",),  # mmdebstrap checks the keyring with it
        ("debian-archive-keyring",),
        ("ca-certificates",),
        ("openssh-client",),
        *(VM if vm else ()),
    ]


def installed(package: str) -> bool:
    done = run(["dpkg-query", "--show", "--showformat=${db:Status-Status}", package], check=False)
    return done.stdout == "installed"


def available(package: str) -> bool:
    lines = run(["apt-cache", "policy", package], check=False).stdout.splitlines()
    return any(line.strip().startswith("Candidate:") and "(none)" not in line for line in lines)


def choose(vm: bool) -> tuple[list[str], list[str]]:
    """What to install, and what cannot be had."""
    install, absent = [], []
    for names in wanted(vm):
        if any(installed(name) for name in names):
            continue
        found = next((name for name in names if available(name)), None)
        install.append(found) if found else absent.append(names[0])
    return install, absent


def setup(vm: bool = False) -> None:
    if not shutil.which("apt-get"):
        raise LabError("the lab needs apt: Debian 12 or newer, or Ubuntu 24.04 or newer.")
    if os.geteuid() and run(as_root(["true"]), check=False).returncode:
        raise LabError("root is needed to install packages: become root or get sudo without a password.")
    install, absent = choose(vm)
    if not install and not absent:
        say("nothing to install")
        return
    say("reading the package lists")
    refresh = run(as_root(["apt-get", "--quiet", "--quiet", "update"]), check=False, timeout=300)
    install, absent = choose(vm)
    if absent:
        why = (refresh.stderr.strip().splitlines() or ["the sources may lack universe or main"])[-1]
        raise LabError(f"apt has no package {', '.join(absent)} ({why}).")
    say(f"installing {' '.join(install)}")
    run(
        as_root(
            [
                *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--quiet", "--yes"),
                *("-o", "DPkg::Lock::Timeout=120", "install", "--no-install-recommends", *install),
            ]
        ),
        timeout=900,
    )
    say("ready: `lab up`")
