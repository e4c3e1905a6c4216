"""A PostgreSQL server for the tests: one of their own, or the one that FORGE_TEST_DATABASE_URL names."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg

# Every character that means something in a URL, in libpq's strings or in a shell.
PASSWORD = "p@ss w:rd/?#%&=+'\"\\$ü"


class Server:
    """A server on which the tests make and drop databases."""

    def __init__(self, url: str) -> None:
        self.admin_url = url

    def url(self, database: str) -> str:
        return urlunsplit(urlsplit(self.admin_url)._replace(path=f"/{database}"))

    def execute(self, statement: str, database: str = "") -> list[Any]:
        """Run a statement outside of a transaction and return its rows."""
        url = self.url(database) if database else self.admin_url
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """A server that was given runs already."""

    def remove(self) -> None:
        """A server that was given stays."""


class Cluster(Server):
    """A throwaway cluster in a directory below /tmp. It ends with the process that started it, even when killed."""

    def __init__(self) -> None:
        initdb, self.postgres = program("initdb"), program("postgres")
        self.directory = Path(tempfile.mkdtemp(prefix="thecodeforge-tests-"))
        self.process: subprocess.Popen[bytes] | None = None
        self.frozen: list[int] = []
        self.run_as = ["setpriv", "--pdeathsig=QUIT"]
        user = getpass.getuser()
        password_file = self.directory / "password"
        password_file.write_text(PASSWORD)
        if os.geteuid() == 0:  # which PostgreSQL refuses
            user = "postgres"
            self.run_as += [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        for path in (self.directory, password_file):
            shutil.chown(path, user)
        options = ["--no-sync", "--auth=scram-sha-256", "--username=forge", f"--pwfile={password_file}"]
        options += ["--encoding=UTF8", "--locale=C", "-D", str(self.directory / "data")]
        subprocess.run([*self.run_as, initdb, *options], check=True, capture_output=True, cwd="/")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        super().__init__(f"postgresql://forge:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/postgres")

    def start(self) -> None:
        """Have it answer, whatever was done to it."""
        self.thaw()
        if self.process:
            return
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.directory,
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": 40,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        log_file = self.directory / "log"
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.run_as, self.postgres, "-D", self.directory / "data", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(psycopg.OperationalError):
                self.execute("SELECT 1")
                return
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL did not start:\n{log_file.read_text()}")

    def stop(self) -> None:
        """As systemctl does: connections are ended."""
        if self.process:
            self.thaw()
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None

    def freeze(self) -> None:
        """Connections stay open and get no answer, as when a host hangs."""
        assert self.process
        self.frozen = [self.process.pid, *(pid for (pid,) in self.execute("SELECT pid FROM pg_stat_activity"))]
        self.send_to_frozen(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send_to_frozen(signal.SIGCONT)
        self.frozen = []

    def send_to_frozen(self, number: int) -> None:
        for pid in self.frozen:
            with suppress(ProcessLookupError):  # the backend that listed them
                os.kill(pid, number)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory)


def program(name: str) -> str:
    """A program of the newest PostgreSQL that is installed."""
    found = {int(path.parts[4]): str(path) for path in Path("/usr/lib/postgresql").glob(f"[0-9]*/bin/{name}")}
    path = found[max(found)] if found else shutil.which(name)
    if path is None:
        raise RuntimeError(
            f"These tests need PostgreSQL's {name}: install Debian's package postgresql, "
            "or give FORGE_TEST_DATABASE_URL, the URL of a server where they may create databases."
        )
    return path
