# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A removal takes what carries the app's mark, and leaves what is somebody else's."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import removal as unit
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import systemd
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.complete import mark_complete
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ownership import mark, marked_app
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.removal import (
    CHANGED,
    DATA,
    NOT_OURS,
    Removal,
    RemovalError,
)
from ansible_collections.thecodeforge.fastapi.plugins.modules import remove as module

LIVE = "aaaaaaaaaaaa-00000000"
HEAD = f"# {mark('shop')}: changes by hand are replaced.\n"
EARLIER = "# Written by thecodeforge.fastapi.service: changes by hand are replaced.\n"


class Shop:
    """A host with the app ``shop``, in directories of its own."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        directories = [str(tmp_path / name) for name in ("units", "run", "needrestart")]
        self.layout = Layout(str(tmp_path / "srv"), "shop", *directories)
        self.home, self.units, self.run = Path(self.layout.home), Path(self.layout.units), Path(self.layout.run)
        self.data = tmp_path / "state"
        self.calls: list[list[str]] = []
        self.accounts = {
            "shop": SimpleNamespace(pw_name="shop", pw_uid=os.getuid(), pw_gid=os.getgid(), pw_gecos=mark("shop"))
        }
        self.processes: list[tuple[str, str]] = []
        self.stop_fails = False
        monkeypatch.setattr(systemd, "systemctl", self.systemctl)
        monkeypatch.setattr(systemd, "states", lambda *_units: {})
        monkeypatch.setattr(unit, "run", self.run_program)
        monkeypatch.setattr(unit, "processes_of", lambda _uid: iter(self.processes))
        monkeypatch.setattr(pwd, "getpwnam", lambda name: self.accounts[name])
        monkeypatch.setattr(pwd, "getpwall", lambda: list(self.accounts.values()))
        monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name="shop", gr_gid=gid, gr_mem=[]))
        monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_name=name))
        for directory in (self.units, self.run / LIVE, self.data):
            directory.mkdir(parents=True)
        for name, text in {
            "shop.service": EARLIER, "shop.socket": HEAD, "shop@.socket": HEAD,
            f"shop@{LIVE}.service": f"{HEAD}[Service]\nUser=shop\nTimeoutStopSec=35\n",
            f"shop.worker@{LIVE}.service": f"{HEAD}[Service]\nUser=shop\nTimeoutStopSec=90\n",
        }.items():  # fmt: skip
            (self.units / name).write_text(text)
        for path, text in {
            f"generations/{LIVE}/release.json": "{}", f"generations/{LIVE}/environment": "A=secret",
            f"generations/{LIVE}/units/shop.service": "", f"generations/{LIVE}/files/shop.toml": "",
            "releases/aaaaaaaaaaaa/main.py": "", "pythons/3.14.10-0123456789ab/bin/python3.14": "",
            "layers/aaaaaaaaaaaa-py3.11/pyvenv.cfg": "",
            "layers/.incoming-x/half": "", "ledger.jsonl": "{}\n", "lock.json": "{}", ".lock": "",
        }.items():  # fmt: skip
            (self.home / path).parent.mkdir(parents=True, exist_ok=True)
            (self.home / path).write_text(text)
        os.symlink(f"generations/{LIVE}", self.home / "current")
        for directory in ("releases/aaaaaaaaaaaa", "layers/aaaaaaaaaaaa-py3.11", "pythons/3.14.10-0123456789ab"):
            monkeypatch.setattr(os, "fchown", lambda *_arguments: None)
            mark_complete(str(self.home / directory))

    def systemctl(self, *arguments: str, timeout: float = 0) -> str:
        if arguments[0] == "stop" and self.stop_fails:
            raise systemd.SystemdError("systemctl stop shop.socket took longer than 120 s")
        self.calls.append([*arguments, f"{timeout:g}"] if timeout else [*arguments])
        return ""

    def run_program(self, argv: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        self.calls.append(argv)
        return subprocess.CompletedProcess(argv, 0, "", "")

    def removal(self, data: bool = False) -> Removal:
        return Removal(self.layout, "shop", data, [str(self.data)])

    def remove(self, data: bool = False) -> dict[str, str]:
        """Remove, and return what was left: name to why."""
        removal = self.removal(data)
        found = removal.find()
        removal.take_away(found)
        return {each["name"]: each["why"] for each in found.result()["left"]}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("text", "unit_name", "app"),
    [
        (f"# {mark('shop')}: changes by hand are replaced.", "shop.service", "shop"),
        (mark("my-shop"), "", "my-shop"),
        (EARLIER, "shop.worker@aaaaaaaaaaaa-00000000.timer", "shop"),
        (EARLIER, "", ""),
        ("[Unit]\nDescription=shop", "shop.service", ""),
    ],
)
def test_a_mark_says_whose_a_text_is(text: str, unit_name: str, app: str) -> None:
    assert marked_app(text, unit_name) == app


def test_what_is_the_apps_goes_and_its_data_stays(shop: Shop) -> None:
    left = shop.remove()
    assert left == {
        str(shop.home / "ledger.jsonl"): DATA,
        str(shop.data): DATA,
        "shop": f"it owns {shop.data}",
    }
    assert os.listdir(shop.units) == []
    assert os.listdir(shop.home) == ["ledger.jsonl"]
    assert not shop.run.exists()
    assert ["userdel", "shop"] not in shop.calls
    assert shop.calls[0] == ["stop", "shop.socket", "shop.service", "120"], "the longest drain of a unit, and a margin"
    assert ["disable", "--quiet", "shop.socket", "shop.service"] in shop.calls


def test_all_that_a_role_renders_is_known() -> None:
    """Or what a generation consists of would look like somebody's addition, and stay."""
    rendered = (Path(__file__).parents[4] / "roles" / "service" / "tasks" / "render.yml").read_text()
    names = re.findall(r"'([\w.]+\.(?:py|json))': lookup", rendered)
    assert {"forge_process.py", "gunicorn.conf.py"} <= set(names) <= unit.OF_A_GENERATION


def test_what_another_program_was_told_goes_where_it_is_ours(shop: Shop) -> None:
    path = Path(shop.layout.needrestart)
    path.parent.mkdir()
    path.write_text("# an admin's\n")
    shop.remove()
    assert path.exists()
    path.write_text(HEAD)
    shop.remove()
    assert not path.exists()


def test_told_twice_nothing_is_left(shop: Shop) -> None:
    assert shop.remove(data=True) == {}
    assert not shop.home.exists()
    assert not shop.data.exists()
    assert ["userdel", "shop"] in shop.calls


def test_a_second_run_finds_nothing_to_do(shop: Shop) -> None:
    shop.remove()
    assert shop.removal().find().result()["removed"] == []
    shop.calls.clear()
    shop.remove()
    assert shop.calls == []


def test_what_a_person_has_put_there_stays_with_what_it_lies_in(shop: Shop) -> None:
    strangers = {
        shop.units / "shop@old.service": "[Service]\n",
        shop.units / "shop.service.d" / "more.conf": "[Service]\n",
        shop.home / "notes.txt": "",
        shop.home / "releases" / "20240101" / "main.py": "",
        shop.home / "releases" / "aaaaaaaaaaaa" / "patched.py": "",
        shop.home / "generations" / LIVE / "todo.txt": "",
        shop.run / "admin.sock": "",
    }
    for path, text in strangers.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    left = shop.remove(data=True)
    assert all(path.exists() for path in strangers)
    assert left == {
        "shop@old.service": NOT_OURS,
        "shop.service.d": NOT_OURS,
        str(shop.home / "notes.txt"): NOT_OURS,
        str(shop.home / "releases" / "20240101"): NOT_OURS,
        str(shop.home / "releases" / "aaaaaaaaaaaa"): CHANGED,
        str(shop.home / "generations" / LIVE): CHANGED,
        str(shop.run / "admin.sock"): NOT_OURS,
    }
    assert not (shop.home / "layers").exists()


@pytest.mark.parametrize("state", ["complete", "half made", "changed"])
def test_what_commands_of_the_release_have_made_goes_unless_somebody_has_changed_it(shop: Shop, state: str) -> None:
    made = shop.home / "generations" / LIVE / "made"
    (made / "static").mkdir(parents=True)
    (made / "static" / "a.css").write_text("")
    if state != "half made":
        mark_complete(str(made))
    if state == "changed":
        (made / "static" / "b.css").write_text("")
    assert (str(made.parent) in shop.remove()) == (state == "changed")
    assert made.exists() == (state == "changed")


def test_a_hand_made_service_of_the_apps_name_is_neither_stopped_nor_removed(shop: Shop) -> None:
    for name in os.listdir(shop.units):
        (shop.units / name).unlink()
    (shop.units / "shop.service").write_text("[Service]\nExecStart=/usr/bin/shop\n")
    assert shop.remove(data=True)["shop.service"] == NOT_OURS
    assert (shop.units / "shop.service").exists()
    assert not [call for call in shop.calls if call[0] in ("stop", "disable")]


@pytest.mark.parametrize(
    ("gecos", "other_unit", "process", "why"),
    [
        ("Alice,,,", "", "", NOT_OURS),
        (mark("blog"), "", "", NOT_OURS),
        (mark("shop"), "[Service]\nUser=shop\n", "", "blog.service runs as it"),
        (mark("shop"), "", "bash.scope", "its process 4711 runs"),
        (mark("shop"), "", f"shop@{LIVE}.service", ""),
    ],
)
def test_an_account_goes_when_it_is_ours_and_nobody_else_needs_it(
    shop: Shop, gecos: str, other_unit: str, process: str, why: str
) -> None:
    shop.accounts["shop"].pw_gecos = gecos
    shop.processes = [("4711", process)] if process else []
    if other_unit:
        (shop.units / "blog.service").write_text(other_unit)
    left = shop.remove(data=True)
    assert left.get("shop", "") == why
    assert (["userdel", "shop"] in shop.calls) == (not why)


def test_a_group_with_others_in_it_stays(shop: Shop) -> None:
    shop.accounts["bob"] = SimpleNamespace(pw_name="bob", pw_uid=4711, pw_gid=os.getgid(), pw_gecos="")
    assert shop.remove(data=True) == {"shop": "bob is in it"}
    assert ["groupdel", "shop"] not in shop.calls


def test_data_of_another_account_or_another_unit_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.accounts["shop"].pw_uid = 4711
    assert shop.remove(data=True)[str(shop.data)] == "it is not the app's account that owns it"
    assert shop.data.exists()
    relpath = os.path.relpath
    monkeypatch.setattr(
        os.path, "relpath", lambda path, start: "lib/state" if path == str(shop.data) else relpath(path, start)
    )
    (shop.units / "blog.service").write_text("[Service]\nStateDirectory=blog state\n")
    assert shop.remove(data=True)[str(shop.data)] == "another unit of this host names it"


def test_a_run_that_is_at_work_is_not_disturbed(shop: Shop) -> None:
    removal = shop.removal()
    (shop.home / "locks").mkdir()
    with open(shop.home / "locks" / "stage", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(RemovalError, match="Another run is at work on shop on this host: run again"):
            removal.take_away(removal.find())
    assert (shop.units / "shop.service").exists()


def test_an_app_that_does_not_stop_is_not_removed(shop: Shop) -> None:
    shop.stop_fails = True
    removal = shop.removal()
    with pytest.raises(RemovalError, match=r"shop could not be stopped \(systemctl stop .*\): nothing was removed"):
        removal.take_away(removal.find())
    assert (shop.units / "shop.service").exists()
    assert not [call for call in shop.calls if call[0] == "disable"]


def test_the_diff_has_what_goes(shop: Shop) -> None:
    diff = module.diff(shop.removal().find())
    gone = set(diff["before"].splitlines()) - set(diff["after"].splitlines())
    assert "unit shop.service" in gone
    assert f"data {shop.data}" not in gone


def test_the_app_of_another_project_is_not_removed_unless_it_is_taken_over(tmp_path: Path) -> None:
    home = tmp_path / "shop"
    home.mkdir()
    (home / "project.json").write_text('{"id": "theirs"}')
    params = {name: option.get("default") for name, option in module.ARGUMENT_SPEC.items()}
    params |= {"app": "shop", "root": str(tmp_path), "project": {"id": "ours"}}
    with pytest.raises(RemovalError, match=rf"{home} is another project's, theirs: .* Nothing was removed\."):
        module.removal_of(params)
    assert module.removal_of({**params, "project": {"id": "theirs"}})
    assert module.removal_of({**params, "take_over": ["project"]})


def test_who_may_reach_the_socket_goes_and_what_an_admin_has_added_beside_it_stays(shop: Shop) -> None:
    directory = shop.units / "shop.socket.d"
    directory.mkdir()
    (directory / "edge.conf").write_text(f"{HEAD}[Socket]\nIPAddressDeny=any\n")
    assert "shop.socket.d" in shop.removal().find().names("unit")
    (directory / "theirs.conf").write_text("[Socket]\nBacklog=9\n")
    found = shop.removal().find()
    assert "shop.socket.d" not in found.names("unit")
    assert str(directory / "edge.conf") in found.names("path")
