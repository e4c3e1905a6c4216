# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images by the other tools, and for another platform. What this machine lacks of that is unpacked from the distribution's packages, and
not installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import REPOSITORY, SET, Fleet
from containers import NAME, Storage, as_root, base_image, loaded, run_flags
from test_image import running
from tiny import MAIN, write_project

sys.path.insert(0, str(REPOSITORY / "tests" / "lab"))
from forge_lab.images import SYSTEMS
from forge_lab.machine import HOME

pytestmark = pytest.mark.thorough
TWO = "registry.invalid/shop:two"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
# Of an aarch64 program: \x7fELF, 64 bits, little-endian, an executable or a shared object, machine 183.
# Source: qemu, scripts/qemu-binfmt-conf.sh
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


@pytest.fixture(scope="module")
def base() -> Iterator[tuple[str, Path]]:
    with base_image() as found:
        yield found


@pytest.fixture(scope="module")
def storage(base: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with loaded(base, tmp_path_factory.mktemp("storage")) as made:
        yield made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # uvloop is compiled: its wheel is another one for each machine.
    return write_project(tmp_path_factory.mktemp("shop"), "gunicorn", "uvicorn-worker", "uvloop", main=MAIN)


def unpacked(package: str, directory: Path) -> Path:
    """A package of this machine's distribution, unpacked."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(as_root(["apt-get", "-qq", "update"]), check=True)
    subprocess.run(["apt-get", "-qq", "download", package], cwd=directory, check=True)
    (archive,) = directory.glob(f"{package}_*.deb")
    subprocess.run(["dpkg", "--extract", str(archive), str(directory)], check=True)
    return directory


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH with buildah."""
    if shutil.which("buildah"):
        return os.environ["PATH"]
    return f"{unpacked('buildah', tmp_path_factory.mktemp('buildah'))}/usr/bin:{os.environ['PATH']}"


def test_buildah_makes_the_same_image_as_podman(
    storage: Storage, base: tuple[str, Path], source: Path, buildah: str, tmp_path: Path
) -> None:
    storage.image(source)
    with loaded(base, tmp_path) as other:
        other.path = buildah
        assert "changed=1" in other.image(source, forge_image_tool="buildah")
        assert "changed=0" in other.image(source, forge_image_tool="buildah")
        assert other.inspect()["Id"] == storage.inspect()["Id"]
        assert sorted(other.inspect()["RepoTags"]) == sorted(storage.inspect()["RepoTags"])
        with running(other) as (_container, url):
            assert httpx.get(url + "/healthz").status_code == 200


def test_what_has_no_wheel_is_compiled_by_buildah(storage: Storage, buildah: str, tmp_path: Path) -> None:
    source = write_project(tmp_path / "shop", "gunicorn", "uvicorn-worker", "psycopg2", main=MAIN)
    storage.path = buildah
    said = storage.image(
        source,
        forge_image="registry.invalid/shop:compiled",
        forge_image_tool="buildah",
        forge_packages=["libpq5"],
        forge_build_packages=["build-essential", "python3-dev", "libpq-dev"],
        forge_build_cache=str(tmp_path / "cache"),
    )
    assert "Compile" in said


# -- another platform ------------------------------------------------------------------------------


@contextmanager
def emulated(directory: Path) -> Iterator[None]:
    """Let this machine run programs for aarch64, where it does not."""
    mounted = BINFMT / "register"
    mounted_before = mounted.exists()
    if not mounted_before:
        subprocess.run(as_root(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)]), check=True)
    ours = BINFMT / f"forge-aarch64-{os.getpid()}"
    if not list(BINFMT.glob("*aarch64*")):
        program = unpacked("qemu-user-static", directory) / "usr" / "bin" / "qemu-aarch64-static"
        # F: opened now, so that it is there in every root.
        line = f":{ours.name}:M::{MAGIC}:{MASK}:{program}:F"
        subprocess.run(as_root(["tee", str(mounted)]), input=line, text=True, check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        if ours.exists():
            subprocess.run(as_root(["tee", str(ours)]), input="-1", text=True, check=True, stdout=subprocess.DEVNULL)
        if not mounted_before:
            subprocess.run(as_root(["umount", str(BINFMT)]), check=True)


@pytest.fixture(scope="module")
def both(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of a base for both platforms, on a machine that runs both."""
    system, name = SYSTEMS["debian13"], "localhost/both:1"
    root = HOME / "arm64.tar"  # takes minutes, as its programs are emulated: kept, as images of the lab are
    with emulated(tmp_path_factory.mktemp("emulation")):
        if not root.exists():
            made = tmp_path_factory.mktemp("arm64") / "root.tar"
            # It asks for a program that tells which machines are emulated: here one is, by now.
            subprocess.run(
                as_root(
                    ["mmdebstrap", "--quiet", "--variant=minbase", "--architectures=arm64", "--include=python3", "--skip=check/qemu",
                     f"--keyring={system.keyring}", system.suite, str(made), system.lines()[0]]
                ),
                check=True,
            )  # fmt: skip
            shutil.move(made, root)
        storage.podman("import", "--quiet", "--arch", "arm64", str(root), "localhost/arm64:1")
        storage.podman("manifest", "create", name)
        for each in (storage.base, "localhost/arm64:1"):
            storage.podman("manifest", "add", name, f"containers-storage:{each}")
        yield name


def platforms(storage: Storage, name: str) -> dict[str, str]:
    """Digest of each image under a name."""
    listed = json.loads(storage.podman("manifest", "inspect", name))["manifests"]
    return {f"{each['platform']['os']}/{each['platform']['architecture']}": each["digest"] for each in listed}


@pytest.mark.parametrize("tool", ["podman", "buildah"])
def test_one_name_has_an_image_for_each_platform(
    storage: Storage, both: str, source: Path, buildah: str, tool: str, tmp_path: Path
) -> None:
    storage.path = buildah
    name = f"{TWO}-{tool}"
    variables = {
        "forge_image": name,
        "forge_image_base": both,
        "forge_image_platforms": ["linux/amd64", "linux/arm64"],
        "forge_image_tool": tool,
    }
    said = storage.image(source, **variables)
    assert "x86_64, aarch64" in said
    found = platforms(storage, name)
    assert set(found) == {"linux/amd64", "linux/arm64"}
    assert "changed=0" in storage.image(source, **variables)
    assert platforms(storage, name) == found
    release = re.search(rf"{name} ([0-9a-f]{{12}}) ", said)
    assert release
    assert platforms(storage, f"registry.invalid/shop:{release[1]}") == found

    script = "import platform, uvloop.loop; print(platform.machine(), uvloop.loop.__file__)"
    image = f"registry.invalid/shop@{found['linux/arm64']}"
    told = storage.podman(
        "run", "--rm", "--no-healthcheck", "--platform", "linux/arm64", *run_flags(), image, "python", "-c", script
    )
    assert told.splitlines()[-1].startswith("aarch64 /app/layer/")
    assert "aarch64-linux-gnu" in told


def test_a_name_of_several_becomes_that_of_one_and_back(storage: Storage, both: str, source: Path) -> None:
    variables = {"forge_image": TWO, "forge_image_base": both}
    several = {**variables, "forge_image_platforms": ["linux/amd64", "linux/arm64"]}
    storage.image(source, **several)
    first = platforms(storage, TWO)
    storage.image(source, **variables)
    named = storage.podman("images", "--no-trunc", "--quiet", TWO)  # of several it is that of the index
    assert named == f"sha256:{storage.inspect(TWO)['Id']}"
    storage.image(source, **several)
    assert platforms(storage, TWO) == first


REGISTRY = """
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends docker-registry >/dev/null 2>&1
cat >/etc/docker/registry/config.yml <<END
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/docker-registry}}
http: {addr: ":5000"}
END
systemctl restart docker-registry
"""


def test_both_are_pushed_under_both_names(storage: Storage, both: str, source: Path) -> None:
    with Fleet(lab_set=f"{SET}registry", without_database=True).with_nodes("registry=debian13:forge_app") as fleet:
        fleet.on("registry", REGISTRY)
        storage.registry = f"{fleet.address('registry')}:5000"
        name = f"{storage.registry}/shop:1"
        said = storage.image(
            source,
            forge_image=name,
            forge_image_base=both,
            forge_image_platforms=["linux/amd64", "linux/arm64"],
            forge_image_push=True,
        )
        release = re.search(rf"{name} ([0-9a-f]{{12}}) ", said)
        assert release
        manifests = f"http://{storage.registry}/v2/shop/manifests"
        listed = "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json"
        found = [
            httpx.get(f"{manifests}/{tag}", headers={"Accept": listed}).raise_for_status().json()["manifests"]
            for tag in ("1", release[1])
        ]
        assert found[0] == found[1]
        assert sorted(each["platform"]["architecture"] for each in found[0]) == ["amd64", "arm64"]
        for each in found[0]:
            httpx.get(f"{manifests}/{each['digest']}", headers={"Accept": each["mediaType"]}).raise_for_status()


def test_a_platform_that_the_base_has_not_is_said(storage: Storage, source: Path) -> None:
    said = storage.image(source, check=False, forge_image=NAME, forge_image_platforms=["linux/arm64"])
    assert "forge_image_base: " in said
    assert "linux/arm64" in said
    assert "Nothing was changed." in said
    assert "Traceback" not in said


# -- docker ----------------------------------------------------------------------------------------


# A node shares its control groups with the machine, which a container of a container cannot be shown: so they are mounted anew, from
# where the daemon is.
DAEMON = """
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends docker.io docker-cli docker-buildx >/dev/null 2>&1
systemctl stop docker docker.socket containerd
systemd-run --quiet --unit docker-of-the-test unshare --cgroup --mount sh -c '
    umount -R /sys/fs/cgroup; mount -t tmpfs cgroup /sys/fs/cgroup
    for each in cpu cpuset memory devices freezer blkio pids; do
        mkdir /sys/fs/cgroup/$each; mount -t cgroup -o $each cgroup /sys/fs/cgroup/$each
    done
    exec dockerd --host tcp://0.0.0.0:2375 --tls=false --storage-driver vfs --iptables=false --ip6tables=false'
"""


@pytest.fixture(scope="module")
def docker(base: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """Docker's engine on a node, and its program here."""
    name, archive = base
    storage = Storage(tmp_path_factory.mktemp("docker"), name)
    with Fleet(lab_set=f"{SET}docker", without_database=True).with_nodes("docker=debian13:forge_app") as fleet:
        fleet.on("docker", DAEMON)
        programs, config = storage.home / "bin", storage.home / "config" / "cli-plugins"
        for path, target in (("/usr/bin/docker", programs), ("/usr/libexec/docker/cli-plugins/docker-buildx", config)):
            target.mkdir(parents=True)
            subprocess.run(
                as_root(["podman", "cp", f"forge-lab-{fleet.lab_set}-docker:{path}", str(target)]), check=True
            )
        storage.path = f"{programs}:{os.environ['PATH']}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", f"tcp://{fleet.address('docker')}:2375")
            patch.setenv("DOCKER_CONFIG", str(config.parent))
            fleet.until(lambda: run_docker(storage, "info", check=False), what="the daemon")
            run_docker(storage, "load", "--quiet", "--input", str(archive))
            yield storage


def run_docker(storage: Storage, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *arguments], env={**os.environ, "PATH": storage.path}, capture_output=True, text=True
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip() if done.returncode == 0 else ""


def test_docker_makes_the_same_image_from_an_empty_cache(docker: Storage, source: Path) -> None:
    assert "changed=1" in docker.image(source, forge_image_tool="docker")
    first = run_docker(docker, "image", "inspect", "--format", "{{.Id}}", NAME)
    run_docker(docker, "rmi", "--force", first)
    run_docker(docker, "builder", "prune", "--all", "--force")
    assert "changed=1" in docker.image(source, forge_image_tool="docker")
    assert run_docker(docker, "image", "inspect", "--format", "{{.Id}}", NAME) == first
    assert "changed=0" in docker.image(source, forge_image_tool="docker")


def test_a_change_of_code_is_a_layer_for_docker_too(docker: Storage, source: Path) -> None:
    docker.image(source, forge_image_tool="docker")
    layers = ("image", "inspect", "--format", "{{json .RootFS.Layers}}")
    before = json.loads(run_docker(docker, *layers, NAME))
    (source / "shop" / "version.py").write_text("VERSION = 3\n")
    docker.image(source, forge_image_tool="docker", forge_image="registry.invalid/shop:next")
    after = json.loads(run_docker(docker, *layers, "registry.invalid/shop:next"))
    assert [index for index, each in enumerate(before) if each != after[index]] == [len(before) - 2]
    assert len(before) == len(after)  # the last is that of WORKDIR, which is empty


def test_what_docker_runs_serves_and_ends_by_itself(docker: Storage, source: Path) -> None:
    docker.image(source, forge_image_tool="docker")
    container = run_docker(docker, "run", "--detach", "--read-only", "--publish", "8000:8000", NAME)
    try:
        url = f"http://{os.environ['DOCKER_HOST'].split('/')[2].split(':')[0]}:8000/healthz"
        deadline = time.monotonic() + 60
        while not answers(url):
            assert time.monotonic() < deadline, run_docker(docker, "logs", container)
            time.sleep(0.2)
        assert run_docker(docker, "exec", container, "id", "-u") == "10001"
        health = ("inspect", "--format", "{{.State.Health.Status}}", container)
        while run_docker(docker, *health) != "healthy":
            assert time.monotonic() < deadline
            time.sleep(1)
        run_docker(docker, "stop", "--time", "30", container)
        assert run_docker(docker, "inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    finally:
        run_docker(docker, "rm", "--force", container, check=False)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def test_several_platforms_are_not_dockers(docker: Storage, source: Path) -> None:
    several = ["linux/amd64", "linux/arm64"]
    said = docker.image(source, check=False, forge_image_tool="docker", forge_image_platforms=several)
    assert "forge_image_platforms: several platforms under one name need podman or buildah, and here is docker" in said
