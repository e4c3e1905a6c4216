# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is somebody else's on a host, each kind on a host of its own below a temporary directory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import conflicts
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.accounts import Account
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.conflicts import Conflict, Look
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.listening import Holder
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ownership import mark

ADMIN, LIB = "etc/systemd/system", "lib/systemd/system"
GENERATION = "aaaaaaaaaaaa-00000000"
HEAD = f"# {mark('shop')}: changes by hand are replaced.\n"
EARLIER = "# Written by thecodeforge.fastapi.service: changes by hand are replaced.\n"
FOREIGN = "[Service]\nExecStart=/bin/true\n"


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "srv" / "shop"
        self.user = conflicts.owner_of(str(root))

    def write(self, path: str, text: str = "") -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def link(self, path: str, target: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).symlink_to(target)

    def look(self, user: str = "", **params: Any) -> Look:
        defaults: dict[str, Any] = {
            "user": "", "group": "", "listen": [], "state_directories": [], "cache_directories": [], "project": {},
            "take_over": [],
        }  # fmt: skip
        layout = Layout(str(self.root / "srv"), "shop", run=str(self.root / "run"))
        account = Account(user=user or "no-such-user", group="no-such-group", ready=False)
        return Look({**defaults, **params}, layout, account, str(self.root))

    def found(self, **params: Any) -> list[Conflict]:
        return self.look(**params).conflicts()

    def sentence(self, **params: Any) -> str:
        (conflict,) = self.found(**params)
        assert not conflict["taken_over"]
        return conflict["sentence"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    packages = {"ssh.service": "openssh-server"}
    monkeypatch.setattr(conflicts, "user_problem", lambda *_arguments: "")  # the user of these tests is root
    monkeypatch.setattr(conflicts, "package_of", lambda path: packages.get(os.path.basename(path), ""))
    return Host(tmp_path)


def test_a_virgin_host(host: Host) -> None:
    assert host.found() == []


@pytest.mark.parametrize(
    "name",
    ["shop.service", "shop.socket", "shop.timer", "shop.path", "shop@.service", "shop@.socket", "shop.worker@.timer"],
)
@pytest.mark.parametrize("directory", [LIB, "usr/local/lib/systemd/system", "run/systemd/generator.late"])
def test_units_of_the_host(host: Host, name: str, directory: str) -> None:
    host.write(f"{directory}/{name}", FOREIGN)
    sentence = (
        f"forge_app: {name} is a unit of this host (/{directory}/{name}), which the app's would take the place of"
    )
    assert host.sentence(take_over=["unit"]).startswith(sentence)


@pytest.mark.parametrize("name", ["shop.target", "shopping.service", "shop-2.service", "my-shop@.service", "shop.conf"])
def test_units_that_only_sound_like_it(host: Host, name: str) -> None:
    host.write(f"{LIB}/{name}", FOREIGN)
    assert host.found() == []


def test_a_unit_made_by_hand_can_be_taken_over(host: Host) -> None:
    host.write(f"{ADMIN}/shop.service", FOREIGN)
    assert "forge_app: /etc/systemd/system/shop.service was made by somebody else" in host.sentence()
    assert host.sentence().endswith("take it over with forge_take_over: [unit].")
    (conflict,) = host.found(take_over=["unit"])
    assert conflict["taken_over"]
    assert (
        f"it is taken over once the first release is healthy. Its file is kept in {host.home}/taken-over."
        in conflict["sentence"]
    )


class Old:
    """Stands for the service that runs under the app's name."""

    def __init__(self, _app: str, _wanted: list[str]) -> None:
        pass

    def problem(self) -> str:
        return "shop.socket listens elsewhere."

    def state(self) -> str:
        return "serves at 0.0.0.0:8000"

    def cost(self) -> str:
        return "No new connection is lost. Its open connections, now 12, end as at each restart of it."


def test_what_taking_over_costs_is_said_before(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "ByHand", Old)
    (host.root / "run/systemd/system").mkdir(parents=True)
    host.write(f"{ADMIN}/shop.service", FOREIGN)
    made = "/etc/systemd/system/shop.service was made by somebody else (shop.service serves at 0.0.0.0:8000)"
    assert host.sentence().startswith(f"forge_app: {made}: give the app another name, or take it over")
    assert "[unit]. What that costs: No new connection is lost. Its open connections, now 12, end" in host.sentence()
    (conflict,) = host.found(take_over=["unit"])
    assert conflict["sentence"].startswith(f"{made}: on ")
    assert "Its open connections, now 12, end as at each restart of it. Its file is kept in " in conflict["sentence"]
    host.write(f"{ADMIN}/shop.socket", FOREIGN)
    assert host.sentence(take_over=["unit"]) == "forge_app: shop.socket listens elsewhere."


@pytest.mark.parametrize("name", ["shop@.service", "shop.timer", "shop.path", "shop@.service.d", "shop@one.service"])
def test_what_no_app_can_take_over_is_not_offered(host: Host, name: str) -> None:
    host.write(f"{ADMIN}/shop.service", FOREIGN)
    host.write(f"{ADMIN}/{name}" + ("/more.conf" if name.endswith(".d") else ""), FOREIGN)
    assert f"or disable and remove /etc/systemd/system/{name}, which no app can take over" in host.sentence(
        take_over=["unit"]
    )


def test_a_unit_linked_from_elsewhere_is_made_by_hand(host: Host) -> None:
    host.write("opt/shop.service", FOREIGN)
    host.link(f"{ADMIN}/shop.service", str(host.root / "opt/shop.service"))
    assert "was made by somebody else" in host.sentence()


def test_other_names_and_masks_are_not_taken(host: Host) -> None:
    host.write(f"{LIB}/ssh.service", FOREIGN)
    host.link(f"{ADMIN}/shop.service", str(host.root / LIB / "ssh.service"))
    assert "another name of ssh.service, by /etc/systemd/system/shop.service" in host.sentence(take_over=["unit"])
    os.unlink(host.root / ADMIN / "shop.service")
    host.link(f"{ADMIN}/shop.service", "/dev/null")
    assert "masked by /etc/systemd/system/shop.service" in host.sentence(take_over=["unit"])


def test_a_mask_of_our_own_unit_is_damage_that_a_release_heals(host: Host) -> None:
    host.write(f"{ADMIN}/shop.socket", f"# {mark('shop')}: changes by hand are replaced.\n")
    host.link(f"{ADMIN}/shop.service", "/dev/null")
    assert host.found() == []


def test_an_override_of_a_package_is_the_packages(host: Host) -> None:
    for directory in (ADMIN, LIB):
        host.write(f"{directory}/shop.service", FOREIGN)
    assert "is a unit of this host" in host.sentence(take_over=["unit"])


@pytest.mark.parametrize("head", [HEAD, EARLIER])
def test_our_units_and_what_an_admin_adds_to_them(host: Host, head: str) -> None:
    for name in ("shop.service", "shop.socket", f"shop@{GENERATION}.service", f"shop.worker@{GENERATION}.timer"):
        host.write(f"{ADMIN}/{name}", head + FOREIGN)
    host.write(f"{ADMIN}/shop.service.d/limits.conf", "[Service]\n")
    host.write(f"{LIB}/shop.service", FOREIGN)  # ours goes first
    assert host.found() == []
    host.write(f"{ADMIN}/shop.timer", "[Timer]\n")
    assert "shop.timer was made by somebody else" in host.sentence()


def test_settings_for_a_unit_that_is_not_there_are_somebodys(host: Host) -> None:
    host.write(f"{ADMIN}/shop.service.d/limits.conf", "[Service]\n")
    assert "shop.service.d was made by somebody else" in host.sentence()


@pytest.mark.parametrize("cgroup", ["sys/fs/cgroup", "sys/fs/cgroup/systemd"])
def test_a_unit_that_runs_without_its_file(host: Host, cgroup: str) -> None:
    (host.root / cgroup / "system.slice" / "shop.service").mkdir(parents=True)
    assert "shop.service is a unit of this host (its file is gone, and it runs)" in host.sentence()


def test_a_directory_of_somebody_else(host: Host) -> None:
    host.home.mkdir(parents=True)
    assert host.found() == []
    (host.home / "lost+found").mkdir()
    assert host.found() == [], "a disk of its own"
    host.write("srv/shop/ledger.jsonl")
    (host.home / "taken-over").mkdir()
    assert host.found() == [], "what a removal has left"
    host.write("srv/shop/index.html")
    assert f"forge_app: {host.home} is not the app's (it has index.html)" in host.sentence()
    host.write(f"srv/shop/generations/{GENERATION}/release.json", "{}")
    assert host.found() == []


@pytest.mark.parametrize(
    ("path", "is_left"),
    [
        ("lock.json", True),
        (".stage.lock", True),
        ("locks/stage", True),
        ("releases/0123456789ab/main.py", True),
        ("releases/.incoming-x/main.py", True),
        ("releases/20260101120000/main.py", False),  # of another tool
        ("current", False),
    ],
)
def test_what_a_killed_first_deploy_has_left(host: Host, path: str, is_left: bool) -> None:
    host.write(f"srv/shop/{path}")
    assert (host.found() == []) is is_left


def test_a_file_in_its_place(host: Host) -> None:
    host.write("srv/shop")
    assert "is no directory" in host.sentence()


def test_a_run_directory_of_somebody_else(host: Host) -> None:
    host.write(f"run/shop/{GENERATION}.sock")
    (host.root / "run" / "shop" / GENERATION).mkdir()
    assert host.found(user=host.user) == []
    host.write("run/shop/daemon.pid")
    assert f"{host.root}/run/shop is somebody else's (has daemon.pid)" in host.sentence(user=host.user)


@pytest.mark.parametrize(("kind", "base"), [("state", "var/lib"), ("cache", "var/cache")])
def test_directories_that_systemd_would_give_away(host: Host, kind: str, base: str) -> None:
    listed = {f"{kind}_directories": ["shop/uploads"]}
    (host.root / base / "shop" / "uploads").mkdir(parents=True)
    assert host.found(user=host.user, **listed) == []
    assert host.found(**listed) == []  # it is empty
    host.write(f"{base}/shop/uploads/one")
    assert host.found(user=host.user, **listed) == []
    path = host.root / base / "shop" / "uploads"
    assert f"forge_{kind}_directories: {path} belongs to {host.user}" in host.sentence(**listed)


def test_addresses_that_another_has(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Holder("nginx", "nginx.service")
    monkeypatch.setattr(conflicts, "why_taken", lambda *_arguments: holder)
    assert "forge_listen: 8000 is taken by nginx (unit nginx.service)" in host.sentence(listen=["8000"])
    host.write(f"{ADMIN}/blog.socket", HEAD.replace("shop", "blog"))
    holder = Holder("systemd", "blog.socket")
    assert "8000 is taken by the app blog" in host.sentence(listen=["8000"])
    host.write(f"{ADMIN}/shop@{GENERATION}.service", HEAD)
    holder = Holder("gunicorn", f"shop@{GENERATION}.service")
    assert host.found(listen=["8000"]) == []


def test_a_service_made_under_another_name_could_be_taken_over(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "why_taken", lambda *_arguments: Holder("python", "api.service"))
    assert host.sentence(listen=["8000"]).endswith("or stop what listens there.")  # its file is nowhere
    host.write(f"{ADMIN}/api.service", FOREIGN)
    assert host.sentence(listen=["8000"]).endswith(
        "stop what listens there. As forge_app: api this app could take it over."
    )


def test_a_unit_in_the_way_is_said_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "why_taken", lambda *_arguments: Holder("gunicorn", "shop.service"))
    host.write(f"{ADMIN}/shop.service", FOREIGN)
    assert "was made by somebody else" in host.sentence(listen=["8000"])
    assert [each["taken_over"] for each in host.found(listen=["8000"], take_over=["unit"])] == [True]


def test_an_account_is_said_with_its_variable(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(conflicts, "user_problem", lambda *arguments: asked.append(arguments[2:]) or "no.")
    assert host.sentence() == "forge_user: no."
    assert asked == [(False, False)]
    monkeypatch.setattr(conflicts, "user_problem", lambda *_arguments: "")
    monkeypatch.setattr(conflicts, "group_problem", lambda *_arguments: "no.")
    assert host.sentence() == "forge_group: no."


def test_another_project(host: Host) -> None:
    host.write("srv/shop/project.json", json.dumps({"origin": "git.example.org/shop"}))
    host.write(f"srv/shop/generations/{GENERATION}/release.json", json.dumps({"target": "shop.main:app"}))
    host.link("srv/shop/current", f"generations/{GENERATION}")
    host.write("srv/shop/ledger.jsonl", json.dumps({"by": "ann@laptop", "time": "2026-01-31T12:00:00Z"}) + "\n")
    assert host.found(project={"origin": "git.example.org/shop"}) == []
    blog = {"origin": "git.example.org/blog"}
    assert host.sentence(project=blog).startswith(
        f"forge_app: {host.home} is another project's, git.example.org/shop (shop.main:app, of ann@laptop, "
        "2026-01-31T12:00:00Z): give this app another name"
    )
    assert [each["taken_over"] for each in host.found(project=blog, take_over=["project"])] == [True]


def test_files_that_are_broken_are_nobodys(host: Host) -> None:
    host.write("srv/shop/project.json", "{")
    host.write("srv/shop/ledger.jsonl", "{")
    assert host.found(project={"name": "blog"}) == []


def test_how_to_say_that_it_is_the_same_project(host: Host) -> None:
    """An artifact, from another controller, has nothing in common with the directory that was deployed before."""
    directory = {"name": "shop", "source": "/home/ann/shop", "inventory": "/home/ann/hosts"}
    artifact = {"source": "/ci/shop.tar", "inventory": "/ci/hosts"}
    host.write("srv/shop/project.json", json.dumps(directory))
    assert host.sentence(project=artifact).endswith(
        "or, if it is the same project, say so once with forge_take_over: [project], and set forge_project to one name, here and "
        "where it is deployed from the source: an artifact does not say what it is of."
    )
    assert host.sentence(project={**artifact, "name": "blog"}).endswith(
        "a forge_project by which it is known from everywhere."
    )
    assert host.sentence(project={**artifact, "id": "shop"}).endswith(
        "a forge_project by which it is known from everywhere."
    )
    host.write("srv/shop/project.json", json.dumps({**directory, "id": "shop"}))
    assert host.sentence(project=artifact).endswith("or, if it is the same project, set forge_project: shop.")
    assert host.found(project={**artifact, "id": "shop"}) == []
