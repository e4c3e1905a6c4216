# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate and its key, as an inventory gives them: what they are, and what is wrong with them.

cryptography, which ansible-core brings, is imported where a certificate is read: it takes 0.05 s, and most have none.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

BEGIN = "-----BEGIN"


class CertificateError(Exception):
    """Raised when a certificate cannot be used; the text is a sentence, without anything of a key."""


def pem_text(variable: str, value: str) -> str:
    """PEM that is given as such, or as the path of a file on the controller.

    :raises CertificateError: when the file cannot be read.
    """
    if BEGIN in value:
        return value if value.endswith("\n") else f"{value}\n"
    try:
        return Path(value).expanduser().read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = getattr(error, "strerror", "") or "is no PEM"
        raise CertificateError(
            f"{variable}: {value} on the controller cannot be read ({why}): give the path of a PEM file, or its content."
        ) from None


def covers(certificate: x509.Certificate, name: str) -> bool:
    """Whether a certificate is for a name, of a host or with ``*.`` for all below."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.DNSName
        )
    except x509.ExtensionNotFound:
        return False
    known = {each.lower() for each in names}
    return name in known or (not name.startswith("*.") and f"*.{name.partition('.')[2]}" in known)


def valid(certificate: x509.Certificate) -> tuple[dt.datetime, dt.datetime]:
    """When a certificate begins to be valid, and ends."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return certificate.not_valid_before.replace(tzinfo=dt.UTC), certificate.not_valid_after.replace(
        tzinfo=dt.UTC
    )  # before 42


def whole_pem(certificate: str, key: str, names: Iterable[str], now: dt.datetime | None = None) -> str:
    """Certificate, chain and key in one text, as HAProxy takes them.

    :param certificate: a PEM, or the path of one, with the chain behind it; so is ``key``.
    :param names: of the app.
    :raises CertificateError: when they do not belong together, have no time left, or are not for a name.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    now = now or dt.datetime.now(dt.UTC)
    chain_text, key_text = pem_text("forge_edge_certificate", certificate), pem_text("forge_edge_key", key)
    try:
        first = x509.load_pem_x509_certificate(chain_text.encode())
    except ValueError:
        raise CertificateError(
            "forge_edge_certificate holds no certificate: it must be a PEM, the chain behind it."
        ) from None
    try:
        private = load_pem_private_key(key_text.encode(), None)
    except TypeError:
        raise CertificateError(
            "forge_edge_key is encrypted, and HAProxy could not read it: take the password off it."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("forge_edge_key holds no private key: it must be a PEM.") from None
    encoding = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*encoding) != first.public_key().public_bytes(*encoding):
        raise CertificateError(
            "forge_edge_key is not the key of forge_edge_certificate: give the two that belong together."
        )
    begins, ends = valid(first)
    if ends <= now:
        raise CertificateError(f"forge_edge_certificate has expired on {ends:%Y-%m-%d}: give a new one.")
    if begins > now:
        raise CertificateError(
            f"forge_edge_certificate is not valid before {begins:%Y-%m-%d %H:%M} UTC: give one that is."
        )
    missed = [name for name in names if not covers(first, name)]
    if missed:
        raise CertificateError(
            f"forge_edge_certificate is not for {', '.join(missed)}, which forge_edge_names has: give one for all."
        )
    return chain_text + key_text
