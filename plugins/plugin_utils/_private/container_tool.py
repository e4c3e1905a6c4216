# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that makes images where Ansible runs: podman, buildah or docker."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

TOOLS = ("podman", "buildah", "docker")
# What only podman and buildah have: docker's own format is their other one, and OCI's has no HEALTHCHECK.
FORMAT = ("--format", "docker")
# Docker's older builder knows neither --output nor --progress; until 23.0 it is the one that is taken by itself.
ENVIRONMENT = {"DOCKER_BUILDKIT": "1"}
BUILD_SECONDS, PUSH_SECONDS, SAVE_SECONDS = 1800, 1800, 600
# Says in a base image what runs there; the word before it tells it from what the tool prints.
PROBE_MARK = "forge-image-base"
PROBE = (
    f"import json, platform, sys; print('{PROBE_MARK} ' + json.dumps(dict(path=sys.executable, "
    "version='.'.join(map(str, sys.version_info[:3])), machine=platform.machine(), libc=platform.libc_ver())))"
)
# What podman and buildah note of a build in an image: containers, and images between, that only this machine has.
OF_THE_BUILD = ("container", "container_config", "docker_version", "id", "parent")
# What a platform is called by container tools, to what its machine calls itself.
MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}


class ContainerToolError(Exception):
    """The tool is not there, or has failed. The text is a whole sentence, with the tool's own cause.

    :param output: all that it has printed.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


@dataclass(frozen=True)
class ContainerTool:
    """One of TOOLS, with what differs between them."""

    name: str
    path: str

    @classmethod
    def find(cls, wanted: str = "") -> ContainerTool:
        """The one that is wanted, or the first of TOOLS that is there.

        :raises ContainerToolError: when there is none.
        """
        for name in [wanted] if wanted else TOOLS:
            path = shutil.which(name)
            if path:
                return cls(name, path)
        missing = wanted or "none of podman, buildah and docker"
        verb = "has no" if wanted else "has"
        raise ContainerToolError(
            f"The controller {verb} {missing}, which makes images: install one, such as apt install podman."
        )

    def run(self, *arguments: str, seconds: int = 120) -> str:
        """Run it; what it has printed, errors included.

        :raises ContainerToolError: when it fails.
        """
        try:
            done = subprocess.run(
                [self.path, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", timeout=seconds, check=False, env={**os.environ, **ENVIRONMENT},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ContainerToolError(f"{self.name} {arguments[0]} took longer than {seconds} s.") from None
        if done.returncode != 0:
            raise ContainerToolError(f"{self.name} {arguments[0]} failed: {cause_of(done.stdout)}.", done.stdout)
        return done.stdout

    def build(self, directory: Path, platform: str = "", time: int = 0, use_cache: bool = True) -> tuple[str, str]:
        """Build the Containerfile of a directory.

        :param platform: one of MACHINES; this machine's own when empty.
        :param time: of all files and of the image, in seconds since 1970.
        :returns: the id of the image, which has no name yet, and what was printed.
        :raises ContainerToolError: when that fails.
        """
        with tempfile.TemporaryDirectory() as scratch:
            id_file = Path(scratch, "id")
            options = ["--iidfile", str(id_file), "--file", str(directory / "Containerfile")]
            options += [] if use_cache else ["--no-cache"]
            options += ["--platform", platform] if platform else []
            if self.name == "docker":
                options += ["--progress", "plain", "--build-arg", f"SOURCE_DATE_EPOCH={time}"]
            else:
                options += [*FORMAT, "--layers", "--timestamp", str(time)]  # buildah would make one layer of all
            printed = self.run("build", *options, str(directory), seconds=BUILD_SECONDS)
            return id_file.read_text(encoding="ascii").strip().removeprefix("sha256:"), printed

    def export(self, directory: Path, target: Path, platform: str = "") -> None:
        """Build the Containerfile of a directory, and put the files of what comes out into another one.

        :raises ContainerToolError: when that fails.
        """
        options = ["--file", str(directory / "Containerfile"), "--output", f"type=local,dest={target}"]
        options += ["--progress", "plain"] if self.name == "docker" else ["--layers=false"]  # keep nothing of it
        options += ["--platform", platform] if platform else []
        self.run("build", *options, str(directory), seconds=BUILD_SECONDS)

    def give_names(self, image: str, names: Sequence[str], base: str, platform: str = "", time: int = 0) -> str:
        """Give an image its names, and leave out what is of the machine that has built it: only then has the same input the same id.

        :param base: image that it was built from.
        :param platform: as when it was built.
        :param time: the same.
        :returns: its id.
        :raises ContainerToolError: when that fails.
        """
        with tempfile.TemporaryDirectory() as scratch:
            built, named = Path(scratch, "built.tar"), Path(scratch, "named.tar")
            if self.name == "buildah":
                self.run("push", "--quiet", image, f"docker-archive:{built}", seconds=SAVE_SECONDS)
            else:
                options = ["--quiet", "--format", "docker-archive"] if self.name == "podman" else []
                self.run("save", *options, "--output", str(built), image, seconds=SAVE_SECONDS)
            # Docker's builder takes the time for the image alone, and not for the files that it makes.
            kept = self.count_layers(base, platform) if self.name == "docker" else None
            found = reproducible_archive(built, named, names, kept, time)
            built.unlink()
            if self.name == "buildah":
                self.run("pull", "--quiet", f"docker-archive:{named}", seconds=SAVE_SECONDS)
                for name in names:
                    self.run("tag", found, name)
            else:
                self.run("load", "--quiet", "--input", str(named), seconds=SAVE_SECONDS)
            if self.name == "docker" and found != image:
                self.remove(image)
            return found

    def count_layers(self, base: str, platform: str = "") -> int:
        """How many layers a base image has. Docker's builder need not keep it under its name: so one is built that has no more.

        :raises ContainerToolError: when that fails.
        """
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch, "Containerfile").write_text(f"FROM {base}\nLABEL forge.layers=\n", encoding="utf-8")
            image, _printed = self.build(Path(scratch), platform)
        layers = json.loads(self.run("image", "inspect", "--format", "{{json .RootFS.Layers}}", image))
        self.remove(image)
        return len(layers)

    def make_index(self, images: Sequence[str], names: Sequence[str]) -> str:
        """Put the images of several platforms under each of their names, which have been free or another image's.

        :returns: an id of the whole: the same for the same images.
        :raises ContainerToolError: when that fails.
        """
        for name in names:
            if self.is_index(name):
                self.run("manifest", "rm", name)
            elif self.id_of(name):  # the image stays: a container may run it
                self.run(*(("untag", name, name) if self.name == "podman" else ("rmi", name)))
            self.run("manifest", "create", name)
            for image in images:
                self.run("manifest", "add", name, f"containers-storage:{image}")
        return self.id_of_index(names[0])

    def is_index(self, name: str) -> bool:
        """Whether there are several images under a name."""
        try:
            self.run("manifest", "exists", name)
        except ContainerToolError:
            return False
        return True

    def id_of_index(self, name: str) -> str:
        """An id of all images under a name; empty when there are not several."""
        if not self.is_index(name):
            return ""
        listed = json.loads(self.run("manifest", "inspect", name))["manifests"]
        return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()

    def probe(self, base: str, platform: str = "") -> dict[str, Any]:
        """What a base image has, as the module host_info says it of a host: ``python``, ``machine`` and ``glibc``.

        The three tools have only building in common: so it is asked in a build, whose image is removed.

        :param platform: one of MACHINES; this machine's own when empty.
        :raises ContainerToolError: when the image cannot be had, is of another platform, or has no Python.
        """
        name = name_for(base, platform)
        with tempfile.TemporaryDirectory() as scratch:
            text = f"FROM {base}\nRUN {json.dumps(['python3', '-I', '-S', '-c', PROBE])}\n"
            Path(scratch, "Containerfile").write_text(text, encoding="utf-8")
            try:
                image, printed = self.build(Path(scratch), platform, use_cache=False)
            except ContainerToolError as error:
                raise ContainerToolError(
                    f"forge_image_base: {name} cannot be used: {error} {probe_hint(str(error), error.output)}"
                ) from None
        self.remove(image)
        found = re.search(rf"{PROBE_MARK} (\{{.*\}})", printed)
        if not found:
            raise ContainerToolError(f"forge_image_base: {name} did not say which Python it has.")
        told = json.loads(found[1])
        if platform and told["machine"] != MACHINES[platform]:
            raise ContainerToolError(
                f"forge_image_base: {base} is not to be had for {platform}: what comes is for {told['machine']}. Leave that "
                "platform out of forge_image_platforms, or name a base that has it."
            )
        libc, version = told["libc"]
        return {
            "python": {"version": told["version"], "path": told["path"], "installed": True},
            "machine": told["machine"],
            "glibc": version if libc == "glibc" else "",
        }

    def remove(self, image: str) -> None:
        """Remove an image that was made for a moment; that it stays is no error."""
        try:
            self.run("rmi", image)
        except ContainerToolError:
            return

    def id_of(self, name: str) -> str:
        """Id of an image; empty when there is none of that name."""
        inspect = (
            ("inspect", "--type", "image", "--format", "{{.FromImageID}}")
            if self.name == "buildah"
            else ("image", "inspect", "--format", "{{.Id}}")
        )
        try:
            return self.run(*inspect, name).strip().removeprefix("sha256:")
        except ContainerToolError:
            return ""

    def push(self, name: str) -> None:
        """:raises ContainerToolError: when the registry does not take it."""
        if self.name != "docker" and self.is_index(name):
            self.run("manifest", "push", "--all", name, f"docker://{name}", seconds=PUSH_SECONDS)
        else:
            self.run("push", name, seconds=PUSH_SECONDS)


def reproducible_archive(built: Path, named: Path, names: Sequence[str], kept: int | None = None, time: int = 0) -> str:
    """Write an image (docker save) anew, without what is of the machine that has built it.

    :param kept: how many layers are as they should be; None when all are.
    :param time: of the files in the others, in seconds since 1970.
    :returns: its id, the hash of its configuration.
    """
    with tarfile.open(built) as source, tarfile.open(named, "w") as target, tempfile.TemporaryFile() as scratch:

        def read(name: str) -> bytes:
            handle = source.extractfile(name)
            return handle.read() if handle else b""

        def write(name: str, content: IO[bytes]) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = content.seek(0, io.SEEK_END)
            content.seek(0)
            target.addfile(entry, content)

        manifest = json.loads(read("manifest.json"))[0]
        config = {
            name: value for name, value in json.loads(read(manifest["Config"])).items() if name not in OF_THE_BUILD
        }
        config["config"].pop("Hostname", None)
        config["config"].get("Labels", {}).pop("io.buildah.version", None)
        for step in config["history"]:
            if step.get("comment", "").startswith("FROM "):
                del step["comment"]
        layers: dict[str, None] = {}
        for number, layer in enumerate(manifest["Layers"]):
            content = source.extractfile(layer) or io.BytesIO()  # also where it is a link to one that is the same
            if kept is not None and number >= kept:
                scratch.seek(0)
                scratch.truncate()
                layer = at_time(content, scratch, time)
                config["rootfs"]["diff_ids"][number] = f"sha256:{layer}"
                layer, content = f"{layer}.tar", scratch
            if layer not in layers:
                write(layer, content)
            layers[layer] = None
            manifest["Layers"][number] = layer
        text = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
        image = hashlib.sha256(text).hexdigest()
        write(f"{image}.json", io.BytesIO(text))
        listed = [{"Config": f"{image}.json", "RepoTags": list(names), "Layers": manifest["Layers"]}]
        write("manifest.json", io.BytesIO(json.dumps(listed).encode()))
    return image


def at_time(layer: IO[bytes], target: IO[bytes], time: int) -> str:
    """Write a layer whose files are all of one time.

    :returns: its hash.
    """
    with tarfile.open(fileobj=layer) as source, tarfile.open(fileobj=target, mode="w") as made:
        for entry in source:
            entry.mtime = time
            entry.pax_headers = {name: text for name, text in entry.pax_headers.items() if not name.endswith("time")}
            made.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
    target.seek(0)
    digest = hashlib.sha256()
    for part in iter(lambda: target.read(1 << 20), b""):
        digest.update(part)
    return digest.hexdigest()


def name_for(base: str, platform: str) -> str:
    """An image, and the platform where that is not the controller's own."""
    return f"{base} for {platform}" if platform else base


def probe_hint(error: str, output: str = "") -> str:
    """What to do when a base image cannot be used.

    :param output: all that the tool has printed.
    """
    if "exec format" in f"{error} {output}".lower():
        return "This machine does not run that platform's programs: apt install qemu-user-static lets it."
    if re.search(r"(?i)python3.*(not found|no such file)", error):
        return "It needs python3 in its path, as docker.io/library/python:3.13-slim-trixie has it."
    if "daemon" in error.lower():
        return "Start that, or choose another one with forge_image_tool."
    return "Name one that this machine has or can pull."


def cause_of(output: str) -> str:
    """What a tool gives as the cause: its last line that names an error, or its last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(?i)(.*\b)?error\b", line)]
    cause = (errors or lines or ["it does not say why"])[-1]
    return re.sub(r"(?i)^error:\s*", "", cause).rstrip(".")
