# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes an app off a host: exactly what carries its mark. What is somebody else's stays, and is named."""

from __future__ import annotations

import glob
import grp
import os
import pwd
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field

from . import systemd
from .command import run
from .complete import COMPLETE, is_complete
from .exclusive import LockHeld, exclusive_lock
from .generations import OLDER_LOCKS
from .layout import GENERATION_ID, MADE, Layout, read_file
from .ownership import is_same_project, marked_app
from .processes import STOP_MARGIN, Processes
from .records import ProjectRecord
from .serving import installed_text
from .settings import FILE, SEALED

SUFFIXES = (".service", ".socket", ".target", ".timer")
# What a deploy puts into a generation. Units and settings files have directories of their own.
OF_A_GENERATION = {
    "release.json", FILE, SEALED, "gunicorn.conf.py", "uvicorn.json", "forge_server.py", "forge_worker.py",
    "forge_process.py", "forge_database.py", "forge_database_url.py", "forge_notice.py", "forge_credentials.py",
}  # fmt: skip
HALF_MADE = re.compile(r"^\.incoming-|\.tmp\Z")
RELEASE_ID = re.compile(r"^[0-9a-f]{12}\Z")
LAYER_ID = re.compile(r"^[0-9a-f]{12}-py3\.\d+\Z")
NOTHING = re.compile(r"(?!)")
PYTHON_ID = re.compile(r"^3\.\d+\.\d+-[0-9a-f]+\Z")
OF_MANY = ("generations", "releases", "layers", "pythons", "tools")
# What comes and goes with runs: it goes with the rest, and is not worth a word.
HOUSEKEEPING = {"project.json", "lock.json", "locks", "drain", "maintenance", *OLDER_LOCKS}
NOT_OURS = "it does not carry the mark of this app"
CHANGED = "somebody has changed or added something in it"
DATA = "data: it goes when forge_remove_data names the app too"


class RemovalError(Exception):
    """Raised when a host keeps the app from being removed; nothing was removed by then, unless the text says so."""


@dataclass(frozen=True)
class Thing:
    """Something of an app, or in its place. ``why`` it stays; empty when it goes."""

    what: str
    name: str
    why: str = ""


@dataclass
class Inventory:
    """What was found, in the order in which it goes."""

    things: list[Thing] = field(default_factory=list)

    def add(self, what: str, name: str, why: str = "") -> None:
        self.things.append(Thing(what, name, why))

    def names(self, what: str) -> list[str]:
        """What of a kind goes."""
        return [thing.name for thing in self.things if thing.what == what and not thing.why]

    def result(self) -> dict[str, list[dict[str, str]]]:
        """``removed`` and ``left``, for the answer of the module."""
        found = [asdict(thing) for thing in self.things]
        return {
            "removed": [{"what": each["what"], "name": each["name"]} for each in found if not each["why"]],
            "left": [each for each in found if each["why"]],
        }


def check_project(place: str, installed: ProjectRecord, wanted: ProjectRecord) -> None:
    """:raises RemovalError: when another project has installed the app at a place."""
    if not is_same_project(installed, wanted):
        raise RemovalError(
            f"{place} is another project's, {installed.owner()}: name your own app, or say with "
            "forge_take_over: [project] that it is the same. Nothing was removed."
        )


class Removal:
    """
    :param user: account of the inventory; those that the app's units name count as well.
    :param data: whether state and cache directories and the ledger go too.
    :param directories: state and cache directories that the inventory names, absolute; those of the units count as well.
    """

    def __init__(self, layout: Layout, user: str, data: bool, directories: list[str]) -> None:
        self.layout = layout
        self.app = layout.app
        self.data = data
        self.units = {name: self._text_of(name) for name in self._files(layout.units) if self.is_unit(name)}
        self.own = {name: text for name, text in self.units.items() if marked_app(text, name) == self.app}
        self.users = sorted({user, *self.said("User")})
        named = [f"/var/{kind}/{name}" for option, kind in (("StateDirectory", "lib"), ("CacheDirectory", "cache"))
                 for line in self.said(option) for name in line.split()]  # fmt: skip
        self.directories = sorted({*directories, *named})

    # -- what is there -----------------------------------------------------------------------------

    @staticmethod
    def _files(directory: str) -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except OSError:
            return []

    def _text_of(self, name: str) -> str:
        """Text of a unit file; of a directory with drop-ins that of all, or none where one of them is somebody else's."""
        if not name.endswith(".d"):
            return installed_text(self.layout, name)
        texts = [
            installed_text(self.layout, os.path.join(name, each))
            for each in self._files(os.path.join(self.layout.units, name))
        ]
        return "".join(texts) if all(marked_app(text) == self.app for text in texts) else ""

    def is_unit(self, name: str) -> bool:
        """Is this the name of a unit file, or of its drop-ins, that the app would have?"""
        return re.split(r"[@.]", name, maxsplit=1)[0] == self.app and name.removesuffix(".d").endswith(SUFFIXES)

    def said(self, option: str, units: dict[str, str] | None = None) -> set[str]:
        """Values of an option in unit files: ours, unless others are given."""
        texts = "\n".join((self.own if units is None else units).values())
        return set(re.findall(rf"^{option}=(\S.*)$", texts, re.MULTILINE))

    def other_apps(self) -> dict[str, str]:
        """Unit files of this host that do not belong to the app: name to text."""
        names = [name for name in self._files(self.layout.units) if name.endswith(SUFFIXES) and name not in self.own]
        return {name: installed_text(self.layout, name) for name in names}

    def generations(self) -> list[str]:
        """Generations that have a unit of ours, and so may run."""
        found = {name.partition("@")[2].rpartition(".")[0] for name in self.own if "@" in name}
        return sorted(name for name in found if GENERATION_ID.match(name))

    def find(self) -> Inventory:
        """What goes and what stays. Reads only."""
        found = Inventory()
        for name in sorted(self.units):
            found.add("unit", name, "" if name in self.own else NOT_OURS)
        drop_in = self.layout.socket_clients
        if os.path.basename(os.path.dirname(drop_in)) not in self.own and os.path.isfile(drop_in):
            found.add("path", drop_in)  # an admin's lies beside it
        with suppress(OSError):
            if marked_app(read_file(self.layout.needrestart).decode("utf-8", errors="replace")) == self.app:
                found.add("path", self.layout.needrestart)
        for path in self._paths(self.layout.run):
            name = os.path.basename(path).removesuffix(".sock")
            found.add("path", path, "" if GENERATION_ID.match(name) else NOT_OURS)
        self._find_home(found)
        self._find_data(found)
        self._find_accounts(found)
        return found

    def _paths(self, directory: str) -> list[str]:
        return [os.path.join(directory, name) for name in self._files(directory)]

    def _find_home(self, found: Inventory) -> None:
        layout = self.layout
        for path in self._paths(layout.home):
            name = os.path.basename(path)
            if name in OF_MANY and not os.path.islink(path):
                whys = [(each, self._why_kept(path, each)) for each in self._paths(path)]
                for each, why in whys if any(why for _each, why in whys) else [(path, "")]:
                    found.add("path", each, why)
            elif path == layout.current:
                ours = os.path.islink(path) and os.path.dirname(os.readlink(path)) == "generations"
                found.add("path", path, "" if ours else NOT_OURS)
            elif path == layout.ledger:
                found.add("path", path, "" if self.data else DATA)
            elif name not in HOUSEKEEPING:
                found.add("path", path, "" if HALF_MADE.search(name) else NOT_OURS)

    def _why_kept(self, parent: str, path: str) -> str:
        """Why something below a directory of many stays; empty when it is as a deploy left it."""
        name = os.path.basename(path)
        if HALF_MADE.search(name) or (os.path.basename(parent) == "tools" and name.startswith("uv-")):
            return ""
        if parent == self.layout.generations:
            if not GENERATION_ID.match(name):
                return NOT_OURS
            return CHANGED if list(self._strangers(path)) else ""
        known = {self.layout.releases: RELEASE_ID, self.layout.layers: LAYER_ID, self.layout.pythons: PYTHON_ID}
        if not known.get(parent, NOTHING).match(name):
            return NOT_OURS
        return CHANGED if self._is_changed(path) else ""

    def _is_changed(self, path: str) -> bool:
        """Without the mark of completion it was never finished."""
        return os.path.exists(os.path.join(path, COMPLETE)) and not is_complete(path)

    def _strangers(self, generation: str) -> Iterator[str]:
        """What lies in a generation and was not put there by a deploy."""
        for path in self._paths(generation):
            name = os.path.basename(path)
            if name == "units":
                yield from (each for each in self._paths(path) if not self.is_unit(os.path.basename(each)))
            elif name == MADE:
                yield from [path] if self._is_changed(path) else []
            elif name not in OF_A_GENERATION | {"files", "__pycache__"} and not HALF_MADE.search(name):
                yield path

    def _find_data(self, found: Inventory) -> None:
        kept = {name for kind in ("State", "Cache") for line in self.said(f"{kind}Directory", self.other_apps())
                for name in line.split()}  # fmt: skip
        owners = {entry.pw_uid for entry in self._accounts()}
        for path in self.directories:
            if not os.path.isdir(path) or os.path.islink(path):
                continue
            why = "" if self.data else DATA
            if os.path.relpath(path, "/var").partition("/")[2] in kept:
                why = "another unit of this host names it"
            elif os.stat(path).st_uid not in owners:
                why = "it is not the app's account that owns it"
            found.add("data", path, why)

    def _accounts(self) -> list[pwd.struct_passwd]:
        found = []
        for user in self.users:
            with suppress(KeyError):
                found.append(pwd.getpwnam(user))
        return found

    def _find_accounts(self, found: Inventory) -> None:
        for account in self._accounts():
            why = self._why_account_stays(account, found)
            found.add("account", account.pw_name, why)
            with suppress(KeyError):
                group = grp.getgrgid(account.pw_gid)
                others = [each for each in group.gr_mem if each != account.pw_name]
                others += [
                    each.pw_name
                    for each in pwd.getpwall()
                    if each.pw_gid == group.gr_gid and each.pw_name != account.pw_name
                ]
                others += [unit for unit, text in self.other_apps().items() if names_it("Group", group.gr_name, text)]
                if not why and others:
                    why = f"{', '.join(sorted(set(others)))} is in it"
                found.add("group", group.gr_name, why)

    def _why_account_stays(self, account: pwd.struct_passwd, found: Inventory) -> str:
        if marked_app(account.pw_gecos) != self.app:
            return NOT_OURS
        users = sorted(name for name, text in self.other_apps().items() if names_it("User", account.pw_name, text))
        if users:
            return f"{', '.join(users)} runs as it"
        owned = [thing.name for thing in found.things if thing.what == "data" and thing.why]
        if owned:  # the next account that is made would get its number, and so what it owned
            return f"it owns {', '.join(owned)}"
        strangers = [pid for pid, unit in processes_of(account.pw_uid) if unit not in self.own]
        return f"its process {strangers[0]} runs" if strangers else ""

    # -- take it away ------------------------------------------------------------------------------

    def take_away(self, found: Inventory) -> None:
        """Remove what goes.

        :raises RemovalError: when another run is at work here, or the app does not stop; nothing was removed then.
        """
        with ExitStack() as held:
            if os.path.isdir(self.layout.home):
                for name in ("stage", "rollout"):
                    try:
                        held.enter_context(exclusive_lock(self.layout.kernel_lock(name)))
                    except LockHeld:
                        raise RemovalError(
                            f"Another run is at work on {self.app} on this host: run again when it is done. Nothing was "
                            "removed."
                        ) from None
            self._stop()
            self._remove_units()
            for path in [*found.names("path"), *found.names("data")]:
                remove(path)
            self._remove_accounts(found)
            for name in HOUSEKEEPING:
                remove(os.path.join(self.layout.home, name))
        for directory in (self.layout.run, self.layout.home):
            remove_if_empty(directory)

    def _stop(self) -> None:
        """Stop the app as its service would be stopped: it answers what it has accepted."""
        seconds = max((int(each) for each in self.said("TimeoutStopSec")), default=0) + STOP_MARGIN
        shared = [name for name in (f"{self.app}.socket", f"{self.app}.service") if name in self.own]
        try:
            if shared:
                systemd.systemctl("stop", *shared, timeout=seconds)
            for generation in self.generations():
                Processes(self.layout, generation).stop(seconds)
            if shared:
                systemd.systemctl("disable", "--quiet", *shared)
        except systemd.SystemdError as error:
            raise RemovalError(f"{self.app} could not be stopped ({error}): nothing was removed.") from None

    def _remove_units(self) -> None:
        for name in self.own:
            remove(os.path.join(self.layout.units, name))
        if self.own:
            systemd.systemctl("daemon-reload")
            with suppress(systemd.SystemdError):  # none of them had failed
                systemd.systemctl("reset-failed", *self.own)

    def _remove_accounts(self, found: Inventory) -> None:
        for what, program in (("account", "userdel"), ("group", "groupdel")):
            for name in found.names(what):
                if what == "group" and not has_group(name):
                    continue  # userdel takes a group of the account's own name along
                done = run([program, name])
                if done.returncode != 0:
                    raise RemovalError(
                        f"The {what} {name} could not be removed: {(done.stderr or done.stdout).strip()}. All else is gone."
                    )


def names_it(option: str, value: str, text: str) -> bool:
    """Does a unit file have an option with this value?"""
    return bool(re.search(rf"^{option}={re.escape(value)}$", text, re.MULTILINE))


def has_group(name: str) -> bool:
    try:
        return bool(grp.getgrnam(name))
    except KeyError:
        return False


def processes_of(uid: int) -> Iterator[tuple[str, str]]:
    """Id of each process of a user, and the unit that it runs in."""
    for path in glob.glob("/proc/[0-9]*"):
        with suppress(OSError):
            if os.stat(path).st_uid == uid:
                with open(os.path.join(path, "cgroup"), encoding="ascii", errors="replace") as handle:
                    yield os.path.basename(path), os.path.basename(handle.read().rstrip().rpartition("\n")[2])


def remove(path: str) -> None:
    """Remove a file, a link or a whole directory; one that is absent is well."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


def remove_if_empty(directory: str) -> None:
    """What somebody put there stays, with what it lies in; so does a mount point."""
    with suppress(OSError):
        os.rmdir(directory)
