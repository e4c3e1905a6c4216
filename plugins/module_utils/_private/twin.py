# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a twin of what serves beside it: the same code, dependencies, settings and units under another id."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable

from . import systemd
from .command import run
from .complete import mark_complete
from .errors import StageError
from .exclusive import LockHeld, exclusive_lock
from .generations import Generations
from .layout import HALF_MADE, MADE, Layout, read_file, twin_of, write_atomically
from .records import GenerationRecord
from .serving import serving_generation


def record_of_live(layout: Layout) -> tuple[str, GenerationRecord]:
    """Id and record of the generation that serves.

    :raises StageError: when there is none, or it is not known what it is.
    """
    live = serving_generation(layout)
    if not live:
        raise StageError("Nothing was ever released on this host: there is nothing to refresh. Run site.yml.")
    record = layout.read_record(live)
    if not record.state:
        raise StageError(
            f"{layout.record(live)} cannot be read, so nothing is refreshed: run site.yml, which mends it."
        )
    return live, record


def make_twin(layout: Layout) -> None:
    """Write the twin of what serves, its record last. Nothing that serves is touched.

    :raises StageError: as :func:`record_of_live`, or when another run is staging here.
    :raises OSError: when a file cannot be read or written.
    """
    live, record = record_of_live(layout)
    twin = twin_of(live)
    try:
        with exclusive_lock(layout.kernel_lock("stage")):
            copy_generation(layout, live, twin)
            systemd.systemctl("daemon-reload")
            Generations(layout).write_record(
                twin, dataclasses.replace(record, generation=twin, state="validated", reason="")
            )
    except LockHeld:
        raise StageError(
            f"Another deploy is staging {layout.app} on this host right now; run again when it is done."
        ) from None


def copy_generation(
    layout: Layout, source: str, twin: str, rewrite: Callable[[str, bytes], bytes] = lambda _name, content: content
) -> None:
    """Copy the files of a generation, but for its record, under another id, and its units to where systemd reads them.

    What its release's commands have made is the same files, under further names.

    :param rewrite: gets the path of a file in the generation and its content, and returns that of the copy.
    :raises OSError: when a file cannot be read or written.
    """
    home, target = layout.generation(source), layout.generation(twin)
    for path in files_below(home):
        inside = os.path.relpath(path, home)
        if path == layout.record(source) or inside.split(os.sep)[0] in (MADE, HALF_MADE):
            continue
        content = rewrite(inside, read_file(path))
        name = os.path.join(os.path.dirname(inside), os.path.basename(inside).replace(f"@{source}.", f"@{twin}."))
        write_like(path, os.path.join(target, name), content)
        if f"@{twin}." in name:
            write_like(path, os.path.join(layout.units, os.path.basename(name)), content)
    link_made(layout, source, twin)


def link_made(layout: Layout, source: str, twin: str) -> None:
    """:raises OSError: when what was made for a generation cannot be had by its twin."""
    made, target = layout.made(source), layout.made(twin)
    if not os.path.isdir(made):
        return
    shutil.rmtree(target, ignore_errors=True)
    done = run(["cp", "--archive", "--link", made, target])
    if done.returncode != 0:
        raise OSError(errno.EIO, done.stderr.strip(), target)
    mark_complete(target)


def files_below(directory: str) -> list[str]:
    """Files of a generation; what Python compiles of them is not among them."""
    return [
        os.path.join(parent, name)
        for parent, _directories, names in os.walk(directory)
        for name in names
        if os.path.basename(parent) != "__pycache__"
    ]


def write_like(source: str, target: str, content: bytes) -> None:
    """Write a file with the mode and the owner of another one."""
    state = os.stat(source)
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    write_atomically(target, content, state.st_mode & 0o7777, state.st_uid, state.st_gid)
