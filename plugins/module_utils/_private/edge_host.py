# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts an app on an edge, or takes it off, so that nothing is lost: a configuration is checked first, and then a reload."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from . import haproxy, systemd
from .command import run
from .edge_config import (
    CONFIG,
    HOME,
    MARK,
    Part,
    certificate_file,
    maintenance_file,
    own_files,
    part_file,
    problems,
    shared_files,
)
from .exclusive import LockHeld, exclusive_lock
from .layout import read_file, read_json, write_atomically
from .listening import Holder, why_taken
from .ownership import is_same_project, mark
from .records import ProjectRecord

UNIT = "haproxy.service"
LOCK = "/run/thecodeforge.fastapi.edge/lock"
WAIT = 60  # seconds for it
RELOAD = 20.0  # seconds until a new process answers
PAGES = ("maintenance.html", "unavailable.http")
NO_APP = f"""\
{MARK}
# No app is left here.
global
    stats socket {haproxy.ADMIN_SOCKET} mode 660 level admin

backend forge_nobody
    mode http
    timeout connect 3s
    timeout server 60s
"""
PLACEHOLDER_DAYS = 3  # of a certificate that stands in until the first one is there


def part_text(part: Part) -> str:
    return json.dumps({"mark": mark(part.app), **part.to_dict()}, indent=1, sort_keys=True) + "\n"


class EdgeError(Exception):
    """Raised when an edge cannot be as it is wanted; what served before goes on."""


@contextmanager
def edge_lock() -> Iterator[None]:
    """Keep others out while the files of an edge change: the controllers of other apps write the same.

    :raises EdgeError: when another run does not end in time.
    """
    try:
        with exclusive_lock(LOCK, WAIT):
            yield
    except LockHeld:
        raise EdgeError(
            f"Another run has been at work on the edge {platform.node()} for {WAIT} s: run again when it is done."
        ) from None


class Edge:
    """
    :param prefix: directory that stands for ``/``; only tests have another.
    """

    def __init__(self, app: str, prefix: str = "") -> None:
        self.app = app
        self.prefix = prefix

    # -- what is there -----------------------------------------------------------------------------

    def read(self, path: str) -> str | None:
        """Text of a file; None when there is none."""
        try:
            return read_file(self.prefix + path).decode(errors="replace")
        except OSError:
            return None

    def parts(self) -> list[Part]:
        """What each app of this edge wants, by the apps' names."""
        paths = sorted(glob.glob(self.prefix + part_file("*")))
        return [part for path in paths if (part := Part.from_dict(read_json(path))).app]

    def mine(self) -> Part:
        """What the app wants as it was written last; without a name when it is not on this edge."""
        return Part.from_dict(read_json(self.prefix + part_file(self.app)))

    def others(self) -> list[Part]:
        return [part for part in self.parts() if part.app != self.app]

    def is_installed(self) -> bool:
        return os.path.exists(self.prefix + "/usr/sbin/haproxy")

    def is_foreign(self) -> bool:
        """Whether somebody else has configured HAProxy: not we, and not its package."""
        text = self.read(CONFIG)
        if text is None or text.startswith(MARK):
            return False
        shipped = run(["dpkg-query", "--show", "--showformat", "${Conffiles}\n", "haproxy"]).stdout
        digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        return f"{CONFIG} {digest}" not in shipped

    def other_config(self) -> str:
        """A file that HAProxy is told to read in place of ours; empty when it is told none."""
        found = re.search(r"^\s*CONFIG=\s*[\"']?([^\"'\s]+)", self.read("/etc/default/haproxy") or "", re.MULTILINE)
        return found[1] if found and found[1] != CONFIG else ""

    def problems(self, wanted: Part, take_over: Sequence[str]) -> list[str]:
        """What is in the way of an app, a sentence each; none when nothing is."""
        host = platform.node()
        other = self.other_config()
        if other:
            return [
                f"HAProxy on {host} is told by /etc/default/haproxy to read {other}: it is somebody else's, so name another edge."
            ]
        if self.is_foreign() and "edge" not in take_over:
            return [
                f"{CONFIG} on {host} is somebody else's: name another edge, or let the app take HAProxy over with "
                f"forge_take_over: [edge], which keeps that file as {CONFIG}.before and ends what it routes."
            ]
        mine = self.mine()
        installed, project = ProjectRecord.from_dict(mine.project), ProjectRecord.from_dict(wanted.project)
        if mine.app and not is_same_project(installed, project) and "project" not in take_over:
            return [
                f"The app {self.app} on the edge {host} is another project's, {installed.owner()}: give this app another name, "
                "or say with forge_take_over: [project] that it is the same."
            ]
        return problems(wanted, self.others(), host) + self.taken(wanted)

    def taken(self, wanted: Part) -> list[str]:
        """Addresses that another program has."""
        found = []
        for name, address in wanted.addresses():
            why = why_taken(address, [])
            if isinstance(why, Holder) and (why.unit == UNIT or (not why.unit and why.program == "haproxy")):
                continue
            if isinstance(why, Holder):
                found.append(
                    f"{name}: {address} on {platform.node()} is taken by {why}: name another address, or stop what listens there."
                )
            elif why:
                found.append(f"{name}: {address} on {platform.node()} {why}: name another one.")
        return found

    # -- what is to be -----------------------------------------------------------------------------

    def files(self, part: Part | None, pages: dict[str, str], certificate: str) -> dict[str, str]:
        """Path to text of all files that are to be there, the app's own included; without a part those of the others."""
        parts = sorted([*self.others(), *([part] if part else [])], key=lambda each: each.app)
        files = shared_files(parts) if parts else {}
        if part:
            files.update(own_files(part, part_text(part), pages))
            pem = certificate or self.read(certificate_file(part.app)) or ""
            if part.tls:
                files[certificate_file(part.app)] = pem
        if parts and self.read(maintenance_file()) is None:
            files[maintenance_file()] = ""
        return files

    def differing(self, files: dict[str, str]) -> list[str]:
        return [path for path, text in files.items() if self.read(path) != text]

    def leftovers(self) -> list[str]:
        """Files of the app, for its removal."""
        pages = [f"{HOME}/pages/{self.app}.{name}" for name in PAGES]
        found = [part_file(self.app), certificate_file(self.app), *pages]
        return [path for path in found if os.path.lexists(self.prefix + path)]

    # -- make it so --------------------------------------------------------------------------------

    def apply(self, files: dict[str, str], part: Part | None = None) -> str:
        """Write what differs, and let HAProxy have it. Return how: nothing, certificate, reloaded or started.

        :param part: with TLS but without a certificate yet, one that stands in is made.
        :raises EdgeError: when HAProxy refuses the files, or does not take them; all is as before then.
        """
        if part and part.tls and not files[certificate_file(part.app)]:
            files[certificate_file(part.app)] = placeholder(part.names)
        differing = self.differing(files)
        active = systemd.properties(UNIT, "ActiveState")["ActiveState"] == "active"
        if not differing and active:
            return "nothing"
        self.check(files)
        before = {path: self.read(path) for path in differing}
        if CONFIG in differing and self.is_foreign():
            shutil.copy2(self.prefix + CONFIG, f"{self.prefix}{CONFIG}.before")
        self.write({path: files[path] for path in differing})
        try:
            if active and differing == [certificate_file(self.app)] and CONFIG not in differing:
                haproxy.change_certificate(differing[0], files[differing[0]])
                return "certificate"
            return self.reload() if active else self.start()
        except (haproxy.HAProxyError, systemd.SystemdError, EdgeError) as error:
            self.write({path: text for path, text in before.items() if text is not None})
            for path in (path for path, text in before.items() if text is None):
                os.unlink(self.prefix + path)
            raise EdgeError(f"HAProxy did not take its new configuration: {error}. What it served it serves.") from None

    def hold(self, names: Sequence[str], lift: Sequence[str]) -> tuple[list[str], list[str]]:
        """Let servers of the app have no requests, or have them again, without a reload; after one it is as before.

        :param names: of those that are to have none.
        :param lift: of those that are to have some again.
        :returns: names of those that were held, and of those that are.
        :raises EdgeError: when the configuration is refused; nothing was changed.
        :raises HAProxyError: when HAProxy, which runs, refuses; the files say by then what is wanted.
        """
        part = self.mine()
        held = sorted({*part.held, *names}.difference(lift).intersection(part.servers()))
        if held != part.held:
            parts = sorted([*self.others(), new := replace(part, held=held)], key=lambda each: each.app)
            files = {part_file(self.app): part_text(new), CONFIG: shared_files(parts)[CONFIG]}
            self.check(files)
            self.write(files)
            for name in sorted({*held, *part.held}):
                answer = haproxy.ask(f"set server {self.app}/{name} state {'maint' if name in held else 'ready'}")
                if answer:
                    raise haproxy.HAProxyError(answer)
        return part.held, held

    def write(self, files: dict[str, str]) -> None:
        for path, text in files.items():
            os.makedirs(os.path.dirname(self.prefix + path), mode=0o755, exist_ok=True)
            secret = path.startswith(f"{HOME}/certificates/")
            write_atomically(self.prefix + path, text.encode(), 0o600 if secret else 0o644)

    def check(self, files: dict[str, str]) -> None:
        """Let the real binary read the files in a directory of their own.

        :raises EdgeError: with what it says of them.
        """
        trial = f"{HOME}.trial"
        shutil.rmtree(self.prefix + trial, ignore_errors=True)
        try:
            with suppress(FileNotFoundError):
                shutil.copytree(self.prefix + HOME, self.prefix + trial)
            moved = {
                path.replace(HOME, trial).replace(CONFIG, f"{trial}/haproxy.cfg"): text for path, text in files.items()
            }
            for path, text in moved.items():
                os.makedirs(os.path.dirname(self.prefix + path), mode=0o700, exist_ok=True)
                write_atomically(self.prefix + path, text.replace(f"{HOME}/", f"{trial}/").encode(), 0o600)
            done = run(["haproxy", "-c", "-f", f"{self.prefix}{trial}/haproxy.cfg"], timeout=60)
            if done.returncode != 0:
                raise EdgeError(f"HAProxy refuses the configuration: {first_alert(done.stderr)}. Nothing was changed.")
        finally:
            shutil.rmtree(self.prefix + trial, ignore_errors=True)

    def start(self) -> str:
        systemd.systemctl("enable", "--quiet", UNIT)
        systemd.systemctl("restart", UNIT)
        return "started"

    def reload(self) -> str:
        """Let a new process take over the sockets; the old one answers what it has accepted.

        :raises EdgeError: when no new one does. HAProxy's main process goes on with the old one then.
        """
        began, old = time.monotonic(), process()
        systemd.systemctl("reload", UNIT)
        while time.monotonic() - began < RELOAD:
            new = process()
            if new and new != old:
                return "reloaded"
            time.sleep(0.1)
        raise EdgeError(first_alert("\n".join(systemd.journal(UNIT, began))))

    def remove(self) -> str:
        """Take the app off this edge. The last one leaves HAProxy without an address.

        :raises EdgeError: when HAProxy does not take that.
        """
        how = self.apply(self.files(None, {}, "") or {CONFIG: NO_APP})
        for path in self.leftovers():
            os.unlink(self.prefix + path)
        return how


def process() -> str:
    """Number of the process that answers; empty when none does."""
    try:
        found = re.search(r"^Pid: (\d+)", haproxy.ask("show info"), re.MULTILINE)
    except haproxy.HAProxyError:
        return ""
    return found[1] if found else ""


def first_alert(text: str) -> str:
    """The first thing that HAProxy complains of, without where it stands in a file of ours."""
    found = re.findall(r"\[ALERT\]\s*(?:\(\d+\) )?:\s*(?:config : )?(.+)", text)
    said = [re.sub(r"^parsing \[[^\]]*\]\s*:\s*", "", line).strip() for line in found]
    return (said or [text.strip().splitlines()[-1] if text.strip() else "it does not say why"])[0].rstrip(".")


def placeholder(names: Sequence[str]) -> str:
    """A certificate and its key that nobody trusts: HAProxy opens no TLS without one."""
    made = run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(PLACEHOLDER_DAYS),
         "-subj", "/CN=placeholder", "-addext", f"subjectAltName={','.join(f'DNS:{name}' for name in names) or 'DNS:placeholder'}",
         "-keyout", "-", "-out", "-"]
    )  # fmt: skip
    if made.returncode != 0:
        raise EdgeError(
            f"openssl makes no certificate ({made.stderr.strip().splitlines()[-1]}): install it on the edge."
        )
    return str(made.stdout)
