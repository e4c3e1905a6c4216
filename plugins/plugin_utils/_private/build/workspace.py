# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a build keeps what it made, where packages come from, and the tools that fetch them."""

from __future__ import annotations

import base64
import netrc
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache as once
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from . import packaging_library
from .cache import file_digest
from .errors import BuildError

INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
# Where a project names indexes: tool, table, and what the variables with a user and a password begin with.
INDEX_TABLES = (("uv", "index", "UV_INDEX"), ("poetry", "source", "POETRY_HTTP_BASIC"), ("pdm", "source", "PDM"))
OLDEST_UV = (0, 7)  # tried: builds of the reference app and of a source; older ones do not write pylock.toml
SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
CONNECTIONS = "8"  # of uv's 50 each asks the resolver for the same name, and some answers are lost on the way
TIMEOUT = 30  # seconds, as uv has it
USER_INFO = re.compile(r"(?<=://)[^/\s@'\"]+@")
REFUSED = re.compile(r"An index URL \(\S+\) (?:could not be queried|returned)[^.]*?(?:40[137] \w+)\)?")
CREDENTIALS = "give its user and password in forge_build_index_url, in .netrc, or as UV_INDEX_<NAME>_USERNAME and _PASSWORD."
QUERY = re.compile(r"(\w://[^\s?#'\"]+)\?[^\s#'\"]+")


def without_secrets(text: str) -> str:
    """A text with what may be a secret in any URL left out: what stands before the host, and the query."""
    return QUERY.sub(r"\1?***", USER_INFO.sub("***@", text))


def one_line(text: str, length: int = 1500) -> str:
    """A tool's message on one line, without its arrows and bullets.

    Where an index refuses who asks, that alone: uv says first that the index does not have the package.
    """
    said = " ".join(re.sub(r"^\s*[^\w\s('\"`./]+\s", " ", text, flags=re.MULTILINE).split())
    refused = REFUSED.search(said)
    return f"{refused[0]}: {CREDENTIALS}" if refused else said[:length]


def find_uv() -> str:
    """Path of uv: beside the Python that runs Ansible, or on PATH.

    :raises BuildError: when there is none, or it is too old.
    """
    oldest = ".".join(map(str, OLDEST_UV))
    for path in (os.path.join(os.path.dirname(sys.executable), "uv"), shutil.which("uv")):
        if path and os.access(path, os.X_OK):
            version = uv_version(path)
            if tuple(map(int, version.split(".")[:2])) >= OLDEST_UV:
                return path
            raise BuildError(f"The controller's uv ({path}) is {version}, and {oldest} or newer is needed: {INSTALL_UV}.")
    raise BuildError(f"The controller has no uv, and {oldest} or newer is needed: {INSTALL_UV}.")


INSTALL_UV = f"install it beside Ansible ({sys.executable} -m pip install --upgrade uv), or with pipx install uv"


@once
def uv_version(path: str) -> str:
    """Version of a uv, such as 0.8.22; 0.0 when it does not say."""
    done = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout)
    return found[0] if found else "0.0"


@dataclass(frozen=True)
class Workspace:
    """A cache directory, and the package indexes."""

    cache: Path
    index_url: str = ""
    ca_bundle: str = ""
    extra_index_urls: tuple[str, ...] = ()
    proxy: str = ""
    project_index_urls: tuple[str, ...] = ()  # what a project names itself: uv knows them only within the project
    pythons: str = ""  # directory with standalone Pythons, which uv reads a project with

    @classmethod
    def from_arguments(cls, args: dict[str, Any]) -> Workspace:
        """From the arguments of a module, which the documentation fragment package_index describes.

        :raises BuildError: when the controller's Python has no library ``packaging`` that it can import.
        """
        if packaging_library.PROBLEM:
            raise BuildError(
                f"The Python that runs Ansible cannot import packaging ({packaging_library.PROBLEM}): "
                f"{sys.executable} -m pip install --upgrade packaging."
            )
        return cls(
            Path(args["cache"]).expanduser(), args["index_url"], args["ca_bundle"], tuple(args["extra_index_urls"]),
            args["proxy"],
        )  # fmt: skip

    def with_project(self, project: dict[str, Any], requirements: str) -> Workspace:
        """Also with the indexes that a project names: in the tables of uv, Poetry or PDM, or in lines of its requirements.

        Credentials are where those tools have them: ``UV_INDEX_<NAME>_USERNAME`` and ``_PASSWORD``,
        ``POETRY_HTTP_BASIC_<NAME>_…``, and for PDM variables in the URL.
        """
        urls = re.findall(r"^\s*(?:-i|--index-url|--extra-index-url)[ =]\s*(\S+)", requirements, re.MULTILINE)
        for tool, table, prefix in INDEX_TABLES:
            for index in project.get("tool", {}).get(tool, {}).get(table, []):
                name = f"{prefix}_{re.sub(r'[^A-Z0-9]', '_', str(index.get('name', '')).upper())}_"
                user, password = (quote(os.environ.get(name + part, ""), safe="") for part in ("USERNAME", "PASSWORD"))
                url = os.path.expandvars(str(index.get("url", "")))
                urls.append(url.replace("://", f"://{user}:{password}@", 1) if user or password else url)
        return replace(self, project_index_urls=tuple(url for url in urls if "://" in url))

    def environment(self) -> dict[str, str]:
        """Environment for uv and git. Credentials travel here, never on a command line."""
        environment = dict(os.environ)
        for name in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH"):
            environment.pop(name, None)
        environment |= {"UV_PYTHON_DOWNLOADS": "never", "UV_CONCURRENT_DOWNLOADS": CONNECTIONS}
        if self.pythons:
            environment["UV_PYTHON_INSTALL_DIR"] = self.pythons
        if self.index_url:
            environment["UV_DEFAULT_INDEX"] = self.index_url
        if self.extra_index_urls:
            environment["UV_INDEX"] = " ".join(self.extra_index_urls)
        if self.proxy:
            for name in ("HTTP_PROXY", "HTTPS_PROXY"):
                environment[name] = environment[name.lower()] = self.proxy
        if self.ca_bundle:
            bundle = os.path.expanduser(self.ca_bundle)
            environment["SSL_CERT_FILE"] = environment["GIT_SSL_CAINFO"] = bundle
        elif os.path.exists(SYSTEM_CERTIFICATES):  # uv's own list lacks an authority that the company has added here
            environment.setdefault("UV_SYSTEM_CERTS", "true")
        return environment

    def extra_indexes(self) -> str:
        """``UV_INDEX`` where uv does not look into the project: that of the user, and the project's own."""
        return " ".join([*self.environment().get("UV_INDEX", "").split(), *self.project_index_urls])

    def index_hint(self) -> str:
        """Ends the sentence of an error with where packages come from."""
        environment = self.environment()
        found = [environment.get("UV_DEFAULT_INDEX", "") or environment.get("UV_INDEX_URL", ""), *self.extra_indexes().split()]
        shown = " and ".join(without_secrets(url) for url in found if url) or "uv's own"
        return f"(Package index: {shown}. See forge_build_index_url, forge_build_proxy and forge_build_ca_bundle.)"

    def run(
        self, *command: str, cwd: Path | None = None, text: str = "", extra: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a tool.

        :param text: its standard input.
        :param extra: further variables of its environment.
        :returns: what it printed; standard error without secrets.
        """
        done = subprocess.run(
            command, env={**self.environment(), **(extra or {})}, cwd=cwd, input=text,
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        done.stderr = without_secrets(done.stderr)
        return done

    def uv(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run(find_uv(), *arguments, **options)

    def fetch(
        self, url: str, path: Path, hashes: Collection[str], subject: str, source_of_hash: str = "the lock says"
    ) -> None:
        """Fetch a file. It is whole and has one of the hashes, or it is not there.

        :param url: also the path of a file on the controller.
        :param hashes: ``sha256:…``, each of which is right.
        :param subject: begins the sentence of an error.
        :raises BuildError: when it cannot be had, or has another hash.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as scratch:
            part = Path(scratch) / path.name
            try:
                with (self.open(url) if "://" in url else open(url, "rb")) as opened, open(part, "wb") as handle:
                    shutil.copyfileobj(opened, handle)
            except (OSError, ValueError, HTTPException) as error:
                reason = without_secrets(str(error))
                raise BuildError(f"{subject} cannot be downloaded: {reason}. {self.index_hint()}") from None
            if f"sha256:{file_digest(part)}" not in hashes:
                raise BuildError(f"{subject} has another hash than {source_of_hash}: not used.")
            part.rename(path)

    def open(self, url: str) -> Any:
        """Open a URL as uv would: through the proxy, with the CA bundle, with the credentials that are known for its host.

        :raises OSError, ValueError: when it cannot be opened.
        """
        proxies = urllib.request.ProxyHandler({"http": self.proxy, "https": self.proxy} if self.proxy else None)
        tls = ssl.create_default_context(cafile=self.environment().get("SSL_CERT_FILE"))
        request = urllib.request.Request(USER_INFO.sub("", url))  # noqa: S310 (the user's own)
        credentials = self.credentials(url)
        if credentials:
            request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(credentials.encode()).decode()}")
        opener = urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=tls))
        return opener.open(request, timeout=TIMEOUT)

    def credentials(self, url: str) -> str:
        """``user:password`` that a URL has itself, that an index at its host has, or that ``.netrc`` has."""
        environment, asked = self.environment(), urlsplit(url)
        known = [url, *" ".join(environment.get(name, "") for name in INDEX_VARIABLES).split(), *self.project_index_urls]
        for each in map(urlsplit, known):
            # What was given for https never goes over plain http.
            if each.username and each.hostname == asked.hostname and asked.scheme in (each.scheme, "https"):
                return f"{unquote(each.username)}:{unquote(each.password or '')}"
        try:
            entry = netrc.netrc(environment.get("NETRC")).authenticators(asked.hostname or "")
        except (OSError, netrc.NetrcParseError):
            return ""
        return f"{entry[0]}:{entry[2]}" if entry else ""
