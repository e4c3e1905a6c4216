# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment file: systemd's EnvironmentFile format, written so that every value arrives as it was.

Rules from systemd, src/basic/env-file.c (parse_env_file_internal): within double quotes a backslash
escapes only ``"``, ``\\``, a backtick and ``$``; a newline stands for itself; nothing is expanded.
"""

from __future__ import annotations

import json
import re
from typing import Any

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*\Z")
ESCAPED = re.compile(r'(["\\`$])')


# Of Linux (execve(2)): MAX_ARG_STRLEN with the name and the byte after it, and a quarter of the stack for all, less what
# the units set themselves.
LONGEST = 128 << 10
LARGEST = (2 << 20) - (128 << 10)


class UnwritableError(ValueError):
    """One sentence that names the variable and never its value."""


def as_text(name: str, value: Any) -> str:
    """A value as pydantic-settings reads it: strings as they are, the rest as JSON.

    :raises UnwritableError: for a value that cannot be put into an environment.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        raise UnwritableError(f"{name} has no value: give it one, or leave it out (an empty string is '').")
    if isinstance(value, str):
        return check_text(name, str(value))
    if isinstance(value, (int, float)):
        return str(value)
    try:
        return check_text(name, json.dumps(value, ensure_ascii=False))
    except TypeError:
        raise UnwritableError(f"{name} must be a string, number, boolean, list or mapping.") from None


def check_text(name: str, text: str) -> str:
    """systemd drops an assignment with other control characters or non-characters, and only warns.

    Source: systemd, src/basic/env-util.c (env_value_is_valid), src/basic/utf8.c (unichar_is_valid).
    """
    for character in text:
        code = ord(character)
        control = (code < 0x20 and character not in "\t\n") or code == 0x7F
        surrogate = 0xD800 <= code <= 0xDFFF
        noncharacter = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
        if control or surrogate or noncharacter:
            raise UnwritableError(f"{name} contains the character U+{code:04X}, which systemd does not pass on.")
    return text


def write_environment(variables: dict[str, Any], prefix: str = "") -> str:
    """Text of an environment file: a line a variable, sorted, each value in double quotes.

    :raises UnwritableError: naming the variable that cannot be written, without its value.
    """
    texts = {}
    for name, value in variables.items():
        full = full_name(name, prefix)
        texts[full] = as_text(full, value)
    sizes = {name: len(f"{name}={text}".encode()) + 1 for name, text in texts.items()}
    largest = max(sizes, key=lambda name: sizes[name], default="")
    if largest and sizes[largest] > LONGEST:
        raise UnwritableError(
            f"{largest} has {sizes[largest]} bytes, and a variable of the environment can have {LONGEST}: give it as a file, with "
            "forge_files."
        )
    if sum(sizes.values()) > LARGEST:
        raise UnwritableError(
            f"all variables together have {sum(sizes.values())} bytes, and an environment can have {LARGEST}: give the largest, "
            f"{largest}, as a file, with forge_files."
        )
    return "".join('{}="{}"\n'.format(name, ESCAPED.sub(r"\\\1", texts[name])) for name in sorted(texts))


def full_name(name: Any, prefix: str = "") -> str:
    """:raises UnwritableError: for a name that cannot be one of a variable, or that YAML has read as something else."""
    if not isinstance(name, str):
        raise UnwritableError(
            f"a name is {name}, which is how YAML reads NO, ON, a number and the like without quotes: put it in quotes."
        )
    if not NAME.match(prefix + name):
        raise UnwritableError(
            f"{prefix + name!r} is not a name for an environment variable: use letters, digits and _."
        )
    return prefix + name


def read_environment(text: str) -> dict[str, str]:
    """The inverse of :func:`write_environment`."""
    found = re.findall(r'^(\w+)="((?:[^"\\]|\\.)*)"\n', text, re.MULTILINE | re.DOTALL)
    return {name: re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) for name, value in found}
