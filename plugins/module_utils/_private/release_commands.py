# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of a release that each host runs once for a generation, and the directories that they make for it.

These lie in the generation, and over the release's own wherever something of the generation runs: so they change, roll back and go
with it, while the release stays what was built. Only the commands may write there, and only until they have ended.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from typing import Any

from .complete import is_complete, mark_complete
from .errors import STILL_SERVES, StageError
from .layout import Layout
from .migration import run
from .transient import Transient, TransientError, sandbox

COMMAND_SECONDS = 900  # as the specification of the role service says


class ReleaseCommands:
    """
    :param commands: what the user has written, in order.
    :param paths: directories, relative to the release, that the commands write.
    """

    def __init__(self, layout: Layout, generation: str, release: str, commands: list[str], paths: list[str]) -> None:
        self.layout = layout
        self.generation = generation
        self.release = layout.release(release)
        self.commands = commands
        self.paths = paths
        self.made = layout.made(generation)
        self.half_made = layout.half_made(generation)
        # Of this process alone: the commands of one that was killed may be at work still, and keep the directory that they were given.
        self.incoming = os.path.join(self.half_made, str(os.getpid()))

    def are_done(self) -> bool:
        """Have they run to their end, and is what they made as they left it?"""
        return not self.commands or is_complete(self.made)

    def make_places(self) -> None:
        """Make the directories of the release that what is made will lie over.

        :raises StageError: when the release has something else there.
        """
        top = os.path.realpath(self.release)
        for path in self.paths:
            place = os.path.join(top, path)
            try:
                if os.path.realpath(place) != place:
                    raise FileExistsError
                os.makedirs(place, mode=0o755, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise StageError(
                    f"forge_release_paths: {path} is a file or a link in the release, and not a directory: name another place. "
                    f"{STILL_SERVES}"
                ) from None

    def run(self) -> None:
        """Run them, as the service would be run, and let what they made count. What is live keeps what it has until then.

        :raises StageError: naming the command that fails.
        """
        shutil.rmtree(self.half_made, ignore_errors=True)
        try:
            transient = Transient(self.layout, self.generation, writable=self.incoming)
            user, group = owner(transient)
            for path in self.paths:
                target = os.path.join(self.incoming, path)
                shutil.copytree(os.path.join(self.release, path), target, symlinks=True)
                for each in walk(target):
                    os.lchown(each, user, group)
            result: dict[str, Any] = {"seconds": 0, "lines": []}
            for command in self.commands:
                run(transient, command, COMMAND_SECONDS, result)
            self.put_in_place(group)
        except TransientError as error:
            raise StageError(f"forge_release_commands: {error} {STILL_SERVES}") from None
        finally:
            shutil.rmtree(self.half_made, ignore_errors=True)

    def put_in_place(self, group: int) -> None:
        """Give what was made to root, and move it to its place.

        The directories there stay the same ones, with other contents: where the generation runs they are mounted.
        """
        os.makedirs(self.made, mode=0o755, exist_ok=True)
        for path in self.paths:
            source, target = os.path.join(self.incoming, path), os.path.join(self.made, path)
            for each in walk(source):
                close(each, group)
            os.makedirs(target, exist_ok=True)
            for name in os.listdir(target):
                remove(os.path.join(target, name))
            for name in os.listdir(source):
                os.rename(os.path.join(source, name), os.path.join(target, name))
            os.lchown(target, 0, group)
            os.chmod(target, stat.S_IMODE(os.stat(source).st_mode))
        mark_complete(self.made)


def owner(transient: Transient) -> tuple[int, int]:
    """Ids of the user and the group that the service runs as."""
    directives = dict(line.split("=", 1) for line in sandbox(transient.unit, transient.generation))
    return pwd.getpwnam(directives["User"]).pw_uid, grp.getgrnam(directives["Group"]).gr_gid


def walk(top: str) -> Iterator[str]:
    """A directory, and all that is below it; no link is followed."""
    yield top
    for parent, directories, names in os.walk(top):
        yield from (os.path.join(parent, name) for name in [*directories, *names])


def close(path: str, group: int) -> None:
    """Let nobody but root write; the service, by its group, reads and executes what it could before."""
    os.lchown(path, 0, group)
    mode = os.lstat(path).st_mode
    if not stat.S_ISLNK(mode):
        os.chmod(path, (mode & 0o755) | ((mode & 0o500) >> 3))


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
