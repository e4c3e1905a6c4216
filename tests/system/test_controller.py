# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node plays the controller: the distribution's own Python, what pip gives it, and the artifact of this collection."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import LAB, REPOSITORY, SET, Fleet, Run, some_of
from tiny import write_project

# What runs the controller, the Python that its distribution has, the ansible-core that pip finds for that, and the
# host that it deploys to: one of the other distribution, so that wheels are for a Python that is not the controller's.
CONTROLLERS = {
    "controller12": ("debian12", "3.11", "2.19", "app13"),
    "controller13": ("debian13", "3.13", "2.", "app12"),
}
HOSTS = {"app12": "debian12", "app13": "debian13"}
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"  # a node trusts whom this machine trusts
INSTALL = """
sudo apt-get -qq update
sudo DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends python3-venv openssh-client git
python3 -m venv ~/ansible
. ~/ansible/bin/activate
pip install --quiet --upgrade ansible-core uv
ansible-galaxy collection install --offline --force *.tar.gz
"""
CONFIGURE = """
rm -rf shop-servers
cp -r ~/.ansible/collections/ansible_collections/thecodeforge/fastapi/inventories/example shop-servers
cd shop-servers
sed -i -e 's/web1.example.org/{address}/' -e /web2/d -e /db1/d hosts.yml
sed -i -e /^forge_app/d -e /forge_migrations/d -e /forge_schema_version/d -e /DATABASE_URL/d group_vars/all/main.yml
printf 'forge_workers: 2\\nforge_watch_seconds: 1\\n' >> group_vars/all/main.yml
sed -i 's/replace-me.*/{secret}/' group_vars/all/vault.yml
ansible-vault encrypt group_vars/all/vault.yml
ssh -o StrictHostKeyChecking=accept-new admin@{address} true
"""


def package_index() -> dict[str, str]:
    """Environment variables that make pip and uv on a node use the package index of this machine."""
    names = re.compile(
        r"(?i:https?|no|all)_proxy|UV_(DEFAULT_INDEX|INDEX\w*|EXTRA_INDEX_URL|INSECURE_HOST|HTTP_TIMEOUT)"
    )
    found = {name: value for name, value in os.environ.items() if names.fullmatch(name)}
    pip = [str(REPOSITORY / "build" / "uv" / "bin" / "pip"), "config", "list"]
    for line in subprocess.run(pip, check=True, capture_output=True, text=True).stdout.splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        if option in ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout"):
            values = ast.literal_eval(value).split()
            found[f"PIP_{option.upper().replace('-', '_')}"] = " ".join(
                each
                for each in values
                if not each.startswith("file:")  # of this machine only
            )
    found = {name: value for name, value in found.items() if value}
    return {**found, "PIP_CERT": AUTHORITIES, "SSL_CERT_FILE": AUTHORITIES, "ANSIBLE_NOCOLOR": "1"}


@dataclass
class Controller:
    """A node as the machine that somebody deploys from, as its user ``admin``."""

    nodes: Fleet
    name: str

    @property
    def target(self) -> str:
        return CONTROLLERS[self.name][3]

    def _ssh(self, command: str, data: bytes = b"") -> Run:
        began = time.monotonic()
        done = subprocess.run(
            [str(LAB), "ssh", "--set", self.nodes.lab_set, self.name, "--", command],
            input=data, capture_output=True, timeout=300,
        )  # fmt: skip
        return Run(done.returncode, (done.stdout + done.stderr).decode(), time.monotonic() - began)

    def copy(self, directory: Path) -> None:
        """Put what a directory has into the user's home."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(directory, ".")
        sent = self._ssh("tar -x --no-same-owner", archive.getvalue())
        assert sent.rc == 0, sent.output

    def run(self, script: str, check: bool = True) -> Run:
        """Run a shell script with what ``~/.profile`` sets, in the home directory."""
        run = self._ssh(f"bash -lc {shlex.quote('set -e' + chr(10) + script)}")
        if check:
            assert run.rc == 0, run.output[-6000:]
        return run

    def play(self, playbook: str, check: bool = True) -> Run:
        return self.run(f"cd shop-servers\nansible-playbook thecodeforge.fastapi.{playbook}", check)


def build_collection(directory: Path, into: Path) -> None:
    subprocess.run(
        ["ansible-galaxy", "collection", "build", "--output-path", str(into), str(directory)],
        check=True, capture_output=True,
    )  # fmt: skip


def build_postgresql(scratch: Path, into: Path) -> None:
    """An artifact of community.postgresql, from the one that the package ``ansible`` brings."""
    package = importlib.util.find_spec("ansible_collections")
    assert package
    assert package.submodule_search_locations
    copy = scratch / "postgresql"
    shutil.copytree(Path(package.submodule_search_locations[0]) / "community" / "postgresql", copy)
    about = json.loads((copy / "MANIFEST.json").read_text())["collection_info"]
    (copy / "galaxy.yml").write_text(json.dumps({key: value for key, value in about.items() if value}))
    for name in ("MANIFEST.json", "FILES.json"):
        (copy / name).unlink()
    build_collection(copy, into)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the user has at home: the app, the artifacts of two collections, and how this machine reaches the index."""
    home = tmp_path_factory.mktemp("home")
    write_project(home / "shop", "uvicorn[standard]", "gunicorn", "uvicorn-worker")
    build_collection(REPOSITORY, home)
    build_postgresql(tmp_path_factory.mktemp("scratch"), home)
    profile = [f"export {name}={shlex.quote(value)}" for name, value in package_index().items()]
    profile += [
        "export ANSIBLE_VAULT_PASSWORD_FILE=~/vault-password",
        "[ ! -e ansible/bin/activate ] || . ansible/bin/activate",
    ]
    (home / ".profile").write_text("\n".join(profile) + "\n")
    (home / ".profile").chmod(0o600)
    (home / "vault-password").write_text(secrets.token_hex())
    return home


@pytest.fixture(scope="module")
def machines() -> Iterator[Fleet]:
    """Virgin nodes: two controllers, and a host for each."""
    found = Fleet(lab_set=f"{SET}controller", without_database=True)
    controllers = [f"{name}={system}:forge_controller" for name, (system, *_) in CONTROLLERS.items()]
    with found.with_nodes(*controllers, *(f"{name}={system}:forge_app" for name, system in HOSTS.items())):
        yield found


@pytest.fixture(scope="module", params=some_of(CONTROLLERS, "controller12"))
def controller(request: pytest.FixtureRequest, machines: Fleet, home: Path) -> Controller:
    """One on which everything is installed as the README says, with an inventory made from the example."""
    controller = Controller(machines, request.param)
    controller.copy(home)
    controller.run(INSTALL)
    controller.run("[ -e .ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519")
    key = controller.run("cat .ssh/id_ed25519.pub").output.strip()
    machines.on(controller.target, f"echo '{key}' >> /home/admin/.ssh/authorized_keys")
    controller.run(CONFIGURE.format(address=machines.address(controller.target), secret=secrets.token_hex()))
    return controller


def test_the_distributions_own_python_deploys(controller: Controller) -> None:
    _system, python, core, target = CONTROLLERS[controller.name]
    address = controller.nodes.address(target)
    version = controller.run("ansible --version").output
    assert f"python version = {python}." in version
    assert re.search(rf"^ansible \[core {core}", version), version
    assert controller.run("readlink -f ansible/bin/python").output == f"/usr/bin/python{python}\n"

    site = controller.play("site")
    live = controller.nodes.live(target)
    answer = json.loads(controller.run(f"curl -fsS http://{address}:8000/version").output)
    assert answer["generation"] == live
    assert live in site.output
    tools = ["uv", "uvx", "pip", "pip3"]
    names = " -o ".join(f"-name {name}" for name in tools)
    assert controller.nodes.on(target, f"find / -xdev \\( {names} \\)") == ""

    serving = [controller.nodes.on(host, "readlink /srv/forge/current || true") for host in HOSTS]
    releases = {Path(generation).name.partition("-")[0] for generation in serving if generation}
    assert releases == {live.partition("-")[0]}, "the same code, built with another Python, is the same release"

    assert live in controller.play("status").output
    again = controller.play("site")
    assert again.changed(address) == 0
    assert controller.nodes.live(target) == live


@pytest.mark.thorough
@pytest.mark.parametrize("controller", ["controller12"], indirect=True)
def test_a_controller_without_a_fit_uv_is_told_which_one_and_how_to_get_it(controller: Controller) -> None:
    controller.play("clean_cache")  # what is built needs no uv
    for unfit, found in (("pip uninstall --quiet --yes uv", "no uv"), ("pip install --quiet uv==0.4.0", "0.4.0")):
        controller.run(unfit)
        refused = controller.play("build", check=False)
        sentence = re.search(r"controller.{1,100}\d or newer is needed.{1,100}pip install --upgrade uv", refused.said())
        assert sentence, refused.output
        assert found in sentence[0]
        assert "Traceback" not in refused.output
    cure = re.search(r"[\w/.-]+ -m pip install --upgrade uv", sentence[0])
    assert cure
    controller.run(cure[0])
    controller.play("build")
