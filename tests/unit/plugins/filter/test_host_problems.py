# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps hosts from being prepared, known before anything is built."""

from __future__ import annotations

from typing import Any

from ansible_collections.thecodeforge.fastapi.plugins.filter.host_problems import host_problems


def host(
    identity: str = "m", python: str = "/usr/bin/python3", installed: bool = True, *unavailable: str
) -> dict[str, Any]:
    return {
        "identity": identity,
        "os": {"name": "Debian 13"},
        "python": {"path": python, "installed": installed, "version": ""},
        "unavailable_packages": list(unavailable),
    }


def test_hosts_that_can_be_prepared_have_no_problems() -> None:
    absent = host("b", "/usr/bin/python3.12", False)
    assert host_problems(["web1", "web2"], [host("a"), absent]) == []


def test_two_names_of_one_machine_are_both_named() -> None:
    assert host_problems(["web1", "web2", "web3"], [host("a"), host("b"), host("a")]) == [
        "web1 and web3 are one machine: keep one of these names in the group forge_app."
    ]


def test_python_that_no_source_has_is_named_with_its_variable() -> None:
    (problem,) = host_problems(["web1"], [host("a", "/usr/bin/python3.14", False, "python3.14")])
    assert problem.startswith("forge_python: web1 has no python3.14, and no package source of it does")


def test_path_that_no_package_fills_is_named() -> None:
    (problem,) = host_problems(["web1"], [host("a", "/opt/python/bin/python3.12", False)])
    assert problem.startswith("forge_python: web1 has no /opt/python/bin/python3.12")


def test_packages_that_no_source_has_are_named() -> None:
    unavailable = host("a", "/usr/bin/python3", True, "libpq55", "ffmepg")
    assert host_problems(["web1"], [unavailable]) == [
        "forge_packages: no package source of web1 has libpq55, ffmepg: correct the name, or add a source."
    ]
