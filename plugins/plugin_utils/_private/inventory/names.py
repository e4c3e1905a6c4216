# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables that no role declares. Ansible passes over a misspelt one in silence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path


def unknown_names(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return a sentence for each name that is not known, with the known one that is nearest to it."""
    known = list(known)
    problems = []
    for name in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        hint = f" (did you mean {near[0]}?)" if near else ""
        problems.append(f"{name} is not a variable of this collection{hint}.")
    return problems


def no_inventories(sources: Iterable[str], alone: Iterable[str], grouped: Iterable[str]) -> list[str]:
    """Return a sentence for each file that Ansible has read as a list of hosts although it seems to be none.

    In a directory that is an inventory it reads every file, such as that of the vault's password. The names that it takes from there
    are not repeated: they may be secrets.

    :param sources: what ``-i`` or the configuration names.
    :param alone: files of the hosts that are in no group.
    :param grouped: files of the others.
    """
    directories = {Path(source).resolve() for source in sources if Path(source).is_dir()}
    strays = {Path(file).resolve() for file in alone if file} - {Path(file).resolve() for file in grouped if file}
    return [
        f"{path} lies in the directory of the inventory, so Ansible takes what it holds for hosts, which are in no group and left "
        "alone: put it elsewhere, or put its hosts into groups."
        for path in sorted(strays)
        if path.parent in directories
    ]


def prefix_hints(problems: Iterable[str], given: Iterable[str], prefix: str) -> list[str]:
    """Return a sentence for each setting that an app misses although it was given, with another prefix than the app's.

    :param problems: sentences of :mod:`app_check`.
    :param given: names in the environment, those of ``forge_environment`` with the prefix.
    :param prefix: ``forge_environment_prefix``.
    """
    given = set(given)
    hints = []
    for missing in (found[1] for problem in problems for found in re.finditer(r"(\w+) is missing", problem)):
        plain = missing.removeprefix(prefix)
        ends = [name for name in given if prefix and name.startswith(prefix) and missing.endswith(name[len(prefix) :])]
        if prefix and plain != missing and prefix + missing in given:
            hints.append(
                f"{prefix + missing} is there: forge_environment_prefix ({prefix}) is put before each name in "
                f"forge_environment, so call it {plain} there."
            )
        elif plain != missing and plain in given:
            hints.append(f"{plain} is there without {prefix}: call it {missing} in forge_environment_plain.")
        elif ends:
            longest = max(ends, key=len)
            fits = missing[: len(missing) - len(longest) + len(prefix)]
            hints.append(
                f"{longest} is there: forge_environment_prefix is {prefix}, and for the app it must be {fits!r}."
            )
    return hints
