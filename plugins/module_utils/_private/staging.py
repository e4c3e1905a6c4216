# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a generation on a host, next to the one that serves: compares, and makes what is missing."""

from __future__ import annotations

import base64
import dataclasses
import grp
import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import cached_property
from typing import Any

from . import systemd
from .archive import ArchiveError, unpack
from .command import run
from .complete import is_complete, mark_complete
from .differences import decided, differences, renamed, texts_below
from .errors import STILL_SERVES, StageError
from .exclusive import LockHeld, exclusive_lock
from .generations import Generations
from .layer import LayerError, compile_bytecode, finds_releases, make_environment, sets_settings
from .layout import Layout, read_file, read_json, sync_directory, twin_of, write_atomically
from .ownership import mark, marked_app, updated
from .records import GenerationRecord, ProjectRecord
from .release_commands import ReleaseCommands
from .serving import is_converged, serving_generation
from .settings import FILE, SEALED, are_sealed, parts, seal, unseal
from .takeover import is_foreign
from .validation import Validation

INCOMING = ".incoming-"
# How many times its size an archive takes, unpacked and with its byte code: seen are 5 for layers, less for releases.
UNPACKED = 6
SPARE = 16 << 20  # bytes
# A restart would cut what is under way. needrestart(1): the keys are expressions for names of units.
LEFT_ALONE = """# {mark}: changes by hand are replaced.
# After updates the playbook refresh.yml lets a new process take over from the old one.
$nrconf{{override_rc}}{{qr(^{app}[\\@.])}} = 0;
"""


def is_ours_to_write(path: str, app: str) -> bool:
    """Is a file for another program wanted: is that installed, and is there no file of somebody else's in its place?"""
    if not os.path.isdir(os.path.dirname(path)):
        return False
    try:
        return marked_app(read_file(path).decode("utf-8", errors="replace")) == app
    except OSError:
        return not os.path.lexists(path)


class Staging:
    """
    :param params: of the module ``stage``.
    :raises StageError: when its record has a key that no record has, or of another type.
    """

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.layout = Layout(params["root"], params["app"])
        self.generation: str = params["generation"]
        self.wanted: dict[str, Any] = params["record"]
        if self.serving == twin_of(self.generation):  # after a refresh: it is the same
            self.generation = self.serving
            self.wanted = {**self.wanted, "generation": self.serving}
        self.home = self.layout.generation(self.generation)
        # Each generation has a whole unit of its own, so that a rollback brings back how it was run.
        shared = f"{params['app']}@.socket"
        self.units = {
            name if name == shared else name.replace("@.", f"@{self.generation}."): text
            for name, text in params["units"].items()
        }
        self.settings = parts(params["environment"], any(are_sealed(text) for text in self.units.values()))
        understood = GenerationRecord.from_dict(self.wanted).to_dict()
        wrong = sorted(key for key, value in self.wanted.items() if understood.get(key, ...) != value)
        if wrong:
            raise StageError(f"The record of {self.generation} cannot have {', '.join(wrong)} as given.")

    @property
    def commands(self) -> ReleaseCommands:
        """What is run once for this generation."""
        record = GenerationRecord.from_dict(self.wanted)
        return ReleaseCommands(
            self.layout, self.generation, self.params["release"], record.release_commands, record.release_paths
        )

    @cached_property
    def serving(self) -> str:
        """Id of the generation that serves."""
        return serving_generation(self.layout)

    # -- compare -----------------------------------------------------------------------------------

    def wanted_files(self) -> dict[str, tuple[bytes, int, int]]:
        """Path to (content, mode, gid) of every file that this generation needs, its record left out.

        What will be sealed is not sealed here, as that comes out otherwise each time.
        """
        try:
            gid = grp.getgrnam(self.params["group"]).gr_gid
        except KeyError:
            gid = 0  # the service_user role makes the group; only check mode gets here without it
        files = {os.path.join(self.home, FILE): (self.settings[FILE].encode(), 0o640, gid)}
        if SEALED in self.settings:
            files[os.path.join(self.home, SEALED)] = (self.settings[SEALED].encode(), 0o600, 0)
        for name, text in self.params["files"].items():
            files[os.path.join(self.home, name)] = (text.encode(), 0o644, 0)
        for name, text in self.params["secret_files"].items():
            files[os.path.join(self.home, name)] = (text.encode(), 0o640, gid)
        for name, text in self.units.items():
            files[os.path.join(self.home, "units", name)] = (text.encode(), 0o644, 0)
            if self.installs(name):
                files[os.path.join(self.layout.units, name)] = (text.encode(), 0o644, 0)
        if is_ours_to_write(self.layout.needrestart, self.params["app"]):
            text = LEFT_ALONE.format(mark=mark(self.params["app"]), app=self.params["app"])
            files[self.layout.needrestart] = (text.encode(), 0o644, 0)
        return files

    def installs(self, unit: str) -> bool:
        """A shared unit of the live generation is repaired; otherwise, and where it is somebody else's, the switch does it."""
        if f"@{self.generation}." in unit:
            return True
        if not self.serving and is_foreign(self.layout, unit):
            return False
        return self.serving in ("", self.generation) or not os.path.exists(os.path.join(self.layout.units, unit))

    def differing(self) -> tuple[list[str], list[str]]:
        """Files that are absent, and files that have drifted."""
        absent, drifted = [], []
        for path, (content, mode, gid) in self.wanted_files().items():
            try:
                with open(path, "rb") as handle:
                    found = os.fstat(handle.fileno())
                    same = self.content_of(path, handle.read()) == content
            except OSError:
                absent.append(path)
                continue
            if not same or stat.S_IMODE(found.st_mode) != mode or (found.st_uid, found.st_gid) != (0, gid):
                drifted.append(path)
        return absent, drifted

    def content_of(self, path: str, found: bytes) -> bytes:
        """What a file of the generation says, given what lies there.

        :raises OSError: when it was sealed on another host.
        """
        return unseal(found).encode() if path == os.path.join(self.home, SEALED) else found

    def loose_directories(self) -> list[str]:
        """Directories of ours in which somebody else than root could replace what root runs."""
        layout = self.layout
        found = []
        for path in (
            layout.home,
            layout.pythons,
            layout.layers,
            layout.releases,
            layout.generations,
            self.home,
            f"{self.home}/units",
        ):
            with suppress(FileNotFoundError):
                state = os.lstat(path)
                if stat.S_ISDIR(state.st_mode) and (state.st_uid != os.geteuid() or state.st_mode & 0o022):
                    found.append(path)
        return found

    def compare(self) -> dict[str, Any]:
        """What is ``missing``, what has ``drifted``, whether the host is ``up_to_date``, and its :meth:`state`."""
        missing = []
        interpreter = self.params["interpreter"]
        if interpreter and not is_complete(self.layout.python(interpreter["id"])):
            missing.append("python")
        layer = self.layout.layer(self.params["layer"])
        does_what_it_must = finds_releases(layer) and (SEALED not in self.settings or sets_settings(layer))
        if not (is_complete(layer) and does_what_it_must):
            missing.append("layer")
        if not is_complete(self.layout.release(self.params["release"])):
            missing.append("release")
        absent, drifted = self.differing()
        drifted += self.loose_directories()
        record = self.layout.read_record(self.generation)
        found = record.to_dict()
        # Who built it first is recorded, and another builder is no change.
        if absent or any(found[key] != value for key, value in self.wanted.items() if key != "builder"):
            missing.append("generation")
        if not self.commands.are_done():
            missing.append("commands")
        if record.state in ("", "staged", "bad") or missing:
            missing.append("validation")
        state = self.state()
        up_to_date = state["converged"] and not missing and not drifted
        return {"missing": missing, "drifted": drifted, "up_to_date": up_to_date, **state}

    def state(self) -> dict[str, Any]:
        """What is ``live``, whether the host has ``converged`` on this generation, and whether that ``drains``."""
        return {
            "live": self.serving,
            "converged": is_converged(self.layout, self.generation, self.units),
            "drains": self.layout.read_record(self.generation).drains,
        }

    def diff(self) -> list[dict[str, str]]:
        """What differs from what serves, for people; values of the environment and the settings files stay secret.

        On a host where nothing serves that is the names of what will be there.
        """
        live = self.layout.live()
        wanted = {
            path: content.decode("utf-8", errors="replace") for path, (content, *_rest) in self.wanted_files().items()
        }
        if not live:
            names = "".join(f"{path}\n" for path in sorted(wanted))
            return [{"before_header": "nothing", "after_header": self.home, "before": "", "after": names}]
        serving = dataclasses.replace(self.layout.read_record(live), generation=live)
        new = dataclasses.replace(GenerationRecord.from_dict(self.wanted), generation=self.generation)
        before = renamed(texts_below(self.layout.generation(live)), serving, new)
        after = {
            os.path.relpath(path, self.home): wanted[path] for path in wanted if path.startswith(self.home + os.sep)
        }
        if after.pop(SEALED, None) is not None:
            after[FILE] = self.params["environment"]
        before["release.json"], after["release.json"] = decided(serving), decided(new)
        public = {"release.json", *self.params["files"]}
        diffs = differences(before, after, public, (self.layout.generation(live) + os.sep, self.home + os.sep))
        for path in self.differing()[1]:
            if path.startswith(self.layout.units + os.sep):
                text = read_file(path).decode("utf-8", errors="replace")
                diffs += differences({path: text}, {path: wanted[path]}, {path}, ("", ""))
        return diffs

    # -- make it so --------------------------------------------------------------------------------

    def apply(self, missing: list[str]) -> None:
        """Make what is missing, and repair what has drifted. Nothing that serves is touched.

        :param missing: of :meth:`compare`.
        :raises StageError: when it cannot be done, a command of the release fails, or the app does not load.
        """
        for directory in (self.layout.layers, self.layout.releases, self.layout.generations):
            os.makedirs(directory, mode=0o755, exist_ok=True)
        for directory in self.loose_directories():
            os.chown(directory, os.geteuid(), os.getegid())
            os.chmod(directory, 0o755)  # noqa: S103 (the service reads it)
        try:
            with exclusive_lock(self.layout.kernel_lock("stage")):
                self.clear_half_made()
                self.write_project()
                self.check_room(missing)
                try:
                    if "python" in missing:
                        self.install_python()
                    if "layer" in missing:
                        self.install_layer()
                    if "release" in missing:
                        self.install_release()
                finally:
                    self.clear_half_made()
                self.commands.make_places()
                self.write_generation()
                if "commands" in missing:
                    self.validation().check_host()
                    self.commands.run()
                if "validation" in missing:
                    self.validate()
        except LockHeld:
            raise StageError(
                f"Another deploy is staging {self.layout.app} on this host right now; run again when it is done."
            ) from None

    def write_project(self) -> None:
        """Record which project this is: by that a host refuses another one of the same name."""
        installed = ProjectRecord.from_dict(read_json(self.layout.project))
        wanted = updated(installed, ProjectRecord.from_dict(self.params["project"]))
        if wanted != installed:
            text = json.dumps(wanted.to_dict(), indent=2, sort_keys=True) + "\n"
            write_atomically(self.layout.project, text.encode(), 0o644)

    def clear_half_made(self) -> None:
        for directory in (self.layout.pythons, self.layout.layers, self.layout.releases):
            for name in os.listdir(directory) if os.path.isdir(directory) else ():
                if name.startswith(INCOMING):
                    shutil.rmtree(os.path.join(directory, name), ignore_errors=True)

    def check_room(self, missing: list[str]) -> None:
        """:raises StageError: before anything is written, when the disk cannot hold it."""
        sizes = [blob.get("size", 0) for name, blob in self.params["blobs"].items() if name in missing]
        needed = UNPACKED * sum(sizes) + SPARE
        free = shutil.disk_usage(self.layout.home).free
        if free < needed:
            raise StageError(
                f"{self.layout.home} has {free >> 20} MiB free and this release needs {needed >> 20} MiB: "
                "free some room and run again."
            )

    def blob(self, name: str) -> bytes:
        """Content of an upload.

        :raises StageError: when it has another hash than the artifact's.
        """
        blob = self.params["blobs"][name]
        if blob.get("inline") is not None:
            content = base64.b64decode(blob["inline"])
        else:
            with open(blob["remote"], "rb") as handle:
                content = handle.read()
        if hashlib.sha256(content).hexdigest() != blob["sha256"]:
            raise StageError(f"The {name} arrived damaged (its sha256 differs from the artifact's): run again.")
        return content

    def unpack(self, name: str, into: str) -> str:
        """Unpack an upload into a new directory below ``into``.

        :returns: its path.
        :raises StageError: when it is damaged.
        """
        content = self.blob(name)
        incoming = tempfile.mkdtemp(prefix=INCOMING, dir=into)
        os.chmod(incoming, 0o755)  # noqa: S103 (the service reads it)
        try:
            unpack(io.BytesIO(content), incoming)
        except ArchiveError as error:
            raise StageError(f"The {name} cannot be unpacked: {error}. Build it again.") from None
        return incoming

    def python(self) -> str:
        """Path of the interpreter that the layer is for: the standalone one that comes with it, or the host's own."""
        interpreter = self.params["interpreter"]
        if not interpreter:
            return str(self.params["python"])
        return os.path.join(self.layout.python(interpreter["id"]), "bin", f"python{interpreter['minor']}")

    def install_python(self) -> None:
        """:raises StageError: when it does not run on this host."""
        final = self.layout.python(self.params["interpreter"]["id"])
        os.makedirs(self.layout.pythons, mode=0o755, exist_ok=True)
        incoming = self.unpack("python", self.layout.pythons)
        path = os.path.join(incoming, os.path.relpath(self.python(), final))
        try:
            done = run([path, "-Ic", "import ssl, ctypes"])
            said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        except OSError as error:
            said = [str(error.strerror)]
        if said:
            raise StageError(
                f"Python {self.params['interpreter']['id']} does not run on this host ({said[0]}): choose another one in forge_python. "
                f"{STILL_SERVES}"
            )
        compile_bytecode(incoming, final, path)
        self.put_in_place(incoming, final)

    def install_layer(self) -> None:
        """:raises StageError: when the host's Python does not run, or is not the one that the layer is for."""
        final = self.layout.layer(self.params["layer"])
        incoming = self.unpack("layer", self.layout.layers)
        try:
            make_environment(incoming, final, self.python())
        except LayerError as error:
            raise StageError(f"Layer {self.params['layer']} cannot be installed: {error}.") from None
        compile_bytecode(incoming, final, self.python())
        self.put_in_place(incoming, final)

    def install_release(self) -> None:
        final = self.layout.release(self.params["release"])
        incoming = self.unpack("release", self.layout.releases)
        compile_bytecode(incoming, final, self.python())
        self.put_in_place(incoming, final)

    def put_in_place(self, incoming: str, final: str) -> None:
        """Move a finished layer or release to its place. What is there may be what serves: it comes back on a failure."""
        retired = os.path.join(tempfile.mkdtemp(prefix=INCOMING, dir=os.path.dirname(final)), "retired")
        if os.path.lexists(final):
            os.rename(final, retired)
        try:
            os.rename(incoming, final)
            mark_complete(final)
        except BaseException:
            shutil.rmtree(final, ignore_errors=True)
            if os.path.lexists(retired):
                os.rename(retired, final)
            raise

    def write_generation(self) -> None:
        """Write the files that are absent or have drifted, and the record last."""
        os.makedirs(os.path.join(self.home, "units"), mode=0o755, exist_ok=True)
        absent, drifted = self.differing()
        files = self.wanted_files()
        for path in absent + drifted:
            content, mode, gid = files[path]
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            sealed = path == os.path.join(self.home, SEALED)
            write_atomically(path, seal(content.decode()) if sealed else content, mode, 0, gid)
        if any(path.startswith(self.layout.units + os.sep) for path in absent + drifted):
            systemd.systemctl("daemon-reload")
        old = self.layout.read_record(self.generation)
        record = dataclasses.replace(old, **self.wanted, state="good" if old.state == "good" else "staged")
        if record != old:
            Generations(self.layout).write_record(self.generation, record)
        sync_directory(self.layout.generations)

    def validation(self) -> Validation:
        return Validation(
            self.layout, self.generation, self.params["release"], self.params["target"], self.units,
            self.params["load_seconds"],
        )  # fmt: skip

    def validate(self) -> None:
        """Load the app as the server will, and record that it loads and whether the server drains.

        :raises StageError: naming what keeps it from loading.
        """
        drains = self.validation().run()
        generations = Generations(self.layout)
        # The record of what serves may have been lost.
        serves = self.layout.live() == self.generation and generations.live_since()
        good = serves or self.layout.read_record(self.generation).state == "good"
        generations.set_state(self.generation, "good" if good else "validated", drains=drains)
