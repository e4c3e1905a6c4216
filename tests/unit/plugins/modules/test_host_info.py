# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a host."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.thecodeforge.fastapi.plugins.modules import host_info
from ansible_collections.thecodeforge.fastapi.plugins.modules.host_info import (
    ARGUMENT_SPEC,
    in_the_way,
    unprivileged,
    unsupported,
)

NOT_BROUGHT = {"standalone": "", "automatic": False}


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


def test_the_environment_that_ansible_runs_in_is_not_the_hosts_own_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ansible on the host itself, from a virtual environment: the service could not even read that."""
    (tmp_path / "python3").write_text("#!/bin/sh\necho 3.99.0; echo /root/venv/bin/python3\n")
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = host_info.interpreter("")
    assert found["version"] != "3.99.0"
    assert not found["path"].startswith("/root")


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
    assert host_info.interpreter(python) == {"version": version, "path": path, "installed": False, **NOT_BROUGHT}


def test_interpreter_that_does_not_run_is_not_installed(tmp_path: Path) -> None:
    broken = tmp_path / "python3.12"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert host_info.interpreter(str(broken)) == {
        "version": "3.12.0",
        "path": str(broken),
        "installed": False,
        **NOT_BROUGHT,
    }


def test_addresses_are_those_of_every_link(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = '[{"ifname": "eth0", "addr_info": [{"local": "192.0.2.7"}, {"local": "2001:db8::7"}, {}]}, {}]'
    answer = SimpleNamespace(returncode=0, stdout=shown)
    monkeypatch.setattr(host_info, "run", lambda *_a, **_k: answer)
    assert host_info.addresses() == ["192.0.2.7", "2001:db8::7"]
    answer.returncode = 1
    assert host_info.addresses() == []


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


def test_what_is_in_the_way_is_said_at_once_and_what_is_taken_over_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_info.platform, "node", lambda: "web1")

    def host(*conflicts: tuple[str, bool]) -> Any:
        return {
            "conflicts": [{"kind": kind, "sentence": f"A {kind}.", "taken_over": taken} for kind, taken in conflicts]
        }

    both = host(("unit", False), ("address", False))
    assert in_the_way(both, ["unit", "address"]) == "A unit. A address. Nothing was changed on web1."
    assert in_the_way(both, ["project"]) == in_the_way(both, []) == ""
    assert in_the_way(host(("unit", True)), ["unit"]) == ""


def test_every_fact_has_its_place_in_the_list_and_in_the_documentation() -> None:
    given = {"python": sys.executable, "app": "no-such-app", "root": "/nonexistent"}
    facts = host_info.gather({name: given.get(name, option.get("default")) for name, option in ARGUMENT_SPEC.items()})
    documented = yaml.safe_load(host_info.RETURN)["host"]["contains"]
    assert list(facts) == list(host_info.HostFacts.__annotations__)
    assert set(facts) == set(documented)


def test_who_is_not_root_is_refused_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    monkeypatch.setattr(os, "geteuid", lambda: nobody)
    assert unprivileged(["debian 12"]).startswith("nobody is not root on ")
    assert unprivileged([]) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert unprivileged(["debian 12"]) == ""


def test_this_machine_has_an_identity() -> None:
    assert host_info.identity() == host_info.identity() != "/"
