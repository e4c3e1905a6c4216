# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which account an app runs as, and whose it is."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import accounts
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.accounts import (
    account_of,
    first_person,
    group_problem,
    has_password,
    user_problem,
)
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ownership import mark

OLD, NEW = "aaaaaaaaaaaa-00000000", "bbbbbbbbbbbb-00000000"
NOLOGIN = "/usr/sbin/nologin"
USERS = {  # uid, gid, shell, GECOS
    "alice": (1000, 1000, "/bin/bash", ""),
    "locked": (1001, 1001, NOLOGIN, ""),
    "secret": (900, 900, NOLOGIN, ""),
    "shop": (990, 990, "/bin/false", mark("shop")),
    "blog": (991, 991, NOLOGIN, mark("blog")),
    "plain": (992, 992, NOLOGIN, ""),
    "postgres": (105, 110, "/bin/bash", "PostgreSQL"),
    "news": (9, 9, NOLOGIN, "news"),
    "toor": (0, 0, NOLOGIN, ""),
}
MEMBERS = {"team": (1100, ["alice"]), "empty": (1101, [])}


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    users = {
        name: SimpleNamespace(pw_name=name, pw_uid=uid, pw_gid=gid, pw_shell=shell, pw_gecos=gecos)
        for name, (uid, gid, shell, gecos) in USERS.items()
    }
    groups = {name: SimpleNamespace(gr_name=name, gr_gid=user.pw_gid, gr_mem=[]) for name, user in users.items()}
    for name, (gid, members) in MEMBERS.items():
        groups[name] = SimpleNamespace(gr_name=name, gr_gid=gid, gr_mem=members)
    monkeypatch.setattr(pwd, "getpwnam", users.__getitem__)
    monkeypatch.setattr(pwd, "getpwall", lambda: list(users.values()))
    monkeypatch.setattr(grp, "getgrnam", groups.__getitem__)
    monkeypatch.setattr(grp, "getgrgid", {group.gr_gid: group for group in groups.values()}.__getitem__)
    monkeypatch.setattr(accounts, "has_password", lambda user: user == "secret")
    monkeypatch.setattr(accounts, "first_person", lambda: 1000)


def problem(user: str, group: str = "", named: bool = True, installed: bool = False) -> str:
    account = accounts.Account(user=user, group=group or user, ready=False)
    return user_problem(account, "shop", named, installed)


@pytest.mark.parametrize(
    ("user", "signs"),
    [
        ("alice", "its shell is /bin/bash, its uid is 1000"),
        ("locked", "its uid is 1001"),
        ("secret", "it has a password"),
        ("postgres", "its shell is /bin/bash"),
        ("toor", "it is root"),
    ],
)
def test_who_may_log_in_stays_as_it_is(user: str, signs: str) -> None:
    assert problem(user).startswith(f"the user {user} is a person's or another service's ({signs}) and stays as it is")


def test_users_that_an_app_may_run_as() -> None:
    assert problem("nobody-yet") == problem("shop") == problem("plain") == ""
    assert problem("news") == ""  # named on purpose
    assert problem("locked", installed=True) == ""  # as an earlier version has left it
    assert problem("shop", "team") == ""  # ours is kept right


def test_users_that_it_may_not() -> None:
    assert problem("blog") == "the user blog is the app blog's: name another one."
    assert problem("news", named=False).startswith("the user news is the system's (uid 9)")
    assert "has the primary group plain, not team" in problem("plain", "team")


def test_a_group_that_nobody_has_named_has_no_other_members() -> None:
    def problem(group: str, named: bool = False, installed: bool = False) -> str:
        return group_problem(accounts.Account(user="shop", group=group, ready=False), named, installed)

    assert problem("none") == problem("shop") == problem("empty") == ""
    assert "has other members (alice)" in problem("team")
    assert "has other members (plain)" in problem("plain")
    assert problem("team", named=True) == problem("team", installed=True) == ""


def install(layout: Layout, generation: str, user: str, group: str) -> None:
    unit = Path(layout.generation(generation)) / "units" / layout.service(generation)
    unit.parent.mkdir(parents=True)
    unit.write_text(f"[Service]\nUser={user}\nGroup={group}\n")


def test_an_installation_keeps_its_account_unless_another_is_named(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path), "shop")
    assert account_of(layout, "", "") == {"user": "shop", "group": "shop", "ready": True}
    install(layout, OLD, "plain", "plain")
    assert account_of(layout, "", "") == {"user": "plain", "group": "plain", "ready": True}
    install(layout, NEW, "shop", "shop")
    (tmp_path / "shop" / "current").symlink_to(f"generations/{OLD}")
    assert account_of(layout, "", "")["user"] == "plain"
    assert account_of(layout, "shop", "") == {"user": "shop", "group": "plain", "ready": False}
    assert account_of(layout, "nobody-yet", "nobody-yet")["ready"] is False


def test_passwords(tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.write_text("alice:$y$x:1::\nopen::1::\nlocked:!:1::\nsystem:*:1::\nonce:!$y$x:1::\n")
    assert [has_password(user, str(shadow)) for user in ("alice", "open")] == [True, True]
    assert [has_password(user, str(shadow)) for user in ("locked", "system", "once", "nobody")] == [False] * 4


def test_where_persons_begin(tmp_path: Path) -> None:
    definitions = tmp_path / "login.defs"
    definitions.write_text("# UID_MIN 3\nUID_MIN\t\t\t 500\nUID_MAX 60000\n")
    assert first_person(str(definitions)) == 500
    assert first_person(str(tmp_path / "none")) == 1000
