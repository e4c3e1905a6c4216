# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are on a host (docs/design.md, "On a host"). The one place that knows the paths."""

from __future__ import annotations

import json
import os
import re
import time

from .records import GenerationRecord, LockHolder

STANDBY_REQUEST = "stand-by"  # as in roles/service/files/forge_server.py
GENERATION_ID = re.compile(r"^[0-9a-f]{12}-[0-9a-f]{8}\Z")


class Layout:
    """Paths of one app below one root.

    ``root``: directory that holds all apps, e.g. ``/srv``; ``app``: the app's name, e.g. ``forge``.
    """

    def __init__(self, root: str, app: str, units: str = "/etc/systemd/system", run: str = "/run") -> None:
        self.app = app
        self.home = os.path.join(root, app)
        self.units = units
        self.run = os.path.join(run, app)
        self.layers = os.path.join(self.home, "layers")
        self.releases = os.path.join(self.home, "releases")
        self.generations = os.path.join(self.home, "generations")
        self.current = os.path.join(self.home, "current")
        self.ledger = os.path.join(self.home, "ledger.jsonl")
        self.lock = os.path.join(self.home, "lock.json")

    def layer(self, layer: str) -> str:
        return os.path.join(self.layers, layer)

    def release(self, release: str) -> str:
        return os.path.join(self.releases, release)

    def generation(self, generation: str) -> str:
        return os.path.join(self.generations, generation)

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

    def lock_holder(self) -> LockHolder | None:
        """Who holds the lock on this host; None when nobody does, or when it has expired."""
        holder = LockHolder.from_dict(read_json(self.lock))
        return holder if holder.expires > time.time() else None


def read_json(path: str) -> object:
    """What a JSON file holds; None when it is absent, half-made or unreadable."""
    try:
        with open(path, encoding="utf-8") as handle:
            return json.load(handle)
    except (OSError, ValueError, RecursionError):
        return None


def write_atomically(path: str, content: bytes, mode: int, uid: int = 0, gid: int = 0) -> None:
    """Replace ``path`` so that a reader, or a power cut, finds the old content or the new, never a part."""
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fchmod(handle.fileno(), mode)
            os.fchown(handle.fileno(), uid, gid)
            os.fsync(handle.fileno())
        os.rename(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """Make renames in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
