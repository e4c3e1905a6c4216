# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a host."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.thecodeforge.fastapi.plugins.modules import host_info
from ansible_collections.thecodeforge.fastapi.plugins.modules.host_info import unsupported


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n',
            {"id": "debian", "version": "12", "name": "Debian 12"},
        ),
        (
            "# a comment\n\nNAME='Ubuntu'\nVERSION_ID='24.04'\nID=ubuntu\nID_LIKE=debian\n",
            {"id": "ubuntu", "version": "24.04", "name": "Ubuntu 24.04"},
        ),
        ("NAME=Debian GNU/Linux\nID=debian\n", {"id": "debian", "version": "", "name": "Debian"}),  # sid
        ("", {"id": "unknown", "version": "", "name": "unknown"}),
    ],
)
def test_operating_system(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    path = tmp_path / "os-release"
    path.write_text(text)
    assert host_info.operating_system(str(path)) == expected


def test_operating_system_without_a_release_file(tmp_path: Path) -> None:
    assert host_info.operating_system(str(tmp_path / "none"))["id"] == "unknown"


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        ({}, (0.0, 0)),  # a machine: the root group has no limits
        ({"cpu.max": "max 100000", "memory.max": "max"}, (0.0, 0)),
        ({"cpu.max": "150000 100000\n", "memory.max": "536870912\n"}, (1.5, 512)),
        ({"cpu.max": "20000 100000", "memory.max": "max"}, (0.2, 0)),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, (0.0, 0)),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, (2.0, 0)),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, (0.0, 0)),
        ({"memory/memory.limit_in_bytes": "1073741824"}, (0.0, 1024)),
        ({"cpu.max": "100000 0", "memory.max": "garbage"}, (0.0, 0)),
    ],
)
def test_limits_of_the_control_group(tmp_path: Path, files: dict[str, str], limits: tuple[float, int]) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert host_info.cgroup_limits(str(tmp_path)) == limits


def test_interpreter_that_is_there_says_its_version() -> None:
    found = host_info.interpreter(sys.executable)
    assert found["version"] == ".".join(map(str, sys.version_info[:3]))
    assert found["installed"]
    assert os.access(found["path"], os.X_OK)


@pytest.mark.parametrize(
    ("python", "version", "path"),
    [
        ("python3.99", "3.99.0", "/usr/bin/python3.99"),
        ("/opt/none/python3.98", "3.98.0", "/opt/none/python3.98"),
        ("python-of-mine", "", "/usr/bin/python-of-mine"),
    ],
)
def test_interpreter_that_is_not_there_has_the_version_of_its_name(python: str, version: str, path: str) -> None:
    assert host_info.interpreter(python) == {"version": version, "path": path, "installed": False}


def test_interpreter_that_does_not_run_is_not_installed(tmp_path: Path) -> None:
    broken = tmp_path / "python3.12"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert host_info.interpreter(str(broken)) == {"version": "3.12.0", "path": str(broken), "installed": False}


def test_addresses_are_those_of_every_link(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = '[{"ifname": "eth0", "addr_info": [{"local": "192.0.2.7"}, {"local": "2001:db8::7"}, {}]}, {}]'
    answer = SimpleNamespace(returncode=0, stdout=shown)
    monkeypatch.setattr(host_info, "run", lambda *_a, **_k: answer)
    assert host_info.addresses() == ["192.0.2.7", "2001:db8::7"]
    answer.returncode = 1
    assert host_info.addresses() == []


@pytest.mark.parametrize(
    ("uid", "gid", "shell", "right"),
    [
        (998, 990, "/usr/sbin/nologin", True),
        (998, 990, "/bin/false", True),
        (998, 990, "/bin/bash", False),
        (998, 1, "/usr/sbin/nologin", False),
        (0, 990, "/usr/sbin/nologin", False),
    ],
)
def test_account_is_one_of_a_service(
    monkeypatch: pytest.MonkeyPatch, uid: int, gid: int, shell: str, right: bool
) -> None:
    account = SimpleNamespace(pw_uid=uid, pw_gid=gid, pw_shell=shell)
    monkeypatch.setattr(pwd, "getpwnam", {"forge": account}.__getitem__)
    monkeypatch.setattr(grp, "getgrnam", {"forge": SimpleNamespace(gr_gid=990)}.__getitem__)
    assert host_info.has_account("forge", "forge") is right
    assert not host_info.has_account("forge", "others")
    assert not host_info.has_account("nobody", "forge")


def test_memory_is_read() -> None:
    assert host_info.memory_total_mb() > 100


def test_hosts_that_are_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_info.platform, "node", lambda: "web1")

    def host(system: str, version: str, systemd: bool = True) -> Any:
        name = f"{system.title()} {version}"
        return {"os": {"id": system, "version": version, "name": name}, "booted_with_systemd": systemd}

    only = "this collection supports debian 12 with systemd. Nothing was changed."
    assert unsupported(host("debian", "12"), ["debian 12"]) == ""
    assert unsupported(host("debian", "12", systemd=False), []) == ""
    assert unsupported(host("fedora", "44"), ["debian 12"]) == f"web1 runs Fedora 44: {only}"
    assert (
        unsupported(host("debian", "12", systemd=False), ["debian 12"])
        == f"web1 runs Debian 12 without systemd: {only}"
    )


def test_every_fact_has_its_place_in_the_list_and_in_the_documentation() -> None:
    given = {"python": sys.executable, "user": "no", "group": "no", "packages": []}
    facts = host_info.gather({**given, "app": "no", "root": "/srv", "database_port": 0})
    documented = yaml.safe_load(host_info.RETURN)["host"]["contains"]
    assert list(facts) == list(host_info.HostFacts.__annotations__)
    assert set(facts) == set(documented)
