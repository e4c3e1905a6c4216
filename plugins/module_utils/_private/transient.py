# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command as the service of a generation would: same user, sandbox, environment, working directory."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import systemd
from .command import run
from .layout import Layout
from .masking import mask, secrets_below
from .settings import launched

# Directives of a [Service] section that shape where any process of the app runs. Each of the service role's template is here
# or below; a test says so. One that is in neither reaches no command.
PLACE = frozenset((
    "User", "Group", "WorkingDirectory", "Environment", "EnvironmentFile", "LoadCredentialEncrypted",
    "LimitNOFILE", "LimitCORE", "MemoryMax",
    "StateDirectory", "StateDirectoryMode", "CacheDirectory", "CacheDirectoryMode", "ReadWritePaths",
    "BindReadOnlyPaths",
))  # fmt: skip
# What it may do there: forge_sandbox may name these.
CONFINEMENT = frozenset((
    "AmbientCapabilities", "CapabilityBoundingSet", "DeviceAllow", "InaccessiblePaths", "IPAddressAllow", "IPAddressDeny",
    "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges", "PrivateDevices", "PrivateMounts", "PrivateTmp",
    "PrivateUsers", "ProcSubset", "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname",
    "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem",
    "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "SupplementaryGroups",
    "SystemCallArchitectures", "SystemCallErrorNumber", "SystemCallFilter", "UMask",
))  # fmt: skip
SANDBOX = PLACE | CONFINEMENT
# What makes the web process a service: a command that ends has none of it.
SERVICE_ONLY = frozenset((
    "Type", "NotifyAccess", "Sockets", "NonBlocking", "ExecStart", "RuntimeDirectory", "RuntimeDirectoryMode",
    "Restart", "RestartSec", "KillMode", "TimeoutStartSec", "TimeoutStopSec", "OOMPolicy",
))  # fmt: skip

KILLED = re.compile(r"Main process exited, code=(?:killed|dumped), status=\d+/(\w+)")


class TransientError(Exception):
    """Raised when a command could not be run: it cannot be read, its generation is absent, or it did not end in time.

    :param lines: what it printed until then, masked.
    """

    def __init__(self, message: str, lines: list[str] | None = None) -> None:
        super().__init__(message)
        self.lines = lines or []


@dataclass
class Beside:
    """What a command printed that runs beside something: its first line, and the rest when it has ended."""

    first: str = ""
    rest: str = ""


class Transient:
    """Transient units of one staged generation.

    :param writable: directory that lies where what the release's commands have made does otherwise; they may write to it.
    :raises TransientError: when the generation is not staged on this host.
    """

    def __init__(self, layout: Layout, generation: str, writable: str = "") -> None:
        self.layout = layout
        self.writable = writable
        self.generation = generation
        home = layout.generation(generation)
        try:
            with open(os.path.join(home, "units", layout.service(generation)), encoding="utf-8") as handle:
                self.unit = handle.read()
            self.secrets = secrets_below(home)
        except OSError as error:
            raise TransientError(f"Generation {generation} is not staged on this host: {error.strerror}.") from None

    def run(
        self, argv: list[str], timeout: int, script: str | None = None, environment: dict[str, str] | None = None
    ) -> tuple[int, str, float]:
        """Run a command and wait for it.

        :param argv: program and arguments; the program is found on the PATH of the unit.
        :param timeout: seconds after which it is stopped.
        :param script: text for its standard input.
        :param environment: variables on top of those of the generation.
        :returns: exit code, output with the generation's secrets masked, seconds. Of a command that was killed the output ends
            with a line on that, as its exit code is systemd-run's own.
        :raises TransientError: when it did not end in time.
        """
        name = f"{self.layout.app}-run-{self.generation}-{os.getpid()}"
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        command = self._command(name, [*variables, *argv], timeout)
        started = time.monotonic()
        try:
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            done = run(command, input=script or "", timeout=timeout + 30, **streams)
        except subprocess.TimeoutExpired:
            systemd.systemctl("kill", "--signal=SIGKILL", f"{name}.service")
            raise TransientError(did_not_end(timeout, "")) from None
        seconds = round(time.monotonic() - started, 2)
        output = mask(done.stdout, self.secrets)
        if done.returncode != 0 and seconds >= timeout:
            raise TransientError(did_not_end(timeout, output), output.splitlines())
        killed = how_it_was_killed(f"{name}.service", started) if done.returncode else ""
        if killed:
            output = "\n".join([*output.splitlines(), killed, ""])
        return done.returncode, output, seconds

    @contextmanager
    def running(self, argv: list[str], timeout: int) -> Iterator[Beside]:
        """Run a command for as long as the block does: its standard input ends with it, also when this process is killed.

        :param timeout: seconds after which it is stopped all the same.
        :returns: what it prints, with the generation's secrets masked: the first line, and after the block the rest.
        """
        command = self._command(f"{self.layout.app}-beside-{self.generation}-{os.getpid()}", argv, timeout)
        process = subprocess.Popen(  # pylint: disable=consider-using-with
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
        beside = Beside()
        try:
            beside.first = mask(process.stdout.readline(), self.secrets)  # type: ignore[union-attr]
            yield beside
        finally:
            beside.rest = mask(process.communicate()[0], self.secrets)

    def _command(self, name: str, argv: list[str], timeout: int) -> list[str]:
        command = ["systemd-run", "--unit", name, "--wait", "--pipe", "--collect", "--quiet", "--service-type=exec"]
        made = f"BindReadOnlyPaths={self.layout.made(self.generation)}/"
        for directive in sandbox(self.unit, self.generation):
            command += [
                "--property",
                directive.replace(made, f"BindPaths={self.writable}/") if self.writable else directive,
            ]
        return [
            *command,
            "--property",
            f"RuntimeMaxSec={timeout}",
            "--",
            "/usr/bin/env",
            "--",
            *launched(self.unit, argv),
        ]


def did_not_end(timeout: int, output: str) -> str:
    """Return the sentence for a command that hung, with the last line that it printed, cut to a readable length."""
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    said = f"the last line that it printed is: {last[:200]}" if last else "it printed nothing"
    return f"it did not end within {timeout} s and was stopped; {said}."


def how_it_was_killed(unit: str, since: float) -> str:
    """What has killed the process of a unit; empty when it ended by itself.

    :param since: when it was started, in seconds of ``time.monotonic()``.
    """
    said = "\n".join(systemd.journal(unit, since))
    if "oom-kill" in said:
        return "killed by the kernel: out of memory"
    found = KILLED.search(said)
    return f"killed by SIG{found[1]}" if found else ""


def sandbox(unit: str, generation: str) -> list[str]:
    """Directives of a service unit that are in :data:`SANDBOX`, as ``Name=value``.

    ``%i`` is the instance only in the service itself, so it is replaced.
    """
    directives, inside = [], False
    for line in unit.splitlines():
        line = line.strip()
        if line.startswith("["):
            inside = line == "[Service]"
        elif inside and line.partition("=")[0].rstrip() in SANDBOX:
            directives.append(line.replace("%i", generation))
    return directives


def argv_of(command: str) -> list[str]:
    """Program and arguments of a command that a user has written.

    :raises TransientError: when the quoting does not close, or there is no word.
    """
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise TransientError(f"it cannot be read: {str(error).lower()}.") from None
    if not argv:
        raise TransientError("it is empty.")
    return argv
