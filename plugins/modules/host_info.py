#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: What a release needs to know of a host, in one call
version_added: 1.0.0
description:
  - Reads the operating system, the Python, the size of the host, its addresses, and what of an app is there.
  - Reads only; it takes the place of gathering facts, which costs several times as much.
author: The Code Forge (@thecodeforge)
options:
  app:
    description: Name of the app.
    type: str
    required: true
  root:
    description: Directory that holds the apps.
    type: path
    required: true
  python:
    description: Name or path of the interpreter that serves the app.
    type: str
    required: true
  user:
    description: User the app runs as.
    type: str
    required: true
  group:
    description: Group the app runs as.
    type: str
    required: true
  packages:
    description: Debian packages that the app needs.
    type: list
    elements: str
    default: []
  systems:
    description:
      - Operating systems that are supported, each as C(ID) and C(VERSION_ID) of C(/etc/os-release). A host that runs another,
        or no systemd, is refused. Without any, none is.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Reads only.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: Look at the host
  thecodeforge.fastapi.host_info:
    app: forge
    root: /srv
    python: python3
    user: forge
    group: forge
  register: host
"""

RETURN = r"""
host:
  description: The host.
  returned: always
  type: dict
  contains:
    os:
      description: C(id) and C(version) as in C(/etc/os-release), and a C(name) for people.
      type: dict
      returned: always
    python:
      description: C(version) and C(path) of the interpreter, and whether it is C(installed).
      type: dict
      returned: always
    machine:
      description: Processor, such as C(x86_64).
      type: str
      returned: always
    glibc:
      description: Version of the C library, such as C(2.36); empty on another libc.
      type: str
      returned: always
    cpus:
      description: CPUs that this host may use (affinity).
      type: int
      returned: always
    cpu_quota:
      description: CPUs that the control group allows, C(0) when there is no limit.
      type: float
      returned: always
    memory_mb:
      description: Memory in MiB, the control group's limit included.
      type: int
      returned: always
    addresses:
      description: Addresses of the host, loopback and link-local ones left out.
      type: list
      elements: str
      returned: always
    account:
      description: Are the user and the group there, as a service account should be?
      type: bool
      returned: always
    missing_packages:
      description: Those of O(packages) that are not installed.
      type: list
      elements: str
      returned: always
    lacks:
      description: What a prepared host would have of the interpreter, the account and the packages, in words for people.
      type: list
      elements: str
      returned: always
    live:
      description: Id of the generation that C(current) names; empty when there is none.
      type: str
      returned: always
    booted_with_systemd:
      description: Is systemd the init of this host?
      type: bool
      returned: always
"""

import grp
import json
import os
import platform
import pwd
import re
import shutil
import subprocess

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.debian import missing_packages
from ..module_utils._private.layout import Layout

PROBE = "import sys,platform as p;print(p.python_version());print(sys.executable)"


def operating_system(path: str = "/etc/os-release") -> dict[str, str]:
    values: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8") as handle:
            for line in handle:
                name, _, value = line.strip().partition("=")
                values[name] = value.strip("\"'")
    except OSError:
        pass
    return {
        "id": values.get("ID", "unknown"),
        "version": values.get("VERSION_ID", ""),
        "name": f"{values.get('NAME', 'unknown').replace(' GNU/Linux', '')} {values.get('VERSION_ID', '')}".strip(),
    }


def interpreter(python: str) -> dict:
    """The interpreter; one that is not installed yet has the version that its name promises."""
    path = shutil.which(python)
    if path:
        done = subprocess.run([path, "-Ic", PROBE], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            version, executable = done.stdout.split()
            return {"version": version, "path": executable, "installed": True}
    named = re.search(r"python(3\.\d+)$", python)
    return {"version": f"{named[1]}.0" if named else "", "path": os.path.join("/usr/bin", python), "installed": False}


def memory_total_mb() -> int:
    with open("/proc/meminfo", encoding="ascii") as handle:
        for line in handle:
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) // 1024
    return 0


def read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as handle:
            return handle.read().strip()
    except OSError:
        return ""


def cgroup_limits(root: str = "/sys/fs/cgroup") -> tuple[float, int]:
    """CPUs and MiB that the host's top control group allows; 0 where there is no limit.

    A machine has no limit there; a container has its own (cgroup v2: cpu.max, memory.max; v1:
    cpu.cfs_quota_us, memory.limit_in_bytes). Source: kernel, Documentation/admin-guide/cgroup-v2.rst.
    """
    cpus, memory_mb = 0.0, 0
    quota, _, period = read(os.path.join(root, "cpu.max")).partition(" ")
    if not quota:
        quota = read(os.path.join(root, "cpu", "cpu.cfs_quota_us"))
        period = read(os.path.join(root, "cpu", "cpu.cfs_period_us"))
    if quota.isdigit() and period.isdigit() and int(period):
        cpus = int(quota) / int(period)
    limit = read(os.path.join(root, "memory.max")) or read(os.path.join(root, "memory", "memory.limit_in_bytes"))
    if limit.isdigit() and int(limit) < 1 << 60:  # v1 writes "no limit" as nearly 2^63
        memory_mb = int(limit) // (1 << 20)
    return cpus, memory_mb


def addresses() -> list[str]:
    done = subprocess.run(
        ["ip", "-json", "address", "show", "up", "scope", "global"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return []
    return [
        address["local"]
        for link in json.loads(done.stdout or "[]")
        for address in link.get("addr_info", [])
        if address.get("local")
    ]


def has_account(user: str, group: str) -> bool:
    try:
        account, members = pwd.getpwnam(user), grp.getgrnam(group)
    except KeyError:
        return False
    no_login = os.path.basename(account.pw_shell) in ("nologin", "false")
    return account.pw_gid == members.gr_gid and no_login and account.pw_uid != 0


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "python": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "group": {"type": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "systems": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    quota, limit = cgroup_limits()
    total = memory_total_mb()
    python = interpreter(given["python"])
    account = has_account(given["user"], given["group"])
    missing = missing_packages(given["packages"])
    libc, glibc = platform.libc_ver()
    module.exit_json(
        changed=False,
        host={
            "os": operating_system(),
            "python": python,
            "machine": platform.machine(),
            "glibc": glibc if libc == "glibc" else "",
            "cpus": len(os.sched_getaffinity(0)),
            "cpu_quota": quota,
            "memory_mb": min(total, limit) if limit else total,
            "addresses": addresses(),
            "account": account,
            "missing_packages": missing,
            "lacks": [
                *([] if python["installed"] else [given["python"]]),
                *([] if account else [f"the account {given['user']} (group {given['group']}, no login)"]),
                *(f"the package {name}" for name in missing),
            ],
            "live": Layout(given["root"], given["app"]).live(),
            "booted_with_systemd": os.path.isdir("/run/systemd/system"),
        },
    )


if __name__ == "__main__":
    main()
