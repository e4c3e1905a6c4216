# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Keep secrets out of what is shown: output of commands and journals may repeat an environment value."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

MASK = "********"
# Below this length a value ("1", "true", "8000") is no secret and masking it would garble every message.
SHORTEST_SECRET = 6
SECRET_NAME = re.compile(r"SECRET|PASSW|TOKEN|KEY|CREDENTIAL|PRIVATE|DSN|SALT|AUTH", re.IGNORECASE)


def secrets_of(environment: dict[str, str]) -> list[str]:
    """Strings of an environment that must not be shown: passwords in URLs, and values with a secret's name.

    Longest first, so that a secret that contains another is masked whole.
    """
    found: set[str] = set()
    for name, value in environment.items():
        password = url_password(value)
        if password:
            found.update((password, unquote(password)))
            found.add(value)
        elif SECRET_NAME.search(name):
            found.add(value)
            found.update(line.strip() for line in value.splitlines())
    return sorted((secret for secret in found if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)


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
