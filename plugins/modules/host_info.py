#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Gather what a release needs to know of a host, in one call
version_added: 1.0.0
description:
  - Reads the operating system, the Python, the size of the host, its addresses, and what an app needs of it.
  - Reads only; it takes the place of gathering facts, which costs several times as much.
author: The Code Forge (@thecodeforge)
options:
  python:
    description: Name or path of the interpreter that serves the app.
    type: str
    required: true
  app:
    description: Name of the app.
    type: str
    required: true
  root:
    description: Directory that holds the apps.
    type: path
    required: true
  user:
    description: User the app runs as; that of what is installed when empty, and else the app's name.
    type: str
    default: ""
  group:
    description: Group the app runs as; that of what is installed when empty, and else the app's name.
    type: str
    default: ""
  listen:
    description: Addresses of the public socket.
    type: list
    elements: str
    default: []
  state_directories:
    description: Directories below C(/var/lib) that the app may write to.
    type: list
    elements: str
    default: []
  cache_directories:
    description: Directories below C(/var/cache) that the app may write to.
    type: list
    elements: str
    default: []
  project:
    description: What tells the project from others, keys of C(project.json).
    type: dict
    default: {}
  take_over:
    description: What of somebody else's the app takes over.
    type: list
    elements: str
    default: []
  refuse:
    description: Kinds of conflicts that make the host be refused. The others are only returned.
    type: list
    elements: str
    choices: [account, address, directory, project, unit]
    default: [account, address, directory, project, unit]
  packages:
    description: Debian packages that the app needs.
    type: list
    elements: str
    default: []
  answering:
    description:
      - Group that the host is put into when it answers, for plays that follow. That it does not answer is then no error, and
        C(unanswered) is what is known of it.
    type: str
    default: ""
  database_port:
    description: Port of the PostgreSQL that is looked at; V(0) when none is.
    type: int
    default: 0
  secrets:
    description:
      - Where the app's settings are wanted, in a V(file) or sealed to the host as V(credentials).
      - Whether the host can do the latter is tried, and a warning when it cannot.
    type: str
    choices: [file, credentials]
    default: file
  systems:
    description:
      - Operating systems that are supported, each as C(ID) and C(VERSION_ID) of C(/etc/os-release). A host that runs another,
        or no systemd, is refused. An empty list refuses none.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Gather facts of the host
  thecodeforge.fastapi.host_info:
    app: shop
    root: /srv
    python: python3
  register: host
"""

RETURN = r"""
unanswered:
  description: Why the host did not answer.
  returned: when it did not, and O(answering) is given
  type: str
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
      description: >-
        C(version) and C(path) of the interpreter, and whether it is C(installed); C(standalone), the version of one that is to be
        brought; and C(automatic), whether one may be where the app does not accept this one.
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
      description: CPUs that the control groups above the app's services allow (the host's, C(system.slice), and that of the app's
        generations), C(0) when there is no limit.
      type: float
      returned: always
    memory_mb:
      description: Memory in MiB, the limits of these control groups included.
      type: int
      returned: always
    addresses:
      description: Addresses of the host, loopback and link-local ones left out.
      type: list
      elements: str
      returned: always
    account:
      description: C(user) and C(group) that the app runs as, and whether they are C(ready), as a service account should be.
      type: dict
      returned: always
    conflicts:
      description:
        - What is somebody else's and in the way, each with C(kind), C(name), C(owner), a C(sentence), and whether it is
          C(taken_over). The sentence of what is taken over says what will happen, and is a warning too.
      type: list
      elements: dict
      returned: always
    clients:
      description: Text that says who may reach the app's public socket; empty where everybody may.
      type: str
      returned: always
    missing_packages:
      description: Those of O(packages) that are not installed.
      type: list
      elements: str
      returned: always
    unavailable_packages:
      description: Those of O(packages), and the package of O(python), that are missing and that no package source of the host has.
      type: list
      elements: str
      returned: always
    identity:
      description: Names this machine, and its container, as long as it runs.
      type: str
      returned: always
    missing_prerequisites:
      description: Which of the interpreter, the account and the packages the host does not have, for people to read.
      type: list
      elements: str
      returned: always
    postgresql:
      description: The PostgreSQL on O(database_port), its settings, rules, roles and databases; empty without that option.
      type: dict
      returned: always
    uses_earlier_names:
      description: Does the live generation connect to the database C(forge) as C(forge), as earlier versions named them?
      type: bool
      returned: always
    seals_secrets:
      description: Are settings to be sealed to the host, by O(secrets), and can services there be given what is sealed?
      type: bool
      returned: always
    sealing_problem:
      description: Why services of this host cannot be given what is sealed; empty where they can, or where nothing is to be sealed.
      type: str
      returned: always
    booted_with_systemd:
      description: Is systemd the init of this host?
      type: bool
      returned: always
"""

import json
import os
import platform
import pwd
import re
import shutil
from typing import Any, TypedDict

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.accounts import Account, account_of
from ..module_utils._private.command import run
from ..module_utils._private.conflicts import Conflict, Look
from ..module_utils._private.debian import missing_packages, unavailable_packages
from ..module_utils._private.errors import tells_what_the_host_refuses
from ..module_utils._private.layout import Layout
from ..module_utils._private.limits import limits, read, read_all
from ..module_utils._private.postgresql import PostgreSQL, look, uses_earlier_names
from ..module_utils._private.settings import credentials_problem

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "python": {"type": "str", "required": True},
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "user": {"type": "str", "default": ""},
    "group": {"type": "str", "default": ""},
    "listen": {"type": "list", "elements": "str", "default": []},
    "state_directories": {"type": "list", "elements": "str", "default": []},
    "cache_directories": {"type": "list", "elements": "str", "default": []},
    "project": {"type": "dict", "default": {}},
    "take_over": {"type": "list", "elements": "str", "default": []},
    "refuse": {
        "type": "list",
        "elements": "str",
        "choices": ["account", "address", "directory", "project", "unit"],
        "default": ["account", "address", "directory", "project", "unit"],
    },
    "packages": {"type": "list", "elements": "str", "default": []},
    "answering": {"type": "str", "default": ""},  # for the action
    "database_port": {"type": "int", "default": 0},
    "secrets": {"type": "str", "choices": ["file", "credentials"], "default": "file"},
    "systems": {"type": "list", "elements": "str", "default": []},
}
VERSION = re.compile(r"^3\.\d+(\.\d+)?\Z")
# An environment in which Ansible runs on the host itself, or what a person has in a home directory, is none of the host's Pythons.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROBE = "import sys,platform as p;print(p.python_version());print(sys.executable)"


class System(TypedDict):
    id: str  # as in /etc/os-release: debian
    version: str  # 12; empty for a release without a number
    name: str  # for people: Debian 12


class Python(TypedDict):
    version: str  # 3.11.2; of one that is not installed, what its name promises: 3.12.0, or empty
    path: str
    installed: bool
    standalone: (
        str  # version of one that the controller is to bring, as the host has none and no source of one; else empty
    )
    automatic: bool  # is it the host's own, and to be replaced where the app does not accept it?


class HostFacts(TypedDict):
    """What is returned as ``host``."""

    os: System
    python: Python  # the interpreter that serves the app
    machine: str  # processor: x86_64
    glibc: str  # version: 2.36; empty on another C library
    cpus: int  # that this host may use (affinity)
    cpu_quota: float  # CPUs that the control group allows; 0 is no limit
    memory_mb: int  # MiB, the control group's limit included
    addresses: list[str]  # without loopback and link-local ones
    account: Account  # what the app runs as
    clients: str  # who may reach the public socket, a text of systemd's; empty where everybody may
    conflicts: list[Conflict]  # what is somebody else's and in the way
    missing_packages: list[str]
    unavailable_packages: list[str]  # those, and that of the interpreter, that no package source has
    identity: str  # of this machine, whatever an inventory calls it
    missing_prerequisites: list[str]  # what the host does not have yet, for people to read
    postgresql: PostgreSQL
    uses_earlier_names: bool  # of a database
    seals_secrets: bool  # are the settings to be sealed to this host, and can they be?
    sealing_problem: str  # why they cannot, where they are to be
    booted_with_systemd: bool


def operating_system(path: str = "/etc/os-release") -> System:
    values: dict[str, str] = {}
    for line in read(path).splitlines():
        name, _separator, value = line.strip().partition("=")
        values[name] = value.strip("\"'")
    return {
        "id": values.get("ID", "unknown"),
        "version": values.get("VERSION_ID", ""),
        "name": f"{values.get('NAME', 'unknown').replace(' GNU/Linux', '')} {values.get('VERSION_ID', '')}".strip(),
    }


def interpreter(python: str) -> Python:
    """Return version and path of an interpreter.

    :param python: its name or path; a version, such as 3.14 or 3.14.2, that the host has, or has a source of, or is to be brought; or
        nothing, which is the host's own unless the app does not accept that.
    """
    if VERSION.match(python):
        return interpreter_of_version(python)
    found = interpreter_of_name(python or "python3")
    return {**found, "automatic": not python}


def interpreter_of_name(python: str) -> Python:
    path = shutil.which(python, path=SYSTEM_PATH)
    if path:
        done = run([path, "-Ic", PROBE])
        if done.returncode == 0:
            version, executable = done.stdout.split()
            return {"version": version, "path": executable, "installed": True, "standalone": "", "automatic": False}
    named = re.search(r"python(3\.\d+)$", python)
    version, path = f"{named[1]}.0" if named else "", os.path.join("/usr/bin", python)
    return {"version": version, "path": path, "installed": False, "standalone": "", "automatic": False}


def interpreter_of_version(version: str) -> Python:
    """The distribution's, when that is exactly so, or else a standalone one."""
    minor = ".".join(version.split(".")[:2])
    found = interpreter_of_name(f"python{minor}")
    is_exact = version == minor or found["version"] == version
    if is_exact and (found["installed"] or not unavailable_packages(package_of(found))):
        return found
    return {"version": version, "path": "", "installed": True, "standalone": version, "automatic": False}


def package_of(python: Python) -> list[str]:
    """Return the package that brings an interpreter which is not installed."""
    return [] if python["installed"] else [os.path.basename(python["path"])]


def identity() -> str:
    """Return what names this boot of this machine, and within it the container."""
    return f"{read('/proc/sys/kernel/random/boot_id')}/{os.readlink('/proc/self/ns/pid')}"


def addresses() -> list[str]:
    """Return the addresses of every link that is up; none where there is no iproute2."""
    done = run(["ip", "-json", "address", "show", "up", "scope", "global"])
    if done.returncode != 0:
        return []
    return [
        address["local"]
        for link in json.loads(done.stdout or "[]")
        for address in link.get("addr_info", [])
        if address.get("local")
    ]


def gather(params: dict[str, Any]) -> HostFacts:
    """Read the host; ``params`` are those of the module."""
    python = interpreter(params["python"])
    layout = Layout(params["root"], params["app"])
    account = account_of(layout, params["user"], params["group"])
    packages = missing_packages(params["packages"])
    sealing = credentials_problem() if params["secrets"] == "credentials" else ""
    libc, glibc = platform.libc_ver()
    return {
        "os": operating_system(),
        "python": python,
        "machine": platform.machine(),
        "glibc": glibc if libc == "glibc" else "",
        **limits(params["app"]),
        "addresses": addresses(),
        "account": account,
        "clients": read_all(layout.socket_clients),
        "conflicts": Look(params, layout, account).conflicts(),
        "missing_packages": packages,
        "unavailable_packages": unavailable_packages(packages + package_of(python)),
        "identity": identity(),
        "missing_prerequisites": [
            *([] if python["installed"] else [params["python"]]),
            *([] if account["ready"] else [f"the account {account['user']} (group {account['group']}, no login)"]),
            *(f"the package {name}" for name in packages),
        ],
        "postgresql": look(params["database_port"], params["app"]) if params["database_port"] else {},
        "uses_earlier_names": uses_earlier_names(layout.current),
        "seals_secrets": params["secrets"] == "credentials" and not sealing,
        "sealing_problem": sealing,
        "booted_with_systemd": os.path.isdir("/run/systemd/system"),
    }


def unsupported(host: HostFacts, systems: list[str]) -> str:
    """Return why a host is refused; empty when it is supported, or when ``systems`` names none.

    :param systems: ``ID VERSION_ID`` of each operating system that is supported.
    """
    has_systemd = host["booted_with_systemd"]
    if not systems or (has_systemd and f"{host['os']['id']} {host['os']['version']}" in systems):
        return ""
    return (
        f"{platform.node()} runs {host['os']['name']}{'' if has_systemd else ' without systemd'}: this collection "
        f"supports {', '.join(systems)} with systemd. Nothing was changed."
    )


def in_the_way(host: HostFacts, refuse: list[str]) -> str:
    """Return what of somebody else's keeps the app from this host; empty when nothing does.

    :param refuse: kinds of conflicts that do.
    """
    found = [each["sentence"] for each in host["conflicts"] if each["kind"] in refuse and not each["taken_over"]]
    return " ".join([*found, f"Nothing was changed on {platform.node()}."]) if found else ""


def unprivileged(systems: list[str]) -> str:
    """Return why a user is refused; empty for root, or when ``systems`` names none."""
    if not systems or os.geteuid() == 0:
        return ""
    return (
        f"{pwd.getpwuid(os.geteuid()).pw_name} is not root on {platform.node()}, and a release needs root: leave out "
        "ansible_become: false and ansible_become_user. Nothing was changed."
    )


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    host = gather(module.params)
    systems = module.params["systems"]
    problem = unsupported(host, systems) or unprivileged(systems) or in_the_way(host, module.params["refuse"])
    if problem:
        module.fail_json(msg=problem, host=host)
    for conflict in host["conflicts"]:
        if conflict["taken_over"]:
            module.warn(conflict["sentence"])
    if host["sealing_problem"]:
        module.warn(
            f"The app's settings lie in a file on {platform.node()}, and not sealed as forge_secrets wants them: "
            f"{host['sealing_problem']}."
        )
    module.exit_json(changed=False, host=host)


if __name__ == "__main__":
    main()
