# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests of an app for Kubernetes, from what an inventory says of it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...module_utils._private.masking import holds_secret
from .cron import NoCronError, cron_of
from .image import UNKNOWN_DATABASE, pointing_to_the_host

PYTHON = "/app/layer/bin/python"
SETTINGS = "/app/settings"  # where settings files are
# Seconds between the end of a pod and the time when the last node sends it nothing more: the pod serves on meanwhile.
# Source: Kubernetes, Pod Lifecycle, "Termination of Pods": endpoints are updated beside the stop, and not before it.
ENDPOINT_SECONDS = 5
STOP_MARGIN = 15  # as TimeoutStopSec= on a host
LABEL = "app.kubernetes.io"
LONGEST_NAME = 52  # of a CronJob, whose jobs have a longer one. Source: Kubernetes, CronJob
Manifest = dict[str, Any]


class ManifestError(ValueError):
    """Something of the inventory has no form in Kubernetes. The text is a whole sentence."""


@dataclass(frozen=True)
class App:
    """What the manifests are made from; the names are those of the inventory's variables."""

    name: str
    namespace: str
    image: str
    release: str
    target: str
    settings: Mapping[str, str]
    files: Sequence[Mapping[str, str]] = ()
    server: str = "gunicorn"
    workers: int = 1
    port: int = 8000
    user: int = 10001
    replicas: int = 2
    max_replicas: int = 0
    wait_seconds: int = 600
    cpu: str = "250m"
    memory_mb: int = 128
    memory_max_mb: int = 0
    health_path: str = "/healthz"
    health_deadline: int = 60
    drain_seconds: int = 20
    migrations: Sequence[str] = ()
    seeds: Sequence[str] = ()
    migrations_timeout: int = 900
    processes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cache_directories: Sequence[str] = ()
    state_directories: Sequence[str] = ()
    release_commands: Sequence[str] = ()
    names: Sequence[str] = ()
    ingress_class: str = ""
    ingress_annotations: Mapping[str, str] = field(default_factory=dict)
    tls_secret: str = ""
    keep: int = 5

    def manifests(self) -> dict[str, list[Manifest]]:
        """Manifests by what is to be applied one after the other: ``settings``, ``migrate``, ``app``.

        :raises ManifestError: for what has no form in Kubernetes.
        """
        self.check()
        return {
            "settings": self.settings_objects(),
            "migrate": [self.migration_job()] if self.migrations or self.seeds else [],
            "app": [
                self.deployment(), self.service(), self.disruption_budget(), self.network_policy(),
                *([self.autoscaler()] if self.scales() else []), *([self.ingress()] if self.names else []),
                *(self.process(name, each) for name, each in self.processes.items()),
            ],
        }  # fmt: skip

    def check(self) -> None:
        """:raises ManifestError: for what cannot work in a cluster."""
        local = pointing_to_the_host(self.settings)
        if local:
            raise ManifestError(
                f"{', '.join(local)} points to this host, which in a pod is the pod itself: give the address that pods reach it by."
            )
        unknown = [name for name, value in self.settings.items() if UNKNOWN_DATABASE in value]
        if unknown:
            raise ManifestError(
                f"{', '.join(unknown)} has the address of the inventory's database, which is known when its host is looked at: give the "
                "one that pods reach it by, in forge_database_url."
            )
        if self.state_directories:
            raise ManifestError(
                "forge_state_directories: each pod would have its own and lose it with its end: keep what is in there in the database or "
                "an object store, and leave the variable out for the cluster."
            )

        if self.release_commands:
            raise ManifestError(
                "forge_release_commands are run by hosts, and a pod has what its image has: make that with forge_build_commands, and leave "
                "the variable out for the cluster."
            )

    # -- settings ----------------------------------------------------------------------------------

    @property
    def settings_hash(self) -> str:
        """Of all settings: objects have it in their names, so that a rollback of a Deployment brings its settings back."""
        return short_hash([dict(self.settings), [dict(each) for each in self.files]])

    @property
    def settings_name(self) -> str:
        return f"{self.name}-{self.settings_hash}"

    def settings_objects(self) -> list[Manifest]:
        secret = {name: value for name, value in self.settings.items() if holds_secret(name, value)}
        public = {name: value for name, value in self.settings.items() if name not in secret}
        objects = [{**self.head("v1", "ConfigMap", self.settings_name), "immutable": True, "data": public}]
        kind = {
            **self.head("v1", "Secret", self.settings_name),
            "immutable": True,
            "type": "Opaque",
            "stringData": secret,
        }
        objects.append(kind)
        if self.files:
            texts = {each["name"]: each["content"] for each in self.files}
            kind = self.head("v1", "Secret", f"{self.settings_name}-files")
            objects.append({**kind, "immutable": True, "type": "Opaque", "stringData": texts})
        return objects

    # -- pods --------------------------------------------------------------------------------------

    def web_command(self) -> list[str]:
        """One Uvicorn, as the cluster counts processes itself; Gunicorn for more, or where there is no Uvicorn."""
        if self.workers > 1 or self.server == "gunicorn-asgi":
            gunicorn = ["/app/layer/bin/gunicorn", "--config", "/app/server/gunicorn.conf.py"]
            return [PYTHON, *gunicorn, "--bind", f"0.0.0.0:{self.port}", self.target]
        return [PYTHON, "-m", "forge_server", "/app/server/uvicorn.json", self.target]

    def container(self, name: str, command: list[str], **more: Any) -> dict[str, Any]:
        memory = self.memory_mb * self.workers
        limit = self.memory_max_mb or 2 * memory
        return {
            "name": name,
            "image": self.image,
            "command": command,
            "envFrom": [{"configMapRef": {"name": self.settings_name}}, {"secretRef": {"name": self.settings_name}}],
            "env": [
                {"name": "WEB_CONCURRENCY", "value": str(self.workers)},
                *({"name": each["variable"], "value": f"{SETTINGS}/{each['name']}"} for each in self.files if each.get("variable")),
            ],
            "resources": {
                "requests": {"cpu": self.cpu, "memory": f"{memory}Mi"},
                "limits": {"memory": f"{limit}Mi"},
            },
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                *({"name": f"cache-{number}", "mountPath": f"/var/cache/{each}"} for number, each in enumerate(self.cache_directories)),
                *([{"name": "settings", "mountPath": SETTINGS, "readOnly": True}] if self.files else []),
            ],
            **more,
        }  # fmt: skip

    def pod(self, component: str, containers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Template of a pod that the standard "restricted" of Kubernetes admits."""
        return {
            "metadata": {"labels": self.labels(component)},
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,  # which would be variables of the app
                "securityContext": {
                    "runAsNonRoot": True, "runAsUser": self.user, "runAsGroup": self.user, "fsGroup": self.user,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                **more,
                "containers": containers,
                "volumes": [
                    {"name": "tmp", "emptyDir": {}},
                    *({"name": f"cache-{number}", "emptyDir": {}} for number, _each in enumerate(self.cache_directories)),
                    *([{"name": "settings", "secret": {"secretName": f"{self.settings_name}-files"}}] if self.files else []),
                ],
            },
        }  # fmt: skip

    def deployment(self) -> Manifest:
        probe = {"httpGet": {"path": self.health_path, "port": self.port}, "timeoutSeconds": 5}
        web = self.container(
            "web",
            self.web_command(),
            ports=[{"name": "http", "containerPort": self.port}],
            startupProbe={**probe, "periodSeconds": 1, "failureThreshold": max(1, self.health_deadline)},
            readinessProbe={**probe, "periodSeconds": 5, "failureThreshold": 2},
            livenessProbe={**probe, "periodSeconds": 10, "failureThreshold": 6},
            lifecycle={
                "preStop": {"exec": {"command": [PYTHON, "-c", f"import time; time.sleep({ENDPOINT_SECONDS})"]}}
            },
        )
        spread = {
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": self.selector("web")},
        }  # fmt: skip
        template = self.pod(
            "web", [web], terminationGracePeriodSeconds=ENDPOINT_SECONDS + self.drain_seconds + STOP_MARGIN,
            topologySpreadConstraints=[spread],
        )  # fmt: skip
        return {
            **self.head("apps/v1", "Deployment", self.name, "web"),
            "spec": {
                **({} if self.scales() else {"replicas": self.replicas}),
                "revisionHistoryLimit": self.keep,
                "progressDeadlineSeconds": self.wait_seconds,
                "selector": {"matchLabels": self.selector("web")},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": template,
            },
        }

    def migration_job(self) -> Manifest:
        """The commands, one after the other, before the new pods: each but the last is an init container."""
        commands = [shlex.split(command) for command in [*self.migrations, *self.seeds]]
        containers = [self.container(f"migrate-{number}", words) for number, words in enumerate(commands, 1)]
        template = self.pod(
            "migrate",
            containers[-1:],
            restartPolicy="Never",
            **({"initContainers": containers[:-1]} if containers[1:] else {}),
        )
        spec = {"backoffLimit": 0, "activeDeadlineSeconds": self.migrations_timeout, "template": template}
        # What a job does cannot be changed: another one has another name.
        name = f"{self.name}-migrate-{lower_name(self.release)}-{short_hash(spec)}"
        return {**self.head("batch/v1", "Job", name, "migrate"), "spec": spec}

    def process(self, name: str, process: Mapping[str, Any]) -> Manifest:
        """A process of the inventory: a CronJob where it has a schedule, else a Deployment."""
        title, component = f"{self.name}-{name}", f"process-{name}"
        if len(title) > LONGEST_NAME:
            raise ManifestError(
                f"forge_processes: {name}: {title} is longer than the {LONGEST_NAME} characters that Kubernetes takes."
            )
        stop = int(process.get("stop_seconds", 60))
        container = self.container(name, shlex.split(str(process["command"])))
        if not process.get("schedule"):
            return {
                **self.head("apps/v1", "Deployment", title, component),
                "spec": {
                    "replicas": int(process.get("count", 1)),
                    "revisionHistoryLimit": self.keep,
                    "selector": {"matchLabels": self.selector(component)},
                    "strategy": {"type": "Recreate"},  # the old ones end before the new ones start, as on a host
                    "template": self.pod(component, [container], terminationGracePeriodSeconds=stop),
                },
            }  # fmt: skip
        try:
            schedule, zone = cron_of(str(process["schedule"]))
        except NoCronError as error:
            raise ManifestError(
                f"forge_processes: {name}: {process['schedule']!r} has no form in cron, which Kubernetes schedules by: {error}."
            ) from None
        template = self.pod(component, [container], restartPolicy="Never", terminationGracePeriodSeconds=stop)
        return {
            **self.head("batch/v1", "CronJob", title, component),
            "spec": {
                "schedule": schedule,
                **({"timeZone": zone} if zone else {}),
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": 600,
                "jobTemplate": {"spec": {"backoffLimit": 0, "template": template}},
            },
        }

    # -- around them -------------------------------------------------------------------------------

    def scales(self) -> bool:
        """Whether the cluster counts the pods that serve."""
        return self.max_replicas > self.replicas

    def service(self) -> Manifest:
        ports = [{"name": "http", "port": 80, "targetPort": "http"}]
        return {
            **self.head("v1", "Service", self.name, "web"),
            "spec": {"selector": self.selector("web"), "ports": ports},
        }

    def disruption_budget(self) -> Manifest:
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": self.selector("web")}}
        return {**self.head("policy/v1", "PodDisruptionBudget", self.name, "web"), "spec": spec}

    def network_policy(self) -> Manifest:
        """Pods are reached at the port of the app, and at no other; a process and a migration at none."""
        mine = {f"{LABEL}/name": self.name}
        spec = {
            "podSelector": {"matchLabels": mine},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": self.port, "protocol": "TCP"}]}],
        }
        return {**self.head("networking.k8s.io/v1", "NetworkPolicy", self.name), "spec": spec}

    def autoscaler(self) -> Manifest:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name}
        metric = {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
        }
        spec = {
            "scaleTargetRef": target,
            "minReplicas": self.replicas,
            "maxReplicas": self.max_replicas,
            "metrics": [metric],
        }
        return {**self.head("autoscaling/v2", "HorizontalPodAutoscaler", self.name, "web"), "spec": spec}

    def ingress(self) -> Manifest:
        backend = {"service": {"name": self.name, "port": {"name": "http"}}}
        paths = {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}
        head = self.head("networking.k8s.io/v1", "Ingress", self.name, "web")
        if self.ingress_annotations:
            head["metadata"]["annotations"] = dict(self.ingress_annotations)
        spec: dict[str, Any] = {"rules": [{"host": name, "http": paths} for name in self.names]}
        if self.tls_secret:
            spec["tls"] = [{"hosts": list(self.names), "secretName": self.tls_secret}]
        if self.ingress_class:
            spec["ingressClassName"] = self.ingress_class
        return {**head, "spec": spec}

    # -- names -------------------------------------------------------------------------------------

    def head(self, version: str, kind: str, name: str, component: str = "") -> Manifest:
        labels = (
            self.labels(component)
            if component
            else {f"{LABEL}/name": self.name, f"{LABEL}/managed-by": "thecodeforge.fastapi"}
        )
        return {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
        }

    def selector(self, component: str) -> dict[str, str]:
        """What never changes: a Deployment's selector cannot."""
        return {f"{LABEL}/name": self.name, f"{LABEL}/component": component}

    def labels(self, component: str) -> dict[str, str]:
        return {
            **self.selector(component),
            f"{LABEL}/version": self.release,
            f"{LABEL}/managed-by": "thecodeforge.fastapi",
        }


def short_hash(content: Any) -> str:
    """For a name that is another one when the content is."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def lower_name(text: str) -> str:
    """A text as part of a name: lower-case letters, digits and dashes (RFC 1123), short enough for more behind it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:12].strip("-")
