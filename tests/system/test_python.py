# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Apps get a Python that their hosts do not have: standalone ones, which come with the release and go back with it.

What stands in for a download are the Pythons of the lab's two Debians, in the form of one: each host lacks the other's.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import SET, Fleet
from standalone_python import pack
from tiny import PLAIN, load, write_project

MAIN = """
import sys

from fastapi import FastAPI

app = FastAPI()


@app.get("/healthz")
def healthz():
    return {"version": sys.version.split()[0], "prefix": sys.base_prefix, "executable": sys.executable}
"""
FIND = "import sys, sysconfig, platform; print(platform.python_version(), sysconfig.get_path('stdlib'), platform.machine())"
SETTINGS: dict[str, Any] = {
    **PLAIN,
    "forge_app": "shop",
    "forge_project": "python",
    "forge_listen": ["8000"],
    "forge_workers": 1,
    "forge_watch_seconds": 1,
    "forge_keep": 2,
}


class Shop:
    """An app that says with which Python it runs, on a Debian 13."""

    def __init__(self, fleet: Fleet, source: Path, mirror: Path) -> None:
        self.fleet, self.source, self.mirror = fleet, source, mirror

    def provide(self, node: str, build: str, python: str = "/usr/bin/python3") -> Path:
        """Let the list have a Python of a node."""
        version, stdlib, machine = self.fleet.on(node, f'{python} -Ic "{FIND}"').split()
        found = self.mirror.parent / version
        if not found.exists():
            found.mkdir()
            real = self.fleet.on(node, f"readlink -f {python}")
            self.fleet.on(node, f"tar -chf /root/python.tar --exclude sitecustomize.py {real} {stdlib}")
            name = f"forge-lab-{self.fleet.lab_set}-{node}"
            self.fleet._podman(["cp", f"{name}:/root/python.tar", str(found / "python.tar")])
            with tarfile.open(found / "python.tar") as archive:
                archive.extractall(found)
        binary = next(found.glob(f"**/bin/python{version.rpartition('.')[0]}"))
        return pack(version, binary, found / stdlib.lstrip("/"), machine, self.mirror, build)

    def says(self, node: str = "app") -> dict[str, str]:
        answer: dict[str, str] = httpx.get(self.fleet.url(node, "/healthz")).json()
        return answer

    def pythons(self) -> list[str]:
        return self.fleet.on("app", "ls /srv/shop/pythons 2>/dev/null; true").split()

    def write(self, requires: str, note: str = "") -> None:
        write_project(self.source, "fastapi", "gunicorn", "uvicorn-worker", main=MAIN + note)
        project = self.source / "pyproject.toml"
        project.write_text(re.sub(r'requires-python = ".*"', f'requires-python = "{requires}"', project.read_text()))
        (self.source / "uv.lock").unlink()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("python")
    patch = pytest.MonkeyPatch()
    patch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", (directory / "mirror" / "downloads.json").as_uri())
    fleet = Fleet({**SETTINGS, "forge_source": str(directory / "shop")}, lab_set=f"{SET}python", without_database=True)
    with fleet.with_nodes("app=debian13:forge_app", "old=debian12:forge_elsewhere"):
        shop = Shop(fleet, directory / "shop", directory / "mirror")
        shop.provide("old", "1")
        yield shop
    patch.undo()


def test_a_host_gets_the_python_that_the_app_accepts(shop: Shop) -> None:
    """Nothing says which: the host's own is too new."""
    shop.write(">=3.11,<3.12")
    run = shop.fleet.play("site")
    assert shop.says()["version"].startswith("3.11.")
    [python] = shop.pythons()
    assert shop.says()["prefix"] == f"/srv/shop/pythons/{python}"
    assert re.search(r"app +Debian 13 +3\.11\.\d+ ", run.output)
    assert shop.fleet.on("app", "find /srv/shop/pythons ! -user root -o -perm /022 ! -type l | head -3") == ""
    again = shop.fleet.play("site")
    assert again.changed("app") == 0, again.output[-3000:]
    assert shop.fleet.play("status").rc == 0


def test_a_release_of_code_sends_no_python_and_loses_nothing(shop: Shop) -> None:
    shop.write(">=3.11,<3.12", "# another release\n")
    with load(shop.fleet.url("app", "/healthz"), keepalive=2, closing=2) as result:
        run = shop.fleet.play("deploy")
    assert result["lost"] == {}
    assert result["total"] > 100
    assert len(shop.pythons()) == 1
    assert run.rc == 0


def test_another_build_is_a_release_and_a_rollback_goes_back_to_the_old_one(shop: Shop) -> None:
    before = shop.says()["prefix"]
    shop.provide("old", "2")
    with load(shop.fleet.url("app", "/healthz"), keepalive=2, closing=2) as result:
        shop.fleet.play("deploy")
        assert shop.says()["prefix"] != before
        shop.fleet.play("rollback")
    assert result["lost"] == {}
    assert shop.says()["prefix"] == before
    assert len(shop.pythons()) == 2


def test_a_python_goes_with_the_last_layer_that_uses_it(shop: Shop) -> None:
    shop.provide("app", "1")
    shop.write(">=3.11")
    for number in range(3):
        shop.write(">=3.11", f"# {number}\n")
        shop.fleet.play("deploy")
    assert shop.says()["version"].startswith("3.13.")
    assert shop.says()["executable"].startswith("/srv/shop/layers/")
    assert shop.pythons() == [], "the host's own again"


@pytest.mark.thorough
def test_an_app_that_needs_a_python_which_no_stable_debian_has(shop: Shop) -> None:
    """3.14, of Debian sid's packages, which are not installed for it."""
    apt = "-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=/root/sid -o Dir::State::Lists=/root/sid/lists"
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = f"Types: deb\\nURIs: http://deb.debian.org/debian\\nSuites: sid\\nComponents: main\\nSigned-By: {key}\\n"
    packages = "python3.14-minimal libpython3.14-minimal libpython3.14-stdlib python3.14"
    shop.fleet.on(
        "app",
        f"mkdir -p /root/sid/lists; cd /root/sid; printf '{sources}' > sid.sources; apt-get {apt} update -q; "
        f"apt-get {apt} download -q {packages}; for each in *.deb; do dpkg -x $each x; done",
    )
    shop.provide("app", "1", "/root/sid/x/usr/bin/python3.14")
    shop.write(">=3.14")
    with load(shop.fleet.url("app", "/healthz"), keepalive=2, closing=2) as result:
        shop.fleet.play("deploy")
    assert result["lost"] == {}
    assert shop.says()["version"].startswith("3.14.")
    assert shop.fleet.play("rollback").rc == 0
    assert shop.says()["version"].startswith("3.13.")


def test_an_artifact_has_it_and_needs_no_index(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write(">=3.11", "# artifact\n")
    artifact = tmp_path / "shop.tar"
    shop.fleet.play("build", forge_python="3.11", forge_artifact=str(artifact))
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", "file:///none")
    offline = {"forge_source": str(artifact), "forge_build_cache": str(tmp_path / "cache"), "forge_python": "3.11"}
    shop.fleet.play("deploy", **offline)
    assert shop.says()["version"].startswith("3.11.")
    assert shop.fleet.play("deploy", **offline).changed("app") == 0


def test_what_cannot_run_there_or_is_not_to_be_had_is_said(shop: Shop) -> None:
    before = shop.fleet.fingerprint("app")
    shop.write(">=3.11")
    none = shop.fleet.play("deploy", check=False, forge_python="3.99")
    assert "uv can get no Python 3.99 for x86_64 (the newest is 3.13." in none.said()
    patch = shop.fleet.play("deploy", check=False, forge_python="3.11.99")
    assert "uv can get no Python 3.11.99" in patch.said()
    number = shop.fleet.play("deploy", check=False, forge_python="3.1")
    assert 'forge_python must be a version, in quotes, such as "3.14"' in number.said().replace("\\", "")
    shop.write(">=3.14")
    newer = shop.fleet.play("deploy", check=False, forge_python="python3")
    assert "The app needs Python >=3.14, but app has 3.13." in newer.said()
    nowhere = shop.fleet.play("deploy", check=False)
    assert "uv can get no Python >=3.14 for x86_64" in nowhere.said()
    for run in (none, patch, number, newer, nowhere):
        assert run.rc != 0
        assert "Traceback" not in run.output
    assert shop.fleet.fingerprint("app") == before
    assert shop.says()["version"].startswith("3.11.")


def test_a_python_for_a_newer_glibc_is_refused_on_the_host(shop: Shop) -> None:
    old = Fleet({**shop.fleet.variables, "forge_python": "3.13"}, lab_set=f"{SET}python12", without_database=True)
    with old.with_nodes("app=debian12:forge_app"):
        shop.write(">=3.11")
        refused = old.play("site", check=False)
        assert refused.rc != 0
        assert re.search(r"Python 3\.13\.\d+-[0-9a-f]{12} does not run on this host \(.*GLIBC_2", refused.said())
        assert old.on("app", "ls /srv/shop/pythons /srv/shop/layers") == "/srv/shop/layers:\n\n/srv/shop/pythons:"
