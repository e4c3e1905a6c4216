# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""From a project's lock to the wheels that one target platform needs."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from .errors import BuildError
from .source import Source


@dataclass(frozen=True)
class Platform:
    """What an artifact is built for."""

    python: str  # full version, such as 3.11.2
    machine: str  # such as x86_64
    glibc: str  # such as 2.36
    hosts: tuple[str, ...] = field(default=(), compare=False)

    @property
    def minor(self) -> str:
        return ".".join(self.python.split(".")[:2])

    @property
    def key(self) -> str:
        """Names the platform: hosts with the same key share an artifact."""
        return f"py{self.minor}-{self.machine}-glibc{self.glibc}"

    def markers(self) -> dict[str, str]:
        """Environment markers of the platform (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": self.minor,
            "sys_platform": "linux",
            "extra": "",
        }

    def tags(self) -> list[str]:
        """Platform tags a wheel may have, best first (PEP 600: any glibc up to the host's own)."""
        major, minor = (int(part) for part in self.glibc.split("."))
        tags = [f"manylinux_{major}_{n}_{self.machine}" for n in range(minor, 4, -1)]
        tags += [f"{name}_{self.machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
        return tags


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

    def environment(self) -> dict[str, str]:
        """Environment for uv and pip. Credentials travel here, never on a command line."""
        environment = dict(os.environ)
        for name in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH"):
            environment.pop(name, None)
        environment["UV_PYTHON_DOWNLOADS"] = "never"
        if self.url:
            environment["UV_DEFAULT_INDEX"] = environment["PIP_INDEX_URL"] = self.url
        if self.ca_bundle:
            environment["SSL_CERT_FILE"] = environment["PIP_CERT"] = self.ca_bundle
        return environment


def export_lock(source: Source, index: Index) -> str:
    """The project's lock as requirements with hashes and markers, its development groups left out.

    :raises BuildError: when there is no lock, or it is out of date.
    """
    if not (source.directory / "uv.lock").is_file():
        raise BuildError(f"{source.directory} has no uv.lock: run 'uv lock' there and commit it.")
    command = [
        find_uv(), "export", "--quiet", "--locked", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate",
        "--format", "requirements.txt", "--project", str(source.directory),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=index.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        words = done.stderr.strip()
        if "needs to be updated" in words:
            raise BuildError(f"{source.directory / 'uv.lock'} is out of date: run 'uv lock' there and commit it.")
        raise BuildError(f"uv could not read the lock of {source.directory}: {words}")
    return done.stdout


def requirements_for(exported: str, platform: Platform) -> str:
    """The lines of exported requirements that a platform needs, without their markers.

    :raises BuildError: for a dependency without a hash, or one that is not a release of a package.
    """
    chosen = []
    for line in re.sub(r"\\\n", " ", exported).splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        text, *hashes = line.split(" --hash=")
        try:
            requirement = Requirement(text.strip())
        except InvalidRequirement:
            requirement = None
        if requirement is None or requirement.url:
            raise BuildError(f"The lock holds {text.strip()!r}, which is not a release of a package.")
        if not hashes:
            raise BuildError(f"The lock has no hash for {requirement.name}: only hashed releases are installed.")
        if requirement.marker is None or requirement.marker.evaluate(platform.markers()):
            options = "".join(f" \\\n    --hash={value.strip()}" for value in sorted(hashes))
            chosen.append(f"{requirement.name}{requirement.specifier}{options}\n")
    return "".join(sorted(chosen, key=str.lower))


def fetch_wheels(requirements: Path, destination: Path, platform: Platform, index: Index) -> None:
    """Download the wheels of a platform, every one checked against its hash.

    pip does it because uv cannot download for another platform (astral-sh/uv#3163).

    :raises BuildError: naming the package that has no wheel for the platform, or whose hash differs.
    """
    command = [
        find_uv(), "run", "--quiet", "--no-project", "--isolated", "--with", "pip", "python", "-m", "pip", "download",
        "--quiet", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input",
        "--require-hashes",
        "--requirement", str(requirements), "--dest", str(destination),
        *pip_target(platform),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=index.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(explain_pip(done.stderr, platform))


def pip_target(platform: Platform) -> list[str]:
    abi = "cp" + platform.minor.replace(".", "")
    options = ["--implementation", "cp", "--python-version", platform.minor]
    for tag in platform.tags():
        options += ["--platform", tag]
    return [*options, "--abi", abi, "--abi", "abi3", "--abi", "none"]


def explain_pip(words: str, platform: Platform) -> str:
    """pip's complaint as one sentence."""
    where = f"Python {platform.minor} on {platform.machine} with glibc {platform.glibc}"
    if platform.hosts:
        where += f" ({', '.join(platform.hosts)})"
    unreachable = re.search(r"Retry\(total=0,.* broken by '(.*)': |problem confirming the ssl certificate: (.*)", words)
    if unreachable:
        cause = unreachable[1] or unreachable[2]
        return f"The package index cannot be reached (forge_build_index_url, forge_build_ca_bundle): {cause}."
    missing = re.search(r"No matching distribution found for (\S+)", words)
    if missing:
        return f"There is no wheel of {missing[1]} for {where}, or the index does not have that release."
    if "DO NOT MATCH THE HASHES" in words:
        package = re.search(r"^\s+(\S+==\S+|\S+) from ", words, re.MULTILINE)
        return f"The index serves {package[1] if package else 'a package'} with another hash than the lock: not used."
    return f"Could not download the dependencies for {where}: {words.strip()[-1500:]}"


def fetch_installer(destination: Path, platform: Platform, index: Index) -> Path:
    """The uv that installs layers on hosts: the controller's version, for the hosts' machine.

    :returns: path of the executable, compressed.
    :raises BuildError: when it cannot be had.
    """
    version = subprocess.run([find_uv(), "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    packed = destination / f"uv-{version}-{platform.machine}.gz"
    if packed.is_file():
        return packed
    destination.mkdir(parents=True, exist_ok=True)
    staging = destination / f".{packed.name}.{os.getpid()}"
    command = [
        find_uv(), "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(staging),
        "--python-platform", f"{platform.machine}-unknown-linux-gnu", f"uv=={version}",
    ]  # fmt: skip
    done = subprocess.run(
        command, env=index.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    try:
        if done.returncode != 0:
            raise BuildError(f"Could not get uv {version} for {platform.machine}: {done.stderr.strip()[-1000:]}")
        executable = (staging / "bin" / "uv").read_bytes()
        (staging / packed.name).write_bytes(gzip.compress(executable, compresslevel=6, mtime=0))
        os.rename(staging / packed.name, packed)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return packed
