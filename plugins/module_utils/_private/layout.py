# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are on a host (docs/design.md, "On a host"). The one place that knows the paths."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time

from .records import GenerationRecord

STANDBY_REQUEST = "stand-by"  # as in roles/service/files/forge_server.py
TWIN = "-2"  # ends the id of every other twin
REHEARSED = "-r"  # ends the id of a copy for a rehearsal, which is no generation to anything else
MADE, HALF_MADE = "made", ".incoming-made"  # directories of a generation
GENERATION_ID = re.compile(rf"^[0-9a-f]{{12}}-[0-9a-f]{{8}}({TWIN})?\Z")
LARGEST = 8 << 20  # bytes; of a document


class Layout:
    """Paths of one app below one root.

    ``root``: directory that holds all apps, e.g. ``/srv``; ``app``: the app's name, e.g. ``forge``.
    """

    def __init__(
        self,
        root: str,
        app: str,
        units: str = "/etc/systemd/system",
        run: str = "/run",
        needrestart: str = "/etc/needrestart/conf.d",
    ) -> None:
        self.app = app
        self.home = os.path.join(root, app)
        self.units = units
        self.run = os.path.join(run, app)
        self.pythons = os.path.join(self.home, "pythons")  # standalone ones
        self.layers = os.path.join(self.home, "layers")
        self.releases = os.path.join(self.home, "releases")
        self.generations = os.path.join(self.home, "generations")
        self.current = os.path.join(self.home, "current")
        self.ledger = os.path.join(self.home, "ledger.jsonl")
        self.project = os.path.join(self.home, "project.json")
        self.lock = os.path.join(self.home, "lock.json")
        self.locks = os.path.join(self.home, "locks")
        self.socket_clients = os.path.join(units, f"{app}.socket.d", "edge.conf")  # who may reach the public socket
        self.needrestart = os.path.join(needrestart, f"{app}.conf")  # what it leaves alone
        # What an operator has said of this host; as in roles/service/files/forge_server.py
        self.drain = os.path.join(self.home, "drain")
        self.maintenance = os.path.join(self.home, "maintenance")
        self.take_back_request = os.path.join(self.locks, "take-back")  # for a rollout that watches

    def python(self, interpreter: str) -> str:
        return os.path.join(self.pythons, interpreter)

    def layer(self, layer: str) -> str:
        return os.path.join(self.layers, layer)

    def release(self, release: str) -> str:
        return os.path.join(self.releases, release)

    def generation(self, generation: str) -> str:
        return os.path.join(self.generations, generation)

    def made(self, generation: str) -> str:
        """Directory with what the commands of a release have made for a generation."""
        return os.path.join(self.generation(generation), MADE)

    def half_made(self, generation: str) -> str:
        """Directory in which they make it."""
        return os.path.join(self.generation(generation), HALF_MADE)

    def record(self, generation: str) -> str:
        """Path of what is known of a generation (``release.json``)."""
        return os.path.join(self.generation(generation), "release.json")

    def private_socket(self, generation: str) -> str:
        return os.path.join(self.run, generation + ".sock")

    def worker_states(self, generation: str) -> str:
        """Directory in which each worker of a generation says what it is doing."""
        return os.path.join(self.run, generation)

    def standby_request(self, generation: str) -> str:
        """File that tells a live generation to stand by again; systemd removes it with the generation's directory."""
        return os.path.join(self.worker_states(generation), STANDBY_REQUEST)

    def service(self, generation: str) -> str:
        return f"{self.app}@{generation}.service"

    def socket(self, generation: str) -> str:
        return f"{self.app}@{generation}.socket"

    def target(self, generation: str) -> str:
        """Starts a generation's web process and its other processes."""
        return f"{self.app}@{generation}.target"

    def processes(self, generation: str) -> list[str]:
        """Units of a generation's other processes: services that run, timers, and services that a timer starts."""
        try:
            names = os.listdir(os.path.join(self.generation(generation), "units"))
        except OSError:
            return []
        return sorted(name for name in names if name.startswith(f"{self.app}.") and f"@{generation}." in name)

    def live(self) -> str:
        """Id of the generation that ``current`` names; empty when there is none."""
        try:
            return os.path.basename(os.readlink(self.current))
        except OSError:
            return ""

    def point_current(self, generation: str) -> str:
        """Make a generation live, with one rename(2): whoever reads ``current`` sees the one before or this one.

        :returns: where what was no link has gone; empty when there was nothing of the kind.
        """
        temporary, aside = f"{self.current}.tmp", ""
        set_aside(temporary)
        if os.path.lexists(temporary):
            os.unlink(temporary)  # of a rollout that was killed here
        if os.path.lexists(self.current) and not os.path.islink(self.current):
            aside = f"{self.current}.found-{int(time.time())}"
            os.rename(self.current, aside)
        os.symlink(os.path.join("generations", generation), temporary)
        os.rename(temporary, self.current)
        sync_directory(self.home)
        return aside

    def read_record(self, generation: str) -> GenerationRecord:
        """What is known of a generation; without a state when it is absent, half-made or unreadable."""
        return GenerationRecord.from_dict(read_json(self.record(generation)))

    def kernel_lock(self, name: str) -> str:
        """Path for :func:`exclusive.exclusive_lock`, by what is done while it is held."""
        return os.path.join(self.locks, name)


def twin_of(generation: str) -> str:
    """Id of the generation that takes over from this one in a refresh; of a twin that is the first one's again."""
    return generation[: -len(TWIN)] if generation.endswith(TWIN) else generation + TWIN


def read_json(path: str) -> object:
    """What a JSON file holds; None when it is absent, half-made or unreadable."""
    try:
        return json.loads(read_file(path))
    except (OSError, ValueError, RecursionError):
        return None


def read_file(path: str) -> bytes:
    """Content of a file; of one that is larger than :data:`LARGEST` its end.

    :raises OSError: when there is none, or when it is something else: a pipe would be waited for.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as handle:
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        handle.seek(max(0, handle.seek(0, os.SEEK_END) - LARGEST))
        return handle.read()


def set_aside(path: str) -> str:
    """Rename what is in the way of a file, and return its new path; empty when nothing is, or a file is there."""
    if not os.path.lexists(path) or os.path.isfile(path):
        return ""
    aside = f"{path}.found-{int(time.time())}"
    os.rename(path, aside)
    return aside


def write_atomically(path: str, content: bytes, mode: int, uid: int = 0, gid: int = 0) -> None:
    """Replace ``path`` so that a reader, or a power cut, finds the old content or the new, never a part.

    What is no file and in its place is set aside.

    :raises OSError: naming the file, when the host refuses it; what was there is as it was.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fchmod(handle.fileno(), mode)
            os.fchown(handle.fileno(), uid, gid)
            os.fsync(handle.fileno())
        set_aside(path)
        os.rename(temporary, path)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = path
        raise
    sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """Make renames in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
