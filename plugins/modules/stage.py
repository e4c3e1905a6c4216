#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

DOCUMENTATION = r"""
module: stage
short_description: Put a generation of an app on a host, next to the one that serves
version_added: 1.0.0
description:
  - Uploads what the host lacks, installs the layer of dependencies offline with hashes, unpacks the release,
    and writes the generation's files and systemd unit. Touches nothing that serves.
  - Then loads the new code with the new settings, as Gunicorn will, in the service's own sandbox. Each setting
    that the app refuses is named with the rule, and never with its value.
  - Compares first. When the host has everything, that comparison is the only call to it.
  - Nothing half-made is ever used. A layer or a release counts once its record stands, which is written last.
author: The Code Forge (@thecodeforge)
options:
  app:
    description: Name of the app; names the directories and the units.
    type: str
    required: true
  root:
    description: Directory that holds the apps.
    type: path
    required: true
  group:
    description: Group that may read the environment file.
    type: str
    required: true
  python:
    description: Interpreter on the host that the layer is made for.
    type: str
    required: true
  generation:
    description: Id of the generation. When empty it is named after everything that decides what runs.
    type: str
    default: ""
  release:
    description: Id of the release.
    type: str
    required: true
  layer:
    description: Id of the layer.
    type: str
    required: true
  target:
    description: What the server loads.
    type: str
    required: true
  load_seconds:
    description: Seconds that loading may take.
    type: int
    default: 60
  record:
    description: What is known of this generation; kept in its C(release.json).
    type: dict
    default: {}
  environment:
    description: Text of the environment file. Never logged and never shown in a diff.
    type: str
    required: true
  files:
    description: Other files of the generation, name to text.
    type: dict
    default: {}
  secret_files:
    description: Files of the generation that only O(group) may read, name to text. Never logged nor shown in a diff.
    type: dict
    default: {}
  units:
    description:
      - Unit files, name to text. Templates, but for C(<app>@.socket), are installed for this generation alone.
      - The others are shared by all generations; they are installed where missing, and mended when this one is live.
    type: dict
    default: {}
  compared:
    description: Answer of this module in check mode, given to save the comparison.
    type: dict
  blobs:
    description:
      - What may have to be uploaded. Keys are V(release), V(layer) and V(installer).
      - Each has a C(path) on the controller and its C(sha256).
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: The environment file and the settings files are left out of the diff.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Stage a generation
  thecodeforge.fastapi.stage:
    app: forge
    root: /srv
    group: forge
    python: /usr/bin/python3
    target: shop.main:app
    generation: 0123456789ab-01234567
    release: 0123456789ab
    layer: 0123456789ab-py3.11
    environment: "FORGE_DEBUG=false\n"
    files:
      gunicorn.conf.py: "workers = 3\n"
    units:
      forge@.service: "[Service]\nExecStart=/bin/true\n"
    blobs:
      release: {path: /tmp/release.tar, sha256: "..."}
"""

RETURN = r"""
generation:
  description: Id of the generation.
  returned: always
  type: str
missing:
  description: What had to be made or done, of V(layer), V(release), V(installer), V(generation), V(validation).
  returned: always
  type: list
  elements: str
drifted:
  description: Files that were there with another content, mode or owner.
  returned: always
  type: list
  elements: str
live:
  description: Id of the generation that serves; empty when none does.
  returned: always
  type: str
settled:
  description: Does this generation serve, alone, and will it after a boot?
  returned: always
  type: bool
nothing_to_do:
  description: Is it settled, with nothing missing and nothing drifted?
  returned: always
  type: bool
drains:
  description: Can what runs the app stand by and drain, so that a switch loses nothing?
  returned: always
  type: bool
sent_bytes:
  description: Bytes of releases, layers and installers sent to the host.
  returned: always
  type: int
"""

import base64
import errno
import fcntl
import grp
import hashlib
import inspect
import io
import json
import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zipfile

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private import app_check, systemd
from ..module_utils._private.generations import Generations
from ..module_utils._private.layout import GENERATION_ID, Layout, sync_directory, write_atomically
from ..module_utils._private.settled import is_settled
from ..module_utils._private.transient import Transient, TransientError

COMPLETE = ".complete"
STILL_SERVES = "What served before still serves."


class StageError(Exception):
    """One sentence for the user: what is wrong, where, what to do."""


def fingerprint(directory: str) -> str:
    """Hash of names, sizes, times, modes and owners below a directory: cheap, and sees any edit by hand.

    Byte code is left out, as Python may rewrite it.
    """
    digest = hashlib.sha256()
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        for name in sorted(names):
            if parent == directory and name == COMPLETE:
                continue
            found = os.lstat(os.path.join(parent, name))
            seen = (os.path.join(parent, name), found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid)
            digest.update(repr(seen).encode())
    return digest.hexdigest()


def is_whole(directory: str) -> bool:
    """Is a layer or a release complete and as it was left?"""
    try:
        with open(os.path.join(directory, COMPLETE), encoding="ascii") as handle:
            return handle.read() == fingerprint(directory)
    except OSError:
        return False


def executable_of(wheel: bytes) -> bytes:
    """The uv in its wheel."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as opened:
        return opened.read(next(name for name in opened.namelist() if name.endswith(".data/scripts/uv")))


def mark_whole(directory: str) -> None:
    os.sync()
    write_atomically(os.path.join(directory, COMPLETE), fingerprint(directory).encode(), 0o644)


class Stage:
    def __init__(self, params: dict) -> None:
        self.given = params
        self.layout = Layout(params["root"], params["app"])
        self.home = self.layout.generation(params["generation"])
        # Each generation has a whole unit of its own, so that a rollback brings back how it was run.
        shared = f"{params['app']}@.socket"
        self.units = {
            name if name == shared else name.replace("@.", f"@{params['generation']}."): text
            for name, text in params["units"].items()
        }

    # -- what there is -----------------------------------------------------------------------------

    def wanted_files(self) -> dict[str, tuple[bytes, int, int]]:
        """Path to (content, mode, gid) of every file that this generation needs, its record left out."""
        try:
            gid = grp.getgrnam(self.given["group"]).gr_gid
        except KeyError:
            gid = 0  # the service_user role makes the group; only check mode gets here without it
        files = {os.path.join(self.home, "environment"): (self.given["environment"].encode(), 0o640, gid)}
        for name, text in self.given["files"].items():
            files[os.path.join(self.home, name)] = (text.encode(), 0o644, 0)
        for name, text in self.given["secret_files"].items():
            files[os.path.join(self.home, name)] = (text.encode(), 0o640, gid)
        for name, text in self.units.items():
            files[os.path.join(self.home, "units", name)] = (text.encode(), 0o644, 0)
            if self.installs(name):
                files[os.path.join(self.layout.units, name)] = (text.encode(), 0o644, 0)
        return files

    def installs(self, unit: str) -> bool:
        """A shared unit of the live generation is mended; otherwise it is the switch that changes it."""
        return (
            f"@{self.given['generation']}." in unit
            or self.layout.live() in ("", self.given["generation"])
            or not os.path.exists(os.path.join(self.layout.units, unit))
        )

    def differing(self) -> tuple[list[str], list[str]]:
        """Files that are absent, and files that have drifted."""
        absent, drifted = [], []
        for path, (content, mode, gid) in self.wanted_files().items():
            try:
                with open(path, "rb") as handle:
                    found = os.fstat(handle.fileno())
                    same = handle.read() == content
            except OSError:
                absent.append(path)
                continue
            if not same or stat.S_IMODE(found.st_mode) != mode or (found.st_uid, found.st_gid) != (0, gid):
                drifted.append(path)
        return absent, drifted

    def compare(self) -> dict:
        missing = []
        if not is_whole(self.layout.layer(self.given["layer"])):
            missing.append("layer")
            if not os.access(self.installer(), os.X_OK):
                missing.append("installer")
        if not is_whole(self.layout.release(self.given["release"])):
            missing.append("release")
        absent, drifted = self.differing()
        record = self.layout.read_record(self.given["generation"])
        told = {key: value for key, value in self.given["record"].items() if key != "builder"}  # who built it first
        if absent or any(record.get(key) != value for key, value in told.items()):
            missing.append("generation")
        if record.get("state", "staged") in ("staged", "bad") or missing:
            missing.append("validation")
        return {
            "missing": missing,
            "drifted": drifted,
            "live": self.layout.live(),
            "settled": is_settled(self.layout, self.given["generation"], self.units),
            "drains": record.get("drains", True),
        }

    # -- making it so ------------------------------------------------------------------------------

    def installer(self) -> str:
        digest = self.given["blobs"].get("installer", {}).get("sha256", "none")
        return os.path.join(self.layout.tools, f"uv-{digest[:12]}")

    def apply(self, missing: list[str]) -> None:
        for directory in (self.layout.layers, self.layout.releases, self.layout.generations, self.layout.tools):
            os.makedirs(directory, mode=0o755, exist_ok=True)
        with open(os.path.join(self.layout.home, ".stage.lock"), "w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StageError(
                    f"Another deploy is staging {self.given['app']} on this host right now; run again when it is done."
                ) from None
            self.clear_half_made()
            self.check_room(missing)
            if "installer" in missing:
                write_atomically(self.installer(), executable_of(self.blob("installer")), 0o755)
            if "layer" in missing:
                self.install_layer()
            if "release" in missing:
                self.unpack_release()
            self.write_generation()
            if "validation" in missing:
                self.validate()

    def validate(self) -> None:
        """Load the app as Gunicorn will.

        :raises StageError: naming what keeps it from loading.
        """
        self.check_host()
        target = self.given["target"]
        script = inspect.getsource(app_check)
        try:
            transient = Transient(self.layout, self.given["generation"])
            rc, output, _seconds = transient.run(["python", "-", target], self.given["load_seconds"], script)
        except TransientError as error:
            raise StageError(f"{target} could not be loaded: {error} {STILL_SERVES}") from None
        answer = next((line for line in reversed(output.splitlines()) if line.startswith('{"problems"')), "")
        if not answer:
            last = " ".join(output.split()[-60:])
            raise StageError(f"{target} died while it was loaded (exit code {rc}): {last} {STILL_SERVES}")
        problems = json.loads(answer)["problems"]
        if problems:
            raise StageError(" ".join([*problems, STILL_SERVES]))
        generations = Generations(self.layout)
        state = "good" if generations.all()[self.given["generation"]].get("state") == "good" else "validated"
        generations.set_state(self.given["generation"], state, drains=self.can_drain(transient))

    def can_drain(self, transient: Transient) -> bool:
        """Does the server stand by and drain? An app's own worker class is asked in the layer that it will run in.

        :raises StageError: when there is no such class.
        """
        record = self.given["record"]
        worker_class = record.get("worker_class", "")
        if not worker_class:
            return record.get("server") != "gunicorn-asgi"
        try:
            words = ["python", "-m", "forge_worker", worker_class]
            _rc, output, _seconds = transient.run(words, self.given["load_seconds"])
        except TransientError as error:
            raise StageError(
                f"forge_worker_class: {worker_class} could not be loaded: {error} {STILL_SERVES}"
            ) from None
        said = (output.strip().splitlines() or ["problem: it says nothing"])[-1]
        if said not in ("drains", "cannot drain"):
            why = said.partition(" ")[2]
            raise StageError(f"forge_worker_class: {worker_class} cannot be loaded: {why}. {STILL_SERVES}")
        return said == "drains"

    def check_host(self) -> None:
        """Is there what the units name?

        :raises StageError: when not.
        """
        unit = self.units.get(self.layout.service(self.given["generation"]), "")
        for directory in re.findall(r"^WorkingDirectory=(.+)$", unit, re.MULTILINE):
            if not os.path.isdir(directory):
                inside = os.path.relpath(directory, self.layout.release(self.given["release"]))
                raise StageError(f"forge_directory: the release has no directory {inside}. {STILL_SERVES}")
        for path in " ".join(re.findall(r"^ReadWritePaths=(.+)$", unit, re.MULTILINE)).split():
            if not os.path.exists(path):
                raise StageError(f"forge_writable_paths: {path} is not on this host: make it first. {STILL_SERVES}")
        for name, text in self.units.items():
            for schedule in re.findall(r"^OnCalendar=(.+)$", text, re.MULTILINE):
                if not systemd.is_schedule(schedule):
                    process = name.partition("@")[0].partition(".")[2]
                    raise StageError(
                        f"forge_processes: {process}: systemd cannot read the schedule {schedule!r} "
                        f"(see systemd.time(7), OnCalendar). {STILL_SERVES}"
                    )

    def clear_half_made(self) -> None:
        for directory in (self.layout.layers, self.layout.releases):
            for name in os.listdir(directory):
                if name.startswith(".incoming-"):
                    shutil.rmtree(os.path.join(directory, name), ignore_errors=True)

    def check_room(self, missing: list[str]) -> None:
        """Refuse before writing when the disk cannot hold it; unpacked wheels take about four times their size."""
        sizes = {name: blob.get("size", 0) for name, blob in self.given["blobs"].items() if name in missing}
        needed = 4 * sum(sizes.values()) + (16 << 20)
        free = shutil.disk_usage(self.layout.home).free
        if free < needed:
            raise StageError(
                f"{self.layout.home} has {free >> 20} MiB free and this release needs {needed >> 20} MiB: "
                "free some room and run again."
            )

    def blob(self, name: str) -> bytes:
        """Content of an upload, checked against its hash."""
        given = self.given["blobs"][name]
        if given.get("inline") is not None:
            content = base64.b64decode(given["inline"])
        else:
            with open(given["remote"], "rb") as handle:
                content = handle.read()
        if hashlib.sha256(content).hexdigest() != given["sha256"]:
            raise StageError(f"The {name} arrived damaged (its sha256 differs from the artifact's): run again.")
        return content

    def unpack(self, name: str, into: str) -> str:
        """Unpack an upload into a new directory beside its final place."""
        content = self.blob(name)
        incoming = tempfile.mkdtemp(prefix=".incoming-", dir=into)
        os.chmod(incoming, 0o755)  # noqa: S103 (the service reads it)
        with tempfile.TemporaryFile(dir=into) as handle:
            handle.write(content)
            handle.seek(0)
            with tarfile.open(fileobj=handle) as archive:
                archive.extractall(incoming)  # noqa: S202 (hash-checked above, made by the build)
        return incoming

    def install_layer(self) -> None:
        final = self.layout.layer(self.given["layer"])
        incoming = self.unpack("layer", self.layout.layers)
        retired = os.path.join(incoming, "retired")
        if os.path.lexists(final):
            os.rename(final, retired)  # it may be what serves: it comes back when this fails
        uv = [self.installer(), "--no-config", "--offline", "--cache-dir", os.path.join(incoming, "cache")]
        try:
            self.run([*uv, "venv", "--python", self.given["python"], "--no-project", final], "make the environment")
            self.run(
                [
                    *uv, "pip", "install", "--python", os.path.join(final, "bin", "python"),
                    "--no-index", "--find-links", os.path.join(incoming, "wheels"), "--no-deps",
                    "--require-hashes", "--only-binary", ":all:", "--compile-bytecode",
                    "--requirements", os.path.join(incoming, "requirements.txt"),
                ],
                "install the dependencies",
            )  # fmt: skip
            shutil.copy(os.path.join(incoming, "requirements.txt"), final)
            left_by_uv = os.path.join(final, ".lock")  # writable by everyone
            if os.path.exists(left_by_uv):
                os.unlink(left_by_uv)
            mark_whole(final)
        except BaseException:
            shutil.rmtree(final, ignore_errors=True)
            if os.path.lexists(retired):
                os.rename(retired, final)
            raise
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def run(self, command: list[str], aim: str) -> None:
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "UV_PYTHON_DOWNLOADS": "never"}
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise StageError(f"Could not {aim} of layer {self.given['layer']}: {done.stderr.strip()[-2000:]}")

    def unpack_release(self) -> None:
        final = self.layout.release(self.given["release"])
        incoming = self.unpack("release", self.layout.releases)
        subprocess.run(
            [self.given["python"], "-Im", "compileall", "-qq", "-s", incoming, "-p", final, incoming],
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        if os.path.lexists(final):
            retired = tempfile.mkdtemp(prefix=".incoming-", dir=self.layout.releases)
            os.rename(final, os.path.join(retired, "retired"))
        os.rename(incoming, final)
        mark_whole(final)
        self.clear_half_made()

    def write_generation(self) -> None:
        os.makedirs(os.path.join(self.home, "units"), mode=0o755, exist_ok=True)
        absent, drifted = self.differing()
        files = self.wanted_files()
        for path in absent + drifted:
            content, mode, gid = files[path]
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            write_atomically(path, content, mode, 0, gid)
        if any(path.startswith(self.layout.units + os.sep) for path in absent + drifted):
            systemd.systemctl("daemon-reload")
        old = self.layout.read_record(self.given["generation"])
        record = {**old, **self.given["record"], "state": "good" if old.get("state") == "good" else "staged"}
        if record != old:
            text = json.dumps(record, indent=2, sort_keys=True) + "\n"
            write_atomically(self.layout.record(self.given["generation"]), text.encode(), 0o644)
        sync_directory(self.layout.generations)


def shown_diff(stage: Stage, changed: list[str]) -> list[dict[str, str]]:
    """Before and after of the files, for people; the environment and the settings files stay secret."""
    secret = {os.path.join(stage.home, name) for name in ("environment", *stage.given["secret_files"])}
    diffs = []
    for path, (content, _mode, _gid) in stage.wanted_files().items():
        if path not in changed or path.startswith(os.path.join(stage.home, "units")):
            continue
        if path in secret:
            diffs.append({"before_header": path, "after_header": path, "before": "", "after": "(not shown)\n"})
            continue
        try:
            with open(path, encoding="utf-8", errors="replace") as handle:
                before = handle.read()
        except OSError:
            before = ""
        diffs.append({"before_header": path, "after_header": path, "before": before, "after": content.decode()})
    return diffs


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "group": {"type": "str", "required": True},
            "python": {"type": "str", "required": True},
            "target": {"type": "str", "required": True},
            "load_seconds": {"type": "int", "default": 60},
            "generation": {"type": "str", "default": ""},
            "release": {"type": "str", "required": True},
            "layer": {"type": "str", "required": True},
            "record": {"type": "dict", "default": {}},
            "environment": {"type": "str", "required": True, "no_log": True},
            "files": {"type": "dict", "default": {}},
            "secret_files": {"type": "dict", "default": {}, "no_log": True},
            "units": {"type": "dict", "default": {}},
            "blobs": {"type": "dict", "default": {}},
            "compared": {"type": "dict"},
            "_apply": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    if not GENERATION_ID.match(module.params["generation"]):
        module.fail_json(msg=f"{module.params['generation']!r} is not the id of a generation.")
    os.umask(0o022)
    stage = Stage(module.params)
    before = stage.compare()
    absent, drifted = stage.differing()
    changed = bool(before["missing"] or drifted)
    result = {**before, "generation": module.params["generation"], "changed": changed, "sent_bytes": 0}
    result["nothing_to_do"] = before["settled"] and not changed
    if module._diff and changed:
        result["diff"] = shown_diff(stage, absent + drifted)
    if changed and module.params["_apply"] and not module.check_mode:
        try:
            stage.apply(before["missing"])
        except (StageError, systemd.SystemdError) as error:
            module.fail_json(msg=str(error))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                module.fail_json(msg=f"No space left below {stage.layout.home}: free some room and run again.")
            module.fail_json(msg=f"Could not stage {stage.given['generation']}: {error}.")
        result["settled"] = is_settled(stage.layout, module.params["generation"], stage.units)
        result["drains"] = stage.layout.read_record(module.params["generation"]).get("drains", True)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
