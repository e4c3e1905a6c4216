# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""An authority of our own, a web server whose certificate it signed, and a proxy that says what it was asked for."""

from __future__ import annotations

import datetime
import secrets
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Resolves nowhere: only the proxy knows where it is. A new one each time, as uv and pip remember what was there.
NAME = f"packages-{secrets.token_hex(4)}.invalid"
PEM, PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()


@dataclass(frozen=True)
class Authority:
    """Files in PEM: its own certificate, and the certificate and key of the server."""

    bundle: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_authority(directory: Path) -> Authority:
    """One that nobody else knows, and a certificate of it for 127.0.0.1 and NAME."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _each in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("Own authority", NAME)]

    def signed(index: int, *extensions: tuple[x509.ExtensionType, bool]) -> bytes:
        builder = x509.CertificateBuilder(names[0], names[index], keys[index].public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=30))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(keys[0], hashes.SHA256()).public_bytes(PEM)

    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    own = signed(0, (x509.BasicConstraints(True, None), True), (usage, True),
                 (x509.SubjectKeyIdentifier.from_public_key(keys[0].public_key()), False))  # fmt: skip
    where = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ip_address("127.0.0.1"))])
    server = signed(1, (where, False), (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
                    (x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), False))  # fmt: skip
    key = keys[1].private_bytes(PEM, serialization.PrivateFormat.PKCS8, PLAIN)
    found = Authority(directory / "bundle.pem", directory / "server.pem", directory / "server.key")
    for path, content in ((found.bundle, own), (found.certificate, server), (found.key, key)):
        path.write_bytes(content)
    return found


@dataclass
class Proxy:
    """A forward proxy. Whatever name it is asked for, it goes to one port of this machine."""

    to: int
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def proxied(to: int) -> Iterator[Proxy]:
    proxy = Proxy(to)

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            proxy.asked.append(f"CONNECT {self.path}")
            with socket.create_connection(("127.0.0.1", proxy.to), 10) as other:
                self.send_response(200)
                self.end_headers()
                pump(self.connection, other)

        def do_GET(self) -> None:
            proxy.asked.append(f"{self.command} {self.path}")
            address = urlsplit(self.path)
            with socket.create_connection(("127.0.0.1", proxy.to), 10) as other:
                path = f"{address.path}?{address.query}".rstrip("?")
                other.sendall(f"{self.command} {path} HTTP/1.0\r\nHost: {address.netloc}\r\n\r\n".encode())
                while content := other.recv(65536):
                    self.wfile.write(content)
            self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: object) -> None: ...

    server: socketserver.TCPServer = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


def pump(one: socket.socket, other: socket.socket) -> None:
    """Copy both ways until one side ends."""
    while True:
        ready, _write, _errors = select.select([one, other], [], [], 30)
        if not ready:
            return
        for each in ready:
            content = each.recv(65536)
            if not content:
                return
            (other if each is one else one).sendall(content)
