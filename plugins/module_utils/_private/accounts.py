# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The account that an app runs as: which one, whether it is as it should be, and whose it is."""

from __future__ import annotations

import grp
import os
import pwd
import re
from contextlib import suppress
from typing import TypedDict

from .layout import Layout
from .ownership import marked_app

STATIC = 100  # uids below are those of the distribution itself, such as news or backup (Debian policy 9.2)


class Account(TypedDict):
    """What the app runs as on this host."""

    user: str
    group: str
    ready: bool  # whether both exist, as a service account should


def read_lines(path: str) -> list[str]:
    """Lines of a file; none when there is none, or when it may not be read."""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as handle:
        return handle.read().splitlines()
    return []


def installed_account(layout: Layout) -> tuple[str, str]:
    """User and group of the live generation, or of the newest when none is live; empty when nothing is installed."""
    live = layout.live()
    names = [live] if live else []
    if not names:
        with suppress(OSError):
            paths = {name: os.path.join(layout.generations, name) for name in os.listdir(layout.generations)}
            names = sorted(paths, key=lambda name: os.path.getmtime(paths[name]), reverse=True)
    for name in names:
        lines = read_lines(os.path.join(layout.generation(name), "units", layout.service(name)))
        found = dict(line.split("=", 1) for line in lines if line.startswith(("User=", "Group=")))
        if found.get("User"):
            return found["User"], found.get("Group", found["User"])
    return "", ""


def account_of(layout: Layout, user: str, group: str) -> Account:
    """What the app runs as.

    :param user: as the inventory names it; empty for that of what is installed, and else the app's name.
    :param group: likewise.
    """
    installed_user, installed_group = installed_account(layout)
    user, group = user or installed_user or layout.app, group or installed_group or layout.app
    try:
        account, gid = pwd.getpwnam(user), grp.getgrnam(group).gr_gid
    except KeyError:
        return {"user": user, "group": group, "ready": False}
    ready = account.pw_gid == gid and not can_log_in(account.pw_shell) and account.pw_uid != 0
    return {"user": user, "group": group, "ready": ready}


def can_log_in(shell: str) -> bool:
    return os.path.basename(shell) not in ("nologin", "false")


def has_password(user: str, shadow: str = "/etc/shadow") -> bool:
    """Whether a password opens the account; no password at all does, too. Only root may read that."""
    fields = next((line.split(":") for line in read_lines(shadow) if line.startswith(f"{user}:")), [])
    return len(fields) > 1 and not fields[1].startswith(("!", "*"))


def first_person(path: str = "/etc/login.defs") -> int:
    """The lowest uid of a person."""
    found = [re.match(r"UID_MIN\s+(\d+)", line) for line in read_lines(path)]
    return next((int(match[1]) for match in found if match), 1000)


def user_problem(account: Account, app: str, is_named: bool, is_installed: bool) -> str:
    """Why an existing user is not to run the app; empty when it may, or when it is to be made.

    :param is_named: whether the inventory names it.
    :param is_installed: whether it runs what is installed.
    """
    user = account["user"]
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        return ""
    owner = marked_app(found.pw_gecos)
    if owner:
        return "" if owner == app else f"the user {user} is the app {owner}'s: name another one."
    signs = [
        *(["it is root"] if found.pw_uid == 0 else []),
        *([f"its shell is {found.pw_shell or '/bin/sh'}"] if can_log_in(found.pw_shell) else []),
        *(["it has a password"] if has_password(user) else []),
        *([f"its uid is {found.pw_uid}"] if found.pw_uid >= first_person() and not is_installed else []),
    ]
    if signs:
        return (
            f"the user {user} is a person's or another service's ({', '.join(signs)}) and stays as it is: "
            "name a user of the app's own."
        )
    if found.pw_uid < STATIC and not is_named and not is_installed:
        return f"the user {user} is the system's (uid {found.pw_uid}): name a user of the app's own."
    with suppress(KeyError):
        primary = grp.getgrgid(found.pw_gid).gr_name
        if primary != account["group"]:
            return (
                f"the user {user} has the primary group {primary}, not {account['group']}, and stays as it is: "
                f"set forge_group to {primary}, or name a user of the app's own."
            )
    return ""


def group_problem(account: Account, is_named: bool, is_installed: bool) -> str:
    """Why an existing group that nobody has named is not to read the app's settings; empty when it may."""
    try:
        found = grp.getgrnam(account["group"])
    except KeyError:
        return ""
    if is_named or is_installed:
        return ""
    primary = {each.pw_name for each in pwd.getpwall() if each.pw_gid == found.gr_gid}
    others = sorted((primary | set(found.gr_mem)) - {account["user"]})
    if not others:
        return ""
    return (
        f"the group {found.gr_name} has other members ({', '.join(others[:3])}), who could read the app's settings: "
        "name a group of the app's own."
    )
