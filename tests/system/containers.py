# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman with images of its own, for tests: it sees and changes no image of this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import REPOSITORY
from tiny import PLAIN

sys.path.insert(0, str(REPOSITORY / "tests" / "lab"))
from forge_lab.images import SYSTEMS, ensure
from forge_lab.machine import as_root, runtime_flags

NAME = "registry.invalid/shop:1.0"


@dataclass
class Storage:
    """Podman with images of its own."""

    home: Path
    base: str = ""
    registry: str = ""  # one that speaks HTTP, as host:port
    path: str = os.environ["PATH"]  # of the playbook

    @property
    def environment(self) -> dict[str, str]:
        runtime = "runc" if "runc" in runtime_flags() else "crun"
        # All of it apart: what two of them share, one would lose with the other.
        engine = {
            "runtime": runtime,
            "static_dir": "libpod",
            "tmp_dir": "tmp",
            "volume_path": "volumes",
            "lock_type": "file",
        }
        lines = [
            f'{key} = "{value if key in ("runtime", "lock_type") else self.home / value}"\n'
            for key, value in engine.items()
        ]
        (self.home / "containers.conf").write_text("[engine]\n" + "".join(lines))
        (self.home / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.home}/images"\nrunroot = "{self.home}/run"\n'
        )
        (self.home / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{self.registry}"\ninsecure = true\n' if self.registry else ""
        )
        return {
            **os.environ,
            "PATH": self.path,
            "CONTAINERS_REGISTRIES_CONF": str(self.home / "registries.conf"),
            "CONTAINERS_CONF": str(self.home / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.home / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }

    def podman(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            as_root(["env", *(f"{key}={value}" for key, value in self.environment.items() if key.startswith(("CONTAINERS", "BUILDAH"))),
                     "podman", *arguments]),
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip() if arguments[0] != "logs" else done.stdout + done.stderr

    def image(self, source: Path, check: bool = True, umask: int = 0o022, **variables: Any) -> str:
        """Run the playbook, and return what it printed, as one line."""
        inventory = self.home / "inventory"
        inventory.mkdir(exist_ok=True)
        settings = {
            **PLAIN,
            "forge_app": "shop",
            "forge_source": str(source),
            "forge_image": NAME,
            "forge_image_base": self.base,
        }
        (inventory / "hosts.json").write_text(
            json.dumps(
                {
                    "forge_app": {"hosts": {"web1": {"ansible_host": "192.0.2.1"}}, "vars": {**settings, **variables}},
                    "forge_database": {"hosts": {"db": {"ansible_host": "192.0.2.2"}}},
                }
            )
        )
        done = subprocess.run(
            ["ansible-playbook", "-i", str(inventory), "playbooks/image.yml"],
            cwd=REPOSITORY, env={**self.environment, "ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, timeout=600,
            umask=umask,
        )  # fmt: skip
        assert check == (done.returncode == 0), done.stdout + done.stderr
        return re.sub(r"\s+", " ", done.stdout + done.stderr)

    def inspect(self, name: str = NAME) -> dict[str, Any]:
        return dict(json.loads(self.podman("image", "inspect", name))[0])


def run_flags() -> list[str]:
    """What this machine needs to run a container; which runtime it takes is in the configuration."""
    return [flag for flag in runtime_flags() if flag not in ("--runtime", "runc")]


@contextmanager
def base_image() -> Iterator[tuple[str, Path]]:
    """Name of an image that has Python, which is that of a lab node, and an archive of it."""
    name = ensure(SYSTEMS["debian13"])
    archive = REPOSITORY / "build" / "tmp" / f"base-{os.getpid()}.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)
    subprocess.run(as_root(["podman", "save", "--quiet", "--output", str(archive), name]), check=True)
    yield name, archive
    archive.unlink()


@contextmanager
def loaded(base: tuple[str, Path], home: Path) -> Iterator[Storage]:
    storage = Storage(home, base[0])
    try:
        storage.podman("load", "--quiet", "--input", str(base[1]))
        yield storage
    finally:
        storage.podman("rm", "--all", "--force", "--time", "0", check=False)
        storage.podman("rmi", "--all", "--force", check=False)
        subprocess.run(as_root(["umount", str(home / "images" / "overlay")]), check=False, capture_output=True)
        subprocess.run(as_root(["rm", "-rf", "--one-file-system", str(home)]), check=False)
