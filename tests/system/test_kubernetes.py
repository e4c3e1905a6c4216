# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifests of the reference app, run by an engine that reads them: `podman kube play`, on a node with a PostgreSQL of its own and a
registry, which the image is pushed to.

It knows no Ingress, no Service and no probes' fine points; those are checked against the API's schemas (tests/unit).
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from conftest import REPOSITORY, SET, Fleet
from containers import Storage, as_root, base_image, loaded
from tiny import load

SECRET = "correct-horse-battery-staple-and-more"
PASSWORD = "b4ttery-5taple"
PLAY = ("podman", "--cgroup-manager=cgroupfs", "kube", "play", "--replace", "-")
SETTINGS = {"DATABASE_URL": "{{ forge_database_url }}", "SECRET_KEY": SECRET}
VERSION = "su postgres -c \"psql -qtAc 'select version_num from alembic_version' parts\""
# As roles/edge has it: what may be asked again is, and a POST has a connection of its own.
BALANCER = """
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  retries 3
  option redispatch 1
frontend http
  bind :8080
  use_backend writes unless { method GET HEAD OPTIONS }
  default_backend reads
backend reads
  option httpchk GET /healthz
  http-reuse safe
  retry-on conn-failure empty-response
SERVERS
backend writes
  option httpchk GET /healthz
  http-reuse never
  retry-on conn-failure
SERVERS
"""
DATABASE = f"""
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes docker-registry haproxy podman postgresql >/dev/null 2>&1
cat >/etc/docker/registry/config.yml <<END
version: 0.1
storage: {{filesystem: {{rootdirectory: /var/lib/docker-registry}}}}
http: {{addr: ":5000"}}
END
systemctl restart docker-registry
cd /etc/postgresql/*/main
echo "listen_addresses = '*'" >>postgresql.conf
echo 'host parts parts 0.0.0.0/0 scram-sha-256' >>pg_hba.conf
systemctl restart postgresql
su postgres -c "psql -qc \\"create role parts login password '{PASSWORD}'\\" -c 'create database parts owner parts'"
"""


@dataclass
class Cluster:
    """A node that plays manifests, and the files for it."""

    fleet: Fleet
    storage: Storage
    directory: Path

    def write(self, **variables: object) -> dict[str, str]:
        """Run the playbook; text by the part of the manifests."""
        inventory = self.directory / "hosts.json"
        settings = {
            "forge_app": "parts",
            "forge_source": str(REPOSITORY / "app"),
            "forge_target": "thecodeforge.main:app",
            "forge_migrations": ["alembic upgrade head"],
            "forge_environment": SETTINGS,
            "forge_database_url": f"postgresql://parts:{PASSWORD}@{self.fleet.address('kube')}/parts",
            "forge_image": f"{self.storage.registry}/parts:1",
            "forge_image_base": self.storage.base,
            "forge_kubernetes_directory": str(self.directory / "kubernetes"),
            **variables,
        }
        inventory.write_text(
            json.dumps({"forge_app": {"hosts": {"web1": {"ansible_host": "192.0.2.1"}}, "vars": settings}})
        )
        done = subprocess.run(
            ["ansible-playbook", "-i", str(inventory), "playbooks/kubernetes.yml"],
            cwd=REPOSITORY,
            env=self.storage.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
        return {path.stem[2:]: path.read_text() for path in (self.directory / "kubernetes").iterdir()}

    def play(self, *texts: str) -> str:
        """Let the node run manifests, in place of those of the same names."""
        text = "---\n".join(texts)
        done = subprocess.run(
            as_root(["podman", "exec", "--interactive", f"forge-lab-{self.fleet.lab_set}-kube", *PLAY]),
            input=text, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def web(self) -> str:
        """Name of the container that serves."""
        return self.fleet.on("kube", "podman ps --format '{{.Names}}' | grep web")

    def setting(self, name: str) -> str:
        """What the app has of a setting; empty when it has none."""
        return self.fleet.on("kube", f"podman exec {self.web()} printenv {name} || :")

    def ask(self, path: str, *options: str) -> str:
        """What the app answers within its pod."""
        script = (
            "import sys, urllib.request as r; "
            "q = r.Request('http://127.0.0.1:8000' + sys.argv[1], data=sys.argv[2].encode() if sys.argv[2:] else None, "
            "headers={'content-type': 'application/json'}); print(r.urlopen(q, timeout=10).read().decode())"
        )
        words = " ".join(f"'{word}'" for word in (path, *options))
        return self.fleet.on("kube", f'podman exec {self.web()} python -c "{script}" {words}')


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with (
        base_image() as base,
        Fleet(lab_set=f"{SET}kube", without_database=True).with_nodes("kube=debian13:forge_app") as fleet,
        loaded(base, tmp_path_factory.mktemp("storage")) as storage,
    ):
        storage.registry = f"{fleet.address('kube')}:5000"
        insecure = f'[[registry]]\\nlocation = "{storage.registry}"\\ninsecure = true\\n'
        fleet.on("kube", f"{DATABASE}\nprintf '{insecure}' >/etc/containers/registries.conf.d/test.conf")
        yield Cluster(fleet, storage, tmp_path_factory.mktemp("manifests"))


def test_it_migrates_once_serves_and_goes_back(cluster: Cluster) -> None:
    first = cluster.write()
    for part in ("migrate", "app"):
        assert PASSWORD not in first[part]
        assert SECRET not in first[part]
    release = cluster.storage.inspect(f"{cluster.storage.registry}/parts:1")["Labels"][
        "org.opencontainers.image.version"
    ]
    assert f"image: {cluster.storage.registry}/parts:{release}\n" in first["app"]
    cluster.play(first["settings"], first["migrate"])
    assert cluster.fleet.until(lambda: cluster.fleet.on("kube", VERSION), what="the migration") == "0001"

    cluster.play(first["settings"], first["app"])
    cluster.fleet.until(lambda: "ok" in cluster.ask("/healthz"), what="health")
    assert "bolt" in cluster.ask("/parts", json.dumps({"serial": "b-1", "name": "bolt"}))
    assert "bolt" in cluster.ask("/parts")
    web = cluster.web()
    assert cluster.fleet.on("kube", f"podman exec {web} id -u") == "10001"
    assert "forge_server" in cluster.fleet.on("kube", f"podman exec {web} cat /proc/1/cmdline")

    # A release with other settings, and back to the manifests of the first: its settings come back with it.
    second = cluster.write(forge_environment={**SETTINGS, "LOG_LEVEL": "DEBUG"})
    assert second["app"] != first["app"]
    cluster.play(second["settings"], second["app"])
    assert cluster.fleet.until(lambda: cluster.setting("FORGE_LOG_LEVEL"), what="the second release") == "DEBUG"
    cluster.play(first["settings"], first["app"])
    cluster.fleet.until(lambda: "bolt" in cluster.ask("/parts"), what="going back")
    assert cluster.setting("FORGE_LOG_LEVEL") == ""


def test_containers_that_are_replaced_behind_a_balancer_lose_nothing(cluster: Cluster) -> None:
    """One after the other, as a rollout does it: stopped, and a new one in its place. HAProxy asks each for its health."""
    first = cluster.write()
    (image,) = set(re.findall(r"image: (\S+)", first["app"]))
    names = {
        "parts-a": "10.88.0.201",
        "parts-b": "10.88.0.202",
    }  # podman takes a short one for the beginning of an id, too
    servers = "".join(
        f"  server {name} {address}:8000 check inter 200ms fall 1 rise 1\n" for name, address in names.items()
    )
    settings = f"-e FORGE_SECRET_KEY={SECRET} -e FORGE_DATABASE_URL=postgresql://parts:{PASSWORD}@{cluster.fleet.address('kube')}/parts"

    def start(name: str) -> None:
        options = f"--cgroup-manager=cgroupfs run --detach --replace --no-healthcheck --name {name} --ip {names[name]} --read-only"
        cluster.fleet.on("kube", f"podman {options} {settings} -e WEB_CONCURRENCY=2 {image}")
        cluster.fleet.until(
            lambda: cluster.fleet.on("kube", f"curl -sf http://{names[name]}:8000/healthz", check=False), what="health"
        )

    for name in names:
        start(name)
    configuration = BALANCER.replace("SERVERS\n", servers)
    cluster.fleet.on("kube", f"cat >/etc/haproxy/haproxy.cfg <<'END'\n{configuration}END\nsystemctl restart haproxy")
    url = f"http://{cluster.fleet.address('kube')}:8080"
    cluster.fleet.until(lambda: httpx.get(url + "/parts").status_code == 200, what="the balancer")
    with load(url, keepalive=2, closing=2, post=2, pausing=4, pause=0.02) as result:
        for name in [*names, *names]:
            cluster.fleet.on("kube", f"podman --cgroup-manager=cgroupfs stop --time 30 {name} >/dev/null")
            start(name)
            time.sleep(1)
    result.pop("acknowledged", None)
    print(result)
    assert result["lost"] == {}
    assert result["total"] > 500


def test_a_migration_that_fails_is_a_failed_job(cluster: Cluster) -> None:
    texts = cluster.write(forge_migrations=["alembic upgrade none"])
    cluster.play(texts["settings"], texts["migrate"])
    name = yaml.safe_load(texts["migrate"].split("---")[1])["metadata"]["name"]
    state = f"podman inspect --format '{{{{.State.Status}}}} {{{{.State.ExitCode}}}}' {name}-pod-migrate-1"
    assert cluster.fleet.until(
        lambda: re.fullmatch(r"exited [1-9]\d*", cluster.fleet.on("kube", state)), what="the failure"
    )
