# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Keep secrets out of what is shown: output of commands and journals may repeat an environment value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

MASK = "********"
# Below this length a value ("1", "true", "8000") is no secret and masking it would garble every message.
SHORTEST_SECRET = 6
SECRET_NAME = re.compile(r"SECRET|PASSW|TOKEN|KEY|CREDENTIAL|PRIVATE|DSN|SALT|AUTH", re.IGNORECASE)


def secrets_of(environment: dict[str, str]) -> list[str]:
    """Strings of an environment that must not be shown: passwords in URLs, and values with a secret's name;
    also those inside of JSON.

    Longest first, so that a secret that contains another is masked whole.
    """
    found: set[str] = set()
    for name, value in environment.items():
        for path, text in strings_in(name, value):
            password = url_password(text)
            if password:
                found.update((password, unquote(password), text))
            elif SECRET_NAME.search(path):
                found.update((text, json.dumps(text)[1:-1], *(line.strip() for line in text.splitlines())))
    return sorted((secret for secret in found if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)


def strings_in(name: str, value: str) -> Iterator[tuple[str, str]]:
    """The value, and when it is JSON the strings in it, each with the names that lead to it."""
    yield name, value
    if value.lstrip()[:1] in ("{", "["):
        try:
            yield from leaves(name, json.loads(value))
        except (ValueError, RecursionError):
            return


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
