# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate that could not serve is refused on the controller, and nothing of its key is said."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.thecodeforge.fastapi.plugins.filter.edge_certificate import edge_certificate
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.certificates import (
    CertificateError,
    whole_pem,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = dt.datetime.now(dt.UTC)


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes = b"") -> str:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden).decode()


KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def certificate(*names: str, begins: float = -1, ends: float = 30) -> str:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.example")])
    built = x509.CertificateBuilder(subject, subject, KEY.public_key(), 7)
    built = built.not_valid_before(NOW + dt.timedelta(days=begins)).not_valid_after(NOW + dt.timedelta(days=ends))
    if names:
        built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    return built.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


GOOD = certificate("shop.example", "*.shop.example")


@pytest.mark.parametrize("names", [[], ["shop.example"], ["a.shop.example", "*.shop.example"]])
def test_what_belongs_together_is_one_text(names: list[str], tmp_path: Path) -> None:
    assert whole_pem(GOOD, key_pem(KEY), names) == GOOD + key_pem(KEY)
    (tmp_path / "shop.pem").write_text(GOOD)
    (tmp_path / "shop.key").write_text(key_pem(KEY))
    assert whole_pem(str(tmp_path / "shop.pem"), str(tmp_path / "shop.key"), names) == GOOD + key_pem(KEY)
    assert whole_pem(GOOD.strip(), key_pem(KEY).strip(), names) == GOOD + key_pem(KEY)


@pytest.mark.parametrize(
    ("given", "key", "names", "sentence"),
    [
        (GOOD, key_pem(OTHER), [], "forge_edge_key is not the key of forge_edge_certificate"),
        (certificate("shop.example", begins=-9, ends=-2), key_pem(KEY), [], "forge_edge_certificate has expired on"),
        (certificate("shop.example", begins=2), key_pem(KEY), [], "forge_edge_certificate is not valid before"),
        (GOOD, key_pem(KEY), ["shop.example", "blog.example"], "forge_edge_certificate is not for blog.example, which"),
        (GOOD, key_pem(KEY), ["a.b.shop.example"], "forge_edge_certificate is not for a.b.shop.example"),
        (certificate(), key_pem(KEY), ["shop.example"], "forge_edge_certificate is not for shop.example"),
        ("-----BEGIN x", key_pem(KEY), [], "forge_edge_certificate holds no certificate"),
        (GOOD, GOOD, [], "forge_edge_key holds no private key"),
        (GOOD, key_pem(KEY, b"pass"), [], "forge_edge_key is encrypted"),
        ("/nowhere/shop.pem", key_pem(KEY), [], "forge_edge_certificate: /nowhere/shop.pem on the controller cannot be read (No such"),
        (GOOD, "nul\0", [], "forge_edge_key: nul\0 on the controller cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_serve_is_a_sentence(given: str, key: str, names: list[str], sentence: str) -> None:
    with pytest.raises(CertificateError) as caught:
        whole_pem(given, key, names)
    assert str(caught.value).startswith(sentence)
    assert "PRIVATE" not in str(caught.value)


def test_the_filter_says_the_same() -> None:
    assert edge_certificate(GOOD, key_pem(KEY), ["SHOP.example"]).startswith(GOOD)
    with pytest.raises(AnsibleFilterError, match="forge_edge_key is not the key"):
        edge_certificate(GOOD, key_pem(OTHER))
