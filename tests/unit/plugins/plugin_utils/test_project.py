# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells a project from others, on the controller."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.filter.project import project
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.project import identity, normalised


@pytest.mark.parametrize(
    "origin",
    [
        "https://git.example.org/acme/shop.git",
        "https://token:x@git.example.org/acme/shop",
        "ssh://git@GIT.example.org:22/acme/shop.git/",
        "git@git.example.org:acme/shop.git",
    ],
)
def test_one_repository_however_it_is_reached(origin: str) -> None:
    assert normalised(origin) == "git.example.org/acme/shop"


def test_repositories_on_this_machine() -> None:
    assert normalised("/srv/git/shop.git") == normalised("file:///srv/git/shop.git") == "/srv/git/shop"
    assert normalised("") == ""


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_directory_in_a_repository(tmp_path: Path) -> None:
    backend = tmp_path / "all" / "backend"
    backend.mkdir(parents=True)
    (backend / "pyproject.toml").write_text('[project]\nname = "Acme_Shop"\n')
    known = identity(str(backend), "", "", "/i")
    assert (known.name, known.source, known.origin, known.root) == ("acme-shop", str(backend), "", "")
    git(tmp_path / "all", "init", "--quiet")
    git(tmp_path / "all", "remote", "add", "origin", "https://secret@git.example.org/all.git")
    git(tmp_path / "all", "add", ".")
    git(tmp_path / "all", "commit", "--quiet", "-m", "first")
    first = git(tmp_path / "all", "rev-parse", "HEAD")
    git(tmp_path / "all", "commit", "--quiet", "--allow-empty", "-m", "second")
    known = identity(str(tmp_path / "all"), "backend", "shop", "/i")
    assert (known.id, known.origin, known.root, known.path) == ("shop", "git.example.org/all", first, "backend")
    assert (known.name, known.source, known.inventory) == ("acme-shop", str(backend), "/i")
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{tmp_path}/all", "shallow")
    assert identity(str(tmp_path / "shallow"), "", "", "").root == ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("git+https://t:x@git.example.org/shop.git@v1", {"origin": "git.example.org/shop", "path": "api"}),
        ("shop[postgres]==2.26.0", {"name": "shop"}),
        ("/tmp/dist/Acme_Shop-1.0-py3-none-any.whl", {"name": "acme-shop"}),
        ("https://u:p@files.example.org/shop.tar", {"source": "https://***@files.example.org/shop.tar"}),
        ("", {}),
    ],
)
def test_other_sources(source: str, expected: dict[str, str]) -> None:
    known = identity(source, "api", "", "").to_dict()
    assert {name: value for name, value in known.items() if value} == expected


def test_a_project_that_cannot_be_read_has_no_name(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project\n")
    assert identity(str(tmp_path), "", "", "").name == ""
    assert identity(str(tmp_path / "none"), "", "", "").source == str(tmp_path / "none")


def test_the_inventory_is_where_it_lies() -> None:
    assert project("", inventory=["/etc/hosts.yml", "web1,"])["inventory"] == "/etc/hosts.yml"
