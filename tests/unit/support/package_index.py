# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A package index of a few small packages, made and served here."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import io
import ssl
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# A build backend in the sdist itself, so that building needs no other package.
BACKEND = """
import os, zipfile

def get_requires_for_build_wheel(config_settings=None):
    open("left-behind", "w").close()
    return {asks!r}

def build_wheel(directory, config_settings=None, metadata_directory=None):
    if not {builds!r}:
        raise SystemExit("no compiler here")
    name = "{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(directory + "/" + name, "w") as wheel:
        for path, text in {files!r}.items():
            wheel.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), text)
    return name
"""


def wheel_files(name: str, version: str, requires: Sequence[str], tag: str, extra: dict[str, str]) -> dict[str, str]:
    stem = f"{name.replace('-', '_')}-{version}.dist-info"
    extras = {each.split("extra == '")[1].split("'")[0] for each in requires if "extra ==" in each}
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Provides-Extra: {each}\n" for each in sorted(extras))
    metadata += "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {f"{name.replace('-', '_')}.py": f"__version__ = {version!r}\n", **extra}
    files[f"{stem}/METADATA"] = metadata
    files[f"{stem}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
    record = "".join(f"{path},sha256={sha(text)},{len(text.encode())}\n" for path, text in files.items())
    files[f"{stem}/RECORD"] = f"{record}{stem}/RECORD,,\n"
    return files


def sha(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


class PackageIndex:
    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, file: str, content: bytes) -> str:
        directory = self.root / "simple" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / file).write_bytes(content)
        links = [
            f'<a href="{html.escape(each.name)}#sha256={hashlib.sha256(each.read_bytes()).hexdigest()}">{each.name}</a>'
            for each in sorted(directory.iterdir())
            if each.name != "index.html"
        ]
        (directory / "index.html").write_text("<!DOCTYPE html><html><body>" + "\n".join(links) + "</body></html>")
        return hashlib.sha256(content).hexdigest()

    def wheel(
        self,
        name: str,
        version: str,
        requires: Sequence[str] = (),
        tag: str = "py3-none-any",
        **extra: str,
    ) -> str:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as wheel:
            for path, text in wheel_files(name, version, requires, tag, extra).items():
                wheel.writestr(path, text)
        return self.put(name, f"{name.replace('-', '_')}-{version}-{tag}.whl", buffer.getvalue())

    def sdist(
        self, name: str, version: str, tag: str = "py3-none-any", requires: Sequence[str] = (),
        asks: Sequence[str] = (), builds: bool = True,
    ) -> str:  # fmt: skip
        """A source.

        :param requires: what building needs.
        :param asks: what the backend says that it needs.
        """
        files = {
            "pyproject.toml": f'[build-system]\nrequires = {list(requires)!r}\nbuild-backend = "backend"\n'
            'backend-path = ["."]\n',
            "backend.py": BACKEND.format(
                name=name,
                version=version,
                tag=tag,
                files=wheel_files(name, version, [], tag, {}),
                asks=list(asks),
                builds=builds,
            ),
            "PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n",
        }
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path, text in files.items():
                entry = tarfile.TarInfo(f"{name}-{version}/{path}")
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
        return self.put(name, f"{name}-{version}.tar.gz", buffer.getvalue())


class Quiet(SimpleHTTPRequestHandler):
    login = ""

    def log_message(self, format: str, *arguments: object) -> None: ...

    def do_GET(self) -> None:
        known = f"Basic {base64.b64encode(self.login.encode()).decode()}"
        if self.login and self.headers["Authorization"] != known:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.end_headers()
            return
        super().do_GET()


@contextmanager
def served(root: Path, login: str = "", tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """:param login: ``user:password`` that it asks for."""
    handler = type("Guarded", (Quiet,), {"login": login})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(root)))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
