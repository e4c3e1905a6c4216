# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Where packages come from, and the tools that fetch them."""

from __future__ import annotations

import base64
import http.client
import os
import re
import shutil
import ssl
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

from .errors import BuildError

# Of the index alone; the rest is the argument_spec of the two action plugins that read them.
INDEX_ARGUMENTS: dict[str, dict[str, Any]] = {
    "cache": {"type": "str", "required": True},
    "index_url": {"type": "str", "default": "", "no_log": True},
    "extra_index_urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "proxy": {"type": "str", "default": "", "no_log": True},
    "ca_bundle": {"type": "str", "default": ""},
}
INDEX_VARIABLES = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_INDEX",
    "UV_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
)
TIMEOUT = 30  # seconds, as uv has it
USER_INFO = re.compile(r"(?<=://)[^/\s@'\"]+@")
QUERY = re.compile(r"(\w://[^\s?#'\"]+)\?[^\s#'\"]+")


def without_secrets(words: str) -> str:
    """Words with what may be a secret in any address left out: what stands before the host, and the query."""
    return QUERY.sub(r"\1?***", USER_INFO.sub("***@", words))


def find_uv() -> str:
    """Path of uv: beside the Python that runs Ansible, or on PATH.

    :raises BuildError: when there is none.
    """
    for path in (os.path.join(os.path.dirname(sys.executable), "uv"), shutil.which("uv")):
        if path and os.access(path, os.X_OK):
            return path
    raise BuildError("The controller has no uv: install it beside Ansible (pip install uv).")


@dataclass(frozen=True)
class Index:
    """Where packages come from."""

    url: str = ""
    ca_bundle: str = ""
    extra_urls: tuple[str, ...] = ()
    proxy: str = ""
    project_urls: tuple[str, ...] = ()  # what a project names itself: uv knows them, pip has to be told

    @classmethod
    def given(cls, arguments: dict[str, Any]) -> Index:
        """From the arguments that ``INDEX_ARGUMENTS`` names."""
        extra = tuple(arguments["extra_index_urls"])
        return cls(arguments["index_url"], arguments["ca_bundle"], extra, arguments["proxy"])

    def with_project(self, project: dict[str, Any], requirements: str) -> Index:
        """Also with the indexes that a project names: ``[[tool.uv.index]]`` or lines of its requirements.

        Credentials are where uv has them: ``UV_INDEX_<NAME>_USERNAME`` and ``_PASSWORD``.
        """
        urls = re.findall(r"^\s*(?:-i|--index-url|--extra-index-url)[ =]\s*(\S+)", requirements, re.MULTILINE)
        for each in project.get("tool", {}).get("uv", {}).get("index", []):
            name = f"UV_INDEX_{re.sub(r'[^A-Z0-9]', '_', str(each.get('name', '')).upper())}_"
            user, word = (quote(os.environ.get(name + part, ""), safe="") for part in ("USERNAME", "PASSWORD"))
            url = str(each.get("url", ""))
            urls.append(url.replace("://", f"://{user}:{word}@", 1) if user or word else url)
        return replace(self, project_urls=tuple(url for url in urls if "://" in url))

    def environment(self) -> dict[str, str]:
        """Environment for uv, pip and git. Credentials travel here, never on a command line."""
        environment = dict(os.environ)
        for name in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH"):
            environment.pop(name, None)
        environment["UV_PYTHON_DOWNLOADS"] = "never"
        if self.url:
            environment["UV_DEFAULT_INDEX"] = environment["PIP_INDEX_URL"] = self.url
        if self.extra_urls:
            environment["UV_INDEX"] = environment["PIP_EXTRA_INDEX_URL"] = " ".join(self.extra_urls)
        # pip leaves out indexes over plain http, without an error; uv, which locked from them, does not.
        plain = [url for url in (self.url, *self.extra_urls, *self.project_urls) if url.startswith("http://")]
        hosts = tuple(urlsplit(url).netloc.rpartition("@")[2] for url in plain)
        for name, more in (("PIP_EXTRA_INDEX_URL", self.project_urls), ("PIP_TRUSTED_HOST", hosts)):
            if more:
                environment[name] = " ".join([*environment.get(name, "").split(), *more])
        if self.proxy:
            for name in ("HTTP_PROXY", "HTTPS_PROXY"):
                environment[name] = environment[name.lower()] = self.proxy
        if self.ca_bundle:
            bundle = os.path.expanduser(self.ca_bundle)
            for name in ("SSL_CERT_FILE", "PIP_CERT", "GIT_SSL_CAINFO"):
                environment[name] = bundle
        return environment

    def others(self) -> str:
        """Indexes beside the first, for uv where no project tells it of its own."""
        return " ".join([*self.environment().get("UV_INDEX", "").split(), *self.project_urls])

    def open(self, address: str) -> IO[bytes]:
        """Open an address as uv would: through the proxy, with the CA bundle, with the credentials of an index at its host.

        :raises OSError, ValueError: when it cannot be opened.
        """
        proxies = urllib.request.ProxyHandler({"http": self.proxy, "https": self.proxy} if self.proxy else None)
        request = urllib.request.Request(USER_INFO.sub("", address))  # noqa: S310 (the user's index and artifacts)
        for name, value in self.authorization(address).items():
            request.add_unredirected_header(name, value)
        opener = urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=self.tls()))
        return opener.open(request, timeout=TIMEOUT)  # type: ignore[no-any-return]

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.environment().get("SSL_CERT_FILE"))

    def authorization(self, address: str) -> dict[str, str]:
        """The header with the credentials that an address has itself, or that an index at its host has."""
        environment, asked = self.environment(), urlsplit(address)
        known = " ".join([address, *(environment.get(name, "") for name in INDEX_VARIABLES)])
        for each in map(urlsplit, known.split()):
            # What was given for https never goes over plain http.
            if each.username and each.hostname == asked.hostname and asked.scheme in (each.scheme, "https"):
                told = f"{unquote(each.username)}:{unquote(each.password or '')}"
                return {"Authorization": f"Basic {base64.b64encode(told.encode()).decode()}"}
        return {}

    def needs_proxy(self, address: str) -> bool:
        host = urlsplit(address).hostname or ""
        return bool(self.proxy or (urllib.request.getproxies() and not urllib.request.proxy_bypass(host)))

    def run(
        self, *command: str, cwd: Path | None = None, text: str | None = None, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a tool; what it complains about comes back without secrets."""
        done = subprocess.run(
            command, env={**self.environment(), **extra}, cwd=cwd, input=text if text is not None else "",
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        done.stderr = without_secrets(done.stderr)
        return done

    def uv(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run(find_uv(), *arguments, **options)

    def pip(self, *arguments: str, python: str = sys.executable, **options: Any) -> subprocess.CompletedProcess[str]:
        """pip, where uv cannot do it: download for another platform (astral-sh/uv#3163), build a wheel of a release."""
        return self.uv(
            "run", "--quiet", "--no-project", "--isolated", "--python", python, "--with", "pip",
            "python", "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check", "--no-input",
            **options,
        )  # fmt: skip


class Session:
    """Opens addresses one after the other on one connection to each host: a handshake, and a look-up of its name, for each
    of thirty wheels takes longer than the wheels."""

    def __init__(self, index: Index) -> None:
        self.index, self.context = index, index.tls()
        self.connections: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def open(self, address: str) -> IO[bytes]:
        """As :meth:`Index.open`, which does what is not just an answer: proxies, redirects, connections that were closed.

        What is opened is to be read to its end before the next.

        :raises OSError, ValueError, http.client.HTTPException: when it cannot be opened.
        """
        parts = urlsplit(USER_INFO.sub("", address))
        if parts.scheme not in ("http", "https") or self.index.needs_proxy(address):
            return self.index.open(address)
        place = (parts.scheme, parts.netloc)
        kept = self.connections.pop(place, None)
        connection = kept or self.connect(*place)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("GET", target or "/", headers=self.index.authorization(address))
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException):
            if not kept:  # nobody answers: to ask again would only take as long again
                raise
            return self.index.open(address)
        if answer.status != http.HTTPStatus.OK:
            return self.index.open(address)
        self.connections[place] = connection
        return answer

    def connect(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        if scheme == "https":
            return http.client.HTTPSConnection(netloc, timeout=TIMEOUT, context=self.context)
        return http.client.HTTPConnection(netloc, timeout=TIMEOUT)
