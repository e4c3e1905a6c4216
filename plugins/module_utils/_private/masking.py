# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep secrets out of what is shown: output of commands and journals may repeat an environment value."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

from .environment import read_environment
from .settings import read_settings

MASK = "********"
# Below this length a value ("1", "true", "8000") is no secret and masking it would garble every message.
SHORTEST_SECRET = 6
SECRET_NAME = re.compile(r"SECRET|PASSW|TOKEN|KEY|CREDENTIAL|PRIVATE|DSN|SALT|AUTH", re.IGNORECASE)
# A line of TOML, YAML or INI that names a value, or the names below it.
SETTING = re.compile(r"""(?P<indent>\s*)(?:- +)?["']?(?P<name>[\w.-]+)["']?\s*[:=](?P<value>.*)""")
SECTION = re.compile(r"\s*\[+(?P<name>[^\]]+)\]+\s*(?:#.*)?")


def secrets_below(home: str) -> list[str]:
    """Secrets of a generation: of its environment, and of its settings files.

    :param home: the generation's directory.
    :raises OSError: when it is not there.
    """
    environment = read_environment(read_settings(home))
    texts = []
    for parent, _directories, names in os.walk(os.path.join(home, "files")):
        for name in names:
            with open(os.path.join(parent, name), encoding="utf-8") as handle:
                texts.append(handle.read())
    return secrets_of(environment, texts)


def secrets_of(environment: dict[str, str], files: Iterable[str] = ()) -> list[str]:
    """Strings that must not be shown: passwords in URLs, and values with a secret's name; also those inside of JSON.

    Longest first, so that a secret that contains another is masked whole.

    :param files: texts of settings files.
    """
    found: set[str] = set()
    settings = [setting for name, value in environment.items() for setting in strings_in(name, value)]
    settings += [setting for text in files for setting in strings_of_file(text)]
    for path, text in settings:
        password = url_password(text)
        if password:
            found.update((password, unquote(password), text))
        elif SECRET_NAME.search(path):
            found.update((text, json.dumps(text)[1:-1], *(line.strip() for line in text.splitlines())))
    return sorted((secret for secret in found if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)


def holds_secret(name: str, value: str) -> bool:
    """Is a setting a secret, or is one in it? Also one that is too short to be masked."""
    return any(url_password(text) or SECRET_NAME.search(path) for path, text in strings_in(name, value))


def strings_in(name: str, value: str) -> Iterator[tuple[str, str]]:
    """The value, and when it is JSON the strings in it, each with the names that lead to it."""
    yield name, value
    if value.lstrip()[:1] in ("{", "["):
        try:
            yield from leaves(name, json.loads(value))
        except (ValueError, RecursionError):
            return


def strings_of_file(text: str) -> Iterator[tuple[str, str]]:
    """Values of JSON, or of lines of TOML, YAML or INI, each with the names that lead to it.

    Reads lines and not a language: hosts need not have what parses YAML, and a value too many that is masked does no harm.
    """
    if text.lstrip()[:1] in ("{", "["):
        try:
            yield from leaves("", json.loads(text))
            return
        except (ValueError, RecursionError):
            pass  # a section of TOML or INI begins like that, too
    section, above = "", list[tuple[int, str]]()
    for line in text.splitlines():
        header, setting = SECTION.fullmatch(line), SETTING.match(line)
        if header:
            section, above = header["name"], []
        elif setting:
            indent = len(setting["indent"])
            above = [(column, name) for column, name in above if column < indent]
            path = ".".join([section, *(name for _column, name in above), setting["name"]])
            above.append((indent, setting["name"]))
            value = setting["value"].strip().rstrip(",").strip()
            quoted = re.match(r"""(["'])(.*?)\1\s*(#.*)?$""", value)
            yield path, quoted[2] if quoted else re.sub(r"\s+#.*", "", value)
        elif line.strip():  # an item of a list, or a line of a text
            yield ".".join([section, *(name for _column, name in above)]), line.strip(" \t-,\"'")


def leaves(path: str, node: object) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield from leaves(f"{path}.{key}", child)
    elif isinstance(node, list):
        for child in node:
            yield from leaves(path, child)
    elif isinstance(node, str):
        yield path, node


def url_password(value: str) -> str:
    """Password in a URL such as ``postgresql://user:password@host/name``; empty when there is none."""
    if "://" not in value:
        return ""
    try:
        return urlsplit(value).password or ""
    except ValueError:
        return ""


def mask(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text
