"""Cursors of paged lists: signed, so that clients take them as they are and do not build their own.

Every host that has the same secret key accepts them. A new key makes those in use invalid.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

CURSOR_PATTERN = "^[A-Za-z0-9_-]{32}$"  # 8 bytes of id, 16 bytes of signature


def signature(key: str, place: bytes) -> bytes:
    return hmac.digest(key.encode(), b"cursor" + place, "sha256")[:16]


def cursor_at(last_id: int, key: str) -> str:
    """A cursor for what comes after that id."""
    place = last_id.to_bytes(8)
    return urlsafe_b64encode(place + signature(key, place)).decode()


def id_at(cursor: str, key: str) -> int | None:
    """The id of a cursor that matches :data:`CURSOR_PATTERN`; none when its signature is wrong."""
    content = urlsafe_b64decode(cursor)
    place, signed = content[:8], content[8:]
    return int.from_bytes(place) if hmac.compare_digest(signed, signature(key, place)) else None
