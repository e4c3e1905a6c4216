# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a generation would change of what serves, for people: before and after, as Ansible's ``--diff`` shows it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from .environment import read_environment
from .layout import HALF_MADE, MADE, read_file
from .records import GenerationRecord
from .settings import FILE, SEALED, read_settings

Texts = Mapping[str, str]  # path in the directory of a generation, to what the file says
HIDDEN, CHANGED = "(not shown)", "(not shown, changed)"
# Of the record: what a person has decided, or has to know. The rest is in the files, or no difference.
DECIDED = (
    "release",
    "commit",
    "layer",
    "target",
    "server",
    "worker_class",
    "listen",
    "workers",
    "release_commands",
    "release_paths",
)


def differences(before: Texts, after: Texts, public: set[str], names: tuple[str, str]) -> list[dict[str, str]]:
    """Each file that is another, as Ansible takes it.

    :param public: files that may be shown, as may units. Of the others no value is; of ``environment`` the names are.
    :param names: what stands before the name of a file, in the one and in the other.
    """
    shown = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, ""), after.get(name, "")
        if old == new:
            continue
        if name not in public and not name.startswith("units" + os.sep):
            old, new = masked(name, old, new)
        headers = {"before_header": names[0] + name, "after_header": names[1] + name}
        shown.append({**headers, "before": old, "after": new})
    return shown


def masked(name: str, before: str, after: str) -> tuple[str, str]:
    """Two texts without their values: an unlike one is said to be changed."""
    if name != FILE:
        return HIDDEN + "\n" if before else "", (CHANGED if before else HIDDEN) + "\n" if after else ""
    old, new = read_environment(before), read_environment(after)
    hidden = {key: CHANGED if key in old and old[key] != value else HIDDEN for key, value in new.items()}
    return lines_of(dict.fromkeys(old, HIDDEN)), lines_of(hidden)


def lines_of(values: Mapping[str, object]) -> str:
    return "".join(f"{key}={value}\n" for key, value in sorted(values.items()))


def decided(record: GenerationRecord) -> str:
    """The record for people."""
    values = record.to_dict()
    shown = {key: ", ".join(values[key]) if isinstance(values[key], list) else values[key] for key in DECIDED}
    return "".join(f"{key}: {value}\n" for key, value in shown.items())


def renamed(texts: Texts, old: GenerationRecord, new: GenerationRecord) -> dict[str, str]:
    """Files of one generation as those of another would be, were nothing else different: ids stand in names and texts."""
    renames = [(getattr(old, key), getattr(new, key)) for key in ("generation", "release", "layer")]
    found = {}
    for name, text in texts.items():
        for before, after in renames:
            if before and after:
                name, text = name.replace(before, after), text.replace(before, after)
        found[name] = text
    return found


def texts_below(directory: str) -> dict[str, str]:
    """Path in the directory of a generation to text of each file there, its record and what was made for it left out."""
    found = {}
    for parent, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in (MADE, HALF_MADE)]
        for name in names:
            path = os.path.join(parent, name)
            if os.path.isfile(path) and path != os.path.join(directory, "release.json"):
                found[os.path.relpath(path, directory)] = read_file(path).decode("utf-8", errors="replace")
    if found.pop(SEALED, None) is not None:
        with suppress(OSError):
            found[FILE] = read_settings(directory)
    return found
