# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What on a host is somebody else's and in the way of an app: its units, directories, account, addresses, its name."""

from __future__ import annotations

import glob
import json
import os
import platform
import pwd
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypedDict

from .accounts import Account, group_problem, installed_account, read_lines, user_problem
from .by_hand import ByHand
from .command import run
from .layout import GENERATION_ID, Layout, read_json
from .listening import Endpoint, Holder, endpoint, why_taken
from .ownership import is_same_project, marked_app
from .records import GenerationRecord, LedgerEvent, ProjectRecord

# Where systemd looks for units, first to last: systemd.unit(5).
UNIT_PATH = (
    "etc/systemd/system.control", "run/systemd/system.control", "run/systemd/transient", "run/systemd/generator.early",
    "etc/systemd/system", "etc/systemd/system.attached", "run/systemd/system", "run/systemd/system.attached",
    "run/systemd/generator", "usr/local/lib/systemd/system", "lib/systemd/system", "usr/lib/systemd/system",
    "run/systemd/generator.late",
)  # fmt: skip
ADMIN = "/etc/systemd/system"
# What a killed first deploy may leave behind, before a record says what it was.
HALF_MADE = {"layers", "releases", "generations", "lock.json", "locks", "project.json"}
# What a file system of its own has, mounted where the app's directory is to be.
OF_A_DISK = {"lost+found"}
AFTER_REMOVAL = {"ledger.jsonl", "taken-over"}  # what a removal leaves, for the app to come back to
ALLOWED = HALF_MADE | OF_A_DISK | AFTER_REMOVAL


class Conflict(TypedDict):
    """Something of somebody else's."""

    kind: str
    name: str  # of the units, the directory, the account or the address
    owner: str  # whose it is, for people; empty when it is not known
    sentence: str  # what is in the way, and what to do; of what is taken over, what will happen
    taken_over: bool  # whether the inventory takes it over: then it is not in the way


class Look:
    """One look at a host, for one app.

    :param params: of the module ``host_info``.
    :param prefix: directory that stands for ``/``; only tests have another.
    """

    def __init__(self, params: dict[str, Any], layout: Layout, account: Account, prefix: str = "/") -> None:
        self.params = params
        self.app = layout.app
        self.layout = layout
        self.account = account
        self.prefix = prefix
        self.installed_user = installed_account(layout)[0]

    def conflicts(self) -> list[Conflict]:
        units = list(self.units())
        return [*self.project(), *units, *self.directories(), *self.accounts(), *self.addresses(units)]

    def conflict(self, kind: str, name: str, owner: str, sentence: str, notice: str = "") -> Conflict:
        """:param notice: what will happen when it is taken over; empty of what cannot be."""
        taken = bool(notice) and kind in self.params["take_over"]
        return {
            "kind": kind, "name": name, "owner": owner, "sentence": notice if taken else sentence, "taken_over": taken,
        }  # fmt: skip

    # -- units -------------------------------------------------------------------------------------

    def unit_files(self) -> dict[str, list[str]]:
        """Name to path, on this host, of every unit that is called as one of the app's or that starts one."""
        app = re.escape(self.app)
        kinds = r"\.(service|socket|target|timer|path)(\.d)?\Z"
        family = re.compile(rf"{app}(@[^/]*{kinds}|\.[^/@]+@[^/]*{kinds}|\.(service|socket|timer|path)(\.d)?\Z)")
        found: dict[str, list[str]] = {}
        for directory in UNIT_PATH:
            with suppress(OSError):
                for name in sorted(os.listdir(os.path.join(self.prefix, directory))):
                    if family.match(name):
                        found.setdefault(name, []).append(f"/{directory}/{name}")
        return found

    def is_ours(self, name: str, path: str) -> bool:
        return marked_app("\n".join(read_lines(self.prefix + path)[:3]), name) == self.app

    def units(self) -> Iterator[Conflict]:
        """Units that are not ours. The first path of a name is the one that counts for systemd."""
        found = self.unit_files()
        ours = {name for name, paths in found.items() if self.is_ours(name, paths[0])}
        foreign = {name: paths for name, paths in found.items() if name not in ours}
        if ours:  # what an admin adds to our units is welcome, and that one is masked is damage which a release heals
            foreign = {
                name: paths
                for name, paths in foreign.items()
                if not name.endswith(".d") and not self.is_masked(paths[0])
            }
        by_hand = {name: paths[0] for name, paths in foreign.items() if len(paths) == 1 and self.is_by_hand(paths[0])}
        others = {name: paths[-1] for name, paths in foreign.items() if name not in by_hand}
        cgroups = (
            f"{self.prefix}/sys/fs/cgroup/{slice}/{self.app}.service" for slice in ("system.slice", "*/system.slice")
        )
        if not found and any(map(glob.glob, cgroups)):
            others = {f"{self.app}.service": "its file is gone, and it runs"}
        if others:
            owner = self.owner_of_unit(*min(others.items()))
            names = " and ".join(list(others)[:3])
            yield self.conflict(
                "unit", " ".join(others), owner,
                f"forge_app: {names} {'is a unit' if len(others) == 1 else 'are units'} of this host ({owner}), which "
                "the app's would take the place of: give the app another name.",
            )  # fmt: skip
        elif by_hand:
            yield self.made_by_hand(by_hand)

    def made_by_hand(self, units: dict[str, str]) -> Conflict:
        """Of units that an admin has made: name to path."""
        verb = "was" if len(units) == 1 else "were"
        made = f"{' and '.join(list(units.values())[:3])} {verb} made by somebody else"
        family = {f"{self.app}.{kind}" for kind in ("service", "service.d", "socket", "socket.d")}
        rest = [path for name, path in units.items() if name not in family]
        if rest:
            stay = f"disable and remove {' and '.join(rest[:3])}, which no app can take over"
            return self.conflict(
                "unit", " ".join(units), "made by hand", f"forge_app: {made}: give the app another name, or {stay}."
            )
        problem, cost = "", ""
        if os.path.isdir(f"{self.prefix}/run/systemd/system"):  # else nothing of it can run, and nobody can be asked
            old = ByHand(self.app, self.params["listen"])
            problem = old.problem() if f"{self.app}.socket" in units else ""
            made, cost = f"{made} ({self.app}.service {old.state()})", old.cost()
        if problem:
            return self.conflict("unit", " ".join(units), "made by hand", f"forge_app: {problem}")
        return self.conflict(
            "unit", " ".join(units), "made by hand",
            f"forge_app: {made}: give the app another name, or take it over with forge_take_over: [unit]."
            f"{' What that costs: ' + cost if cost else ''}",
            f"{made}: on {platform.node()} it is taken over once the first release is healthy. {cost + ' ' if cost else ''}Its file "
            f"is kept in {self.layout.home}/taken-over.",
        )  # fmt: skip

    def is_masked(self, path: str) -> bool:
        return path.startswith(f"{ADMIN}/") and os.path.realpath(self.prefix + path) == "/dev/null"

    def is_by_hand(self, path: str) -> bool:
        """Whether an admin has made this unit: a file, or a link to one of the same name elsewhere, of no package."""
        real = os.path.realpath(self.prefix + path)
        is_link = os.path.islink(self.prefix + path)
        elsewhere = is_link and (os.path.basename(real) != os.path.basename(path) or "/systemd/system/" in real)
        return path.startswith(f"{ADMIN}/") and not elsewhere and not package_of(path)

    def owner_of_unit(self, name: str, path: str) -> str:
        """Whose a unit is, for people."""
        if not path.startswith("/"):
            return path
        real = os.path.realpath(self.prefix + path)
        if real == "/dev/null":
            return f"masked by {path}"
        if os.path.islink(self.prefix + path) and os.path.basename(real) != name:
            return f"another name of {os.path.basename(real)}, by {path}"
        package = package_of(path)
        return f"package {package}" if package else path

    # -- directories -------------------------------------------------------------------------------

    def directories(self) -> Iterator[Conflict]:
        home = self.layout.home
        problem = self.home_problem(home)
        if problem:
            sentence = f"forge_app: {home} {problem}: give the app another name or another forge_root."
            yield self.conflict("directory", home, owner_of(home), sentence)
        run_names = names_in(self.layout.run)
        others = [name for name in run_names if not GENERATION_ID.match(name.removesuffix(".sock"))]
        if others or (owner_of(self.layout.run) not in ("", "root", self.account["user"], self.installed_user)):
            what = f"has {', '.join(others[:3])}" if others else f"belongs to {owner_of(self.layout.run)}"
            sentence = f"forge_app: {self.layout.run} is somebody else's ({what}): give the app another name."
            by_hand = os.path.exists(f"{self.prefix}{ADMIN}/{self.app}.service")
            if not (by_hand and "unit" in self.params["take_over"]):  # then it goes with the unit
                yield self.conflict("directory", self.layout.run, owner_of(self.layout.run), sentence)
        for variable, base in (("state", "var/lib"), ("cache", "var/cache")):
            for name in self.params[f"{variable}_directories"]:
                path = os.path.join(self.prefix, base, name)
                owner = self.foreign_owner(path, os.path.join(self.prefix, base))
                if owner:
                    sentence = (
                        f"forge_{variable}_directories: {path} belongs to {owner}, and would become "
                        f"{self.account['user']}'s: name a directory of the app's own, or give it to that user."
                    )
                    yield self.conflict("directory", path, owner, sentence)

    def home_problem(self, home: str) -> str:
        """What is there in the place of the app's directory; empty when it is the app's, or nothing."""
        if not os.path.lexists(home):
            return ""
        if not os.path.isdir(home):
            return "is no directory"
        if os.path.isfile(self.layout.project) or glob.glob(os.path.join(self.layout.generations, "*", "release.json")):
            return ""
        left = [name for name in names_in(home) if not name.startswith(".") and name not in ALLOWED]
        left += [name for name in names_in(self.layout.releases) if not re.match(r"[0-9a-f]{12}\Z|\.", name)]
        if left:
            return f"is not the app's (it has {', '.join(left[:3])})"
        owner = owner_of(home)
        return "" if owner in ("root", owner_of(self.prefix)) else f"belongs to {owner}"

    def foreign_owner(self, path: str, base: str) -> str:
        """Who owns what is in a directory that systemd would give to the app; empty when nobody else does."""
        ours = {self.account["user"], self.installed_user}
        if os.path.lexists(path):
            is_empty = os.path.isdir(path) and not names_in(path)
            return "" if owner_of(path) in ours or is_empty else owner_of(path)
        parent = os.path.dirname(path)
        while parent != base and not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        return "" if parent == base or owner_of(parent) in (ours | {"root"}) else owner_of(parent)

    # -- accounts ----------------------------------------------------------------------------------

    def accounts(self) -> Iterator[Conflict]:
        user, group = self.account["user"], self.account["group"]
        installed_user, installed_group = installed_account(self.layout)
        problem = user_problem(self.account, self.app, bool(self.params["user"]), user == installed_user)
        if problem:
            yield self.conflict("account", user, "", f"forge_user: {problem}")
            return
        problem = group_problem(self.account, bool(self.params["group"]), group == installed_group)
        if problem:
            yield self.conflict("account", group, "", f"forge_group: {problem}")

    # -- addresses ---------------------------------------------------------------------------------

    def addresses(self, units: list[Conflict]) -> Iterator[Conflict]:
        """Addresses that another program has. Of a unit that is in the way itself, that has been said."""
        said = {name for unit in units for name in unit["name"].split()}
        ours = self.own_addresses()
        for entry in self.params["listen"]:
            found = why_taken(entry, ours)
            if not found:
                continue
            if isinstance(found, str):
                yield self.conflict("address", entry, "", f"forge_listen: {entry} {found}: name another one.")
                continue
            path = f"{ADMIN}/{found.unit}"
            if found.unit in said or (found.unit and self.is_ours(found.unit, path)):
                continue
            yield self.conflict(
                "address", entry, str(found),
                f"forge_listen: {entry} is taken by {self.shown(found)}: name another address, or stop what listens there."
                f"{self.hint(found)}",
            )  # fmt: skip

    def hint(self, holder: Holder) -> str:
        """How to take over a unit that an admin has made under another name; empty of anything else."""
        name, _dot, kind = holder.unit.rpartition(".")
        path = f"{ADMIN}/{holder.unit}"
        is_service = kind in ("service", "socket") and re.match(r"[a-z][a-z0-9-]{0,30}\Z", name)
        if not is_service or not os.path.isfile(self.prefix + path) or not self.is_by_hand(path):
            return ""
        if marked_app("\n".join(read_lines(self.prefix + path)[:3]), holder.unit):
            return ""
        return f" As forge_app: {name} this app could take it over."

    def shown(self, holder: Holder) -> str:
        """Who holds an address, for people: of an app of this collection its name."""
        other = marked_app("\n".join(read_lines(f"{self.prefix}{ADMIN}/{holder.unit}")[:3]), holder.unit)
        return f"the app {other}" if other else str(holder)

    def own_addresses(self) -> list[Endpoint]:
        """What the app's own socket listens on."""
        path = f"{ADMIN}/{self.app}.socket"
        lines = read_lines(self.prefix + path) if self.is_ours(f"{self.app}.socket", path) else []
        return [endpoint(line.partition("=")[2]) for line in lines if line.startswith("ListenStream=")]

    # -- project -----------------------------------------------------------------------------------

    def project(self) -> Iterator[Conflict]:
        """Another project's installation under the app's name."""
        installed = ProjectRecord.from_dict(read_json(self.layout.project))
        wanted = ProjectRecord.from_dict(self.params["project"])
        if is_same_project(installed, wanted):
            return
        live = GenerationRecord.from_dict(read_json(self.layout.record(self.layout.live())))
        last = LedgerEvent.from_dict(last_event(self.layout.ledger))
        owner = installed.owner()
        since = f", of {last.by}, {last.time}" if last.by else ""
        yield self.conflict(
            "project", self.layout.home, owner,
            f"forge_app: {self.layout.home} is another project's, {owner} ({live.target or 'nothing live'}{since}): give "
            f"this app another name, or, if it is the same project, {how_to_say_so(installed, wanted)}.",
            f"{self.layout.home} on {platform.node()} was another project's, {owner}: this one's release is its next.",
        )  # fmt: skip


def how_to_say_so(installed: ProjectRecord, wanted: ProjectRecord) -> str:
    """What to set when an installation is the same project after all."""
    if installed.id and not wanted.id:
        return f"set forge_project: {installed.id}"
    known = "give it a forge_project by which it is known from everywhere"
    if not wanted.name and not wanted.origin and not wanted.id:
        known = "set forge_project to one name, here and where it is deployed from the source: an artifact does not say what it is of"
    return f"say so once with forge_take_over: [project], and {known}"


def names_in(directory: str) -> list[str]:
    with suppress(OSError):
        return sorted(os.listdir(directory))
    return []


def owner_of(path: str) -> str:
    """Name of the user who owns something, or its number; empty when there is nothing."""
    try:
        uid = os.stat(path).st_uid
    except OSError:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def package_of(path: str) -> str:
    """The Debian package that a unit file came with; empty when none has. It may know the file below / or /usr."""
    pattern = f"*/systemd/system/{os.path.basename(path)}"
    return str(run(["dpkg-query", "--search", pattern]).stdout).partition(":")[0] if "/" in path else ""


def last_event(ledger: str) -> object:
    """The last event of a ledger; None when there is none that can be read."""
    with suppress(ValueError, IndexError, RecursionError):
        return json.loads(read_lines(ledger)[-1])
    return None
