# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference app on a real cluster: applied and waited for, released and taken back under load.

KUBECONFIG names the cluster; it is kind's in the hosted workflow. Other variables of the environment say what another one needs:
FORGE_CLUSTER_LOAD brings an image to its nodes, FORGE_CLUSTER_TOOL makes it on FORGE_CLUSTER_BASE, and FORGE_CLUSTER_DATABASE_URL is a
PostgreSQL that pods reach, where there is none of its own from FORGE_CLUSTER_POSTGRES.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import REPOSITORY
from tiny import load

pytestmark = pytest.mark.cluster
NAMESPACE = "parts"
SECRET = "correct-horse-battery-staple-and-more"
PASSWORD = "b4ttery-5taple"
POSTGRES = os.environ.get("FORGE_CLUSTER_POSTGRES", "docker.io/library/postgres:17")
LOAD = os.environ.get("FORGE_CLUSTER_LOAD", "kind load docker-image")
DATABASE = f"""
apiVersion: v1
kind: Pod
metadata: {{name: db, labels: {{app: db}}}}
spec:
  containers:
    - name: db
      image: {POSTGRES}
      env:
        - {{name: POSTGRES_USER, value: parts}}
        - {{name: POSTGRES_PASSWORD, value: {PASSWORD}}}
      readinessProbe: {{exec: {{command: [pg_isready, -h, 127.0.0.1, -U, parts]}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{selector: {{app: db}}, ports: [{{port: 5432}}]}}
"""
DOOR = """
apiVersion: v1
kind: Service
metadata: {name: door}
spec:
  type: NodePort
  selector: {app.kubernetes.io/name: parts, app.kubernetes.io/component: web}
  ports: [{port: 80, targetPort: http, nodePort: 30080}]
"""


@dataclass
class Cluster:
    directory: Path
    url: str = ""  # of the app, from here
    database_url: str = ""
    variables: dict[str, Any] = field(default_factory=dict)

    def kubectl(self, *words: str, text: str = "", check: bool = True, namespace: str = NAMESPACE) -> str:
        done = subprocess.run(
            ["kubectl", "--namespace", namespace, *words], input=text, capture_output=True, text=True, timeout=300
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def play(self, playbook: str, *options: str, check: bool = True, **variables: Any) -> str:
        """Run a playbook, and return what it printed, as one line."""
        settings = {
            "forge_app": "parts",
            "forge_source": str(REPOSITORY / "app"),
            "forge_target": "thecodeforge.main:app",
            "forge_migrations": ["alembic upgrade head"],
            "forge_database_url": self.database_url,
            "forge_environment": {"DATABASE_URL": "{{ forge_database_url }}", "SECRET_KEY": SECRET},
            "forge_image_tool": os.environ.get("FORGE_CLUSTER_TOOL", "docker"),
            "forge_kubernetes_directory": str(self.directory / "kubernetes"),
            "forge_kubernetes_apply": True,
            "forge_kubernetes_wait_seconds": 120,
            "forge_kubernetes_max_replicas": 3,
            "forge_edge_names": ["parts.example.org"],
            "forge_processes": {
                "worker": {"command": "python -c 'import time; time.sleep(9999)'"},
                "nightly": {"command": "alembic current", "schedule": "minutely", "once": True},
            },
            **self.variables,
            **variables,
        }
        if os.environ.get("FORGE_CLUSTER_BASE"):
            settings["forge_image_base"] = os.environ["FORGE_CLUSTER_BASE"]
        inventory = self.directory / "hosts.json"
        inventory.write_text(json.dumps({"forge_app": {"hosts": {"web1": {}}, "vars": settings}}))
        done = subprocess.run(
            ["ansible-playbook", "-i", str(inventory), f"playbooks/{playbook}.yml", *options],
            cwd=REPOSITORY, env={**os.environ, "ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert check == (done.returncode == 0), done.stdout[-4000:] + done.stderr
        return re.sub(r"\s+", " ", done.stdout + done.stderr)

    def image(self, tag: str) -> str:
        """Make an image and bring it to the nodes; its name with the release."""
        name = f"registry.invalid/parts:{tag}"
        printed = self.play("image", forge_image=name)
        release = re.search(rf"{name} ([0-9a-f]{{12}}) ", printed)
        assert release, printed
        image = f"registry.invalid/parts:{release[1]}"
        subprocess.run([*shlex.split(LOAD), image], check=True, timeout=600)
        return image

    def setting(self, name: str) -> str:
        return self.kubectl("exec", "deployment/parts", "--", "printenv", name, check=False)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    made.kubectl("create", "namespace", NAMESPACE)
    try:
        made.database_url = os.environ.get("FORGE_CLUSTER_DATABASE_URL", "")
        if not made.database_url:
            made.database_url = f"postgresql://parts:{PASSWORD}@db/parts"
            made.kubectl("apply", "--filename", "-", text=DATABASE)
            made.kubectl("wait", "--for", "condition=ready", "--timeout", "180s", "pod/db")
        # After the database, whose image runs as root.
        made.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        made.kubectl("apply", "--filename", "-", text=DOOR)
        address = made.kubectl(
            "get", "nodes", "--output", "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}"
        )
        made.url = f"http://{address}:30080"
        made.variables["forge_kubernetes_image"] = made.image("1")
        yield made
    finally:
        made.kubectl("delete", "namespace", NAMESPACE, "--timeout", "180s")


def test_it_is_applied_and_serves(cluster: Cluster) -> None:
    would = cluster.play("kubernetes", "--check", "--diff")
    assert "Nothing was applied" not in would
    assert cluster.kubectl("get", "deployments", "--output", "name") == ""
    printed = cluster.play("kubernetes")
    assert SECRET not in printed + would
    assert "changed=0" in cluster.play("kubernetes")
    assert httpx.post(f"{cluster.url}/parts", json={"serial": "b-1", "name": "bolt"}).status_code in (201, 409)
    spec = cluster.kubectl("get", "deployment,job,configmap", "--output", "yaml")
    assert SECRET not in spec
    assert PASSWORD not in spec
    assert cluster.kubectl("exec", "deployment/parts", "--", "id", "-u") == "10001"


def test_what_is_around_the_app_is_there_and_works(cluster: Cluster) -> None:
    kinds = "ingress,networkpolicy,poddisruptionbudget,horizontalpodautoscaler,service"
    names = cluster.kubectl("get", kinds, "--selector", "app.kubernetes.io/name=parts", "--output", "name").split()
    assert {name.rpartition("/")[2] for name in names} == {"parts"}
    assert len(names) == 5
    cluster.kubectl("rollout", "status", "deployment/parts-worker", "--timeout", "60s")
    nightly = ("--selector", "app.kubernetes.io/component=process-nightly")
    deadline = time.monotonic() + 180
    while "Complete" not in cluster.kubectl(
        "get", "jobs", *nightly, "--output", "jsonpath={..status.conditions[*].type}"
    ):
        assert time.monotonic() < deadline
        time.sleep(2)
    assert "0001 (head)" in cluster.kubectl("logs", *nightly)
    pods = "jsonpath={.status.readyReplicas}"
    deadline = time.monotonic() + 90  # the autoscaler brings the least that it may have
    while cluster.kubectl("get", "deployment", "parts", "--output", pods) != "2":
        assert time.monotonic() < deadline
        time.sleep(1)


def test_a_release_under_load_loses_nothing_and_goes_back_with_its_settings(cluster: Cluster) -> None:
    with load(cluster.url, keepalive=2, closing=2, post=2, pausing=4, pause=0.02) as result:
        time.sleep(1)
        cluster.play(
            "kubernetes",
            forge_environment={"DATABASE_URL": "{{ forge_database_url }}", "SECRET_KEY": SECRET, "LOG_LEVEL": "DEBUG"},
        )
        assert cluster.setting("FORGE_LOG_LEVEL") == "DEBUG"
        cluster.kubectl("rollout", "undo", "deployment/parts")
        cluster.kubectl("rollout", "status", "deployment/parts", "--timeout", "120s")
        time.sleep(1)
    result.pop("acknowledged", None)
    print(result)
    assert cluster.setting("FORGE_LOG_LEVEL") == ""
    assert result["total"] > 500
    assert result["lost"] == {}


def test_a_migration_that_fails_leaves_what_serves(cluster: Cluster) -> None:
    settings = {"DATABASE_URL": "{{ forge_database_url }}", "SECRET_KEY": SECRET, "LOG_LEVEL": "ERROR"}
    for _again in range(2):  # the job that has failed is made anew
        said = cluster.play(
            "kubernetes", check=False, forge_migrations=["alembic upgrade none"], forge_environment=settings
        )
        assert "The migrations have failed in the cluster: " in said
        assert "Can't locate revision identified by 'none'" in said
    assert cluster.setting("FORGE_LOG_LEVEL") == ""
    cluster.play("kubernetes", forge_environment=settings)
    assert cluster.setting("FORGE_LOG_LEVEL") == "ERROR"


def test_a_release_that_does_not_serve_is_said_and_what_served_serves(cluster: Cluster) -> None:
    said = cluster.play(
        "kubernetes", check=False, forge_kubernetes_wait_seconds=15, forge_target="thecodeforge.none:app"
    )
    assert "The release does not serve in the cluster within 15 s: " in said
    assert "thecodeforge.none" in said
    assert httpx.get(f"{cluster.url}/healthz").status_code == 200
    cluster.play("kubernetes")
