# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests are as the API's schemas want them, keep secrets apart, and lose nothing of an inventory without a word."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ansible_collections.thecodeforge.fastapi.plugins.filter.kubernetes_manifests import kubernetes_manifests
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.environment import write_environment

RELEASE = "0123456789ab"
OPTIONS = {
    "namespace": "shops",
    "image": f"registry.example.org/shop:{RELEASE}",
    "release": RELEASE,
    "target": "shop.main:app",
}
SETTINGS = {
    "SECRET_KEY": "correct-horse",
    "DATABASE_URL": "postgresql://shop:password@db.example.org/shop",
    "GREETING": 'a "quoted" $HOME\n# second line: x',
    "COUNT": 3,
}
FULL: dict[str, Any] = {
    **OPTIONS,
    "max_replicas": 6,
    "migrations": ["alembic upgrade head", "python -m shop.views 'two words'"],
    "seeds": ["python -m shop.seed"],
    "processes": {
        "worker": {"command": "celery -A shop worker", "count": 2, "stop_seconds": 90},
        "leader": {"command": "python -m shop.leader", "once": True},
        "nightly": {"command": "report --all", "schedule": "*-*-* 03:30 UTC", "once": True},
    },
    "cache_directories": ["shop", "shop/thumbs"],
    "names": ["shop.example.org", "www.example.org"],
    "ingress_class": "nginx",
    "ingress_annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
    "tls_secret": "shop-tls",
}
FILES = [
    {"name": "shop.toml", "content": "[mail]\npassword = 'x'\n", "variable": "SHOP_CONFIG"},
    {"name": "b", "content": ""},
]


def made(
    settings: dict[str, Any] | None = None, files: list[dict[str, Any]] | None = None, **options: Any
) -> dict[str, Any]:
    text = write_environment(SETTINGS if settings is None else settings, "FORGE_")
    return kubernetes_manifests("shop", environment=text, files=files, directory="k8s", options={**OPTIONS, **options})


def objects(result: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name."""
    texts = [result[part]["content"] for part in ("settings", "migrate", "app") if result[part]]
    found = [each for text in texts for each in yaml.safe_load_all(text)]
    named = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(named) == len(found)
    return named


@pytest.mark.parametrize("version", ["1.27", "1.31", "1.34"])
@pytest.mark.parametrize(("options", "files"), [(OPTIONS, None), (FULL, FILES)])
def test_they_are_as_the_schemas_of_the_api_want_them(
    version: str, options: dict[str, Any], files: list[dict[str, Any]] | None
) -> None:
    found = objects(made(files=files, **options))
    for each in found.values():
        kubernetes_validate.validate(each, version, strict=True)
        assert each["metadata"]["namespace"] == "shops"
        assert len(each["metadata"]["name"]) <= 63


def test_values_of_secret_settings_are_in_secrets_alone() -> None:
    result = made(files=FILES, **FULL)
    found = objects(result)
    (secret,) = [each for (kind, name), each in found.items() if kind == "Secret" and not name.endswith("-files")]
    (public,) = [each for (kind, _name), each in found.items() if kind == "ConfigMap"]
    assert secret["stringData"] == {
        "FORGE_SECRET_KEY": "correct-horse",
        "FORGE_DATABASE_URL": "postgresql://shop:password@db.example.org/shop",
    }
    assert public["data"] == {"FORGE_GREETING": SETTINGS["GREETING"], "FORGE_COUNT": "3"}
    for other in (result["migrate"], result["app"]):
        assert "correct-horse" not in other["content"]
        assert "password" not in other["content"]


@pytest.mark.parametrize("value", [{"password": "x"}, [{"url": "amqp://shop:x@mq/"}], {"deep": {"api_key": "x"}}])
def test_a_setting_with_a_secret_in_it_is_one(value: Any) -> None:
    found = objects(made({"MAIL": value, "PLAIN": {"name": "x"}}))
    assert [list(each["data"]) for (kind, _name), each in found.items() if kind == "ConfigMap"] == [["FORGE_PLAIN"]]
    assert [list(each["stringData"]) for (kind, _name), each in found.items() if kind == "Secret"] == [["FORGE_MAIL"]]


def test_settings_have_their_hash_in_their_names_so_that_a_rollback_brings_them_back() -> None:
    first, second = objects(made()), objects(made({**SETTINGS, "COUNT": 4}))
    names = [
        {name for kind, name in found if kind in ("ConfigMap", "Secret")}
        | {pod(found)["containers"][0]["envFrom"][0]["configMapRef"]["name"]}
        for found in (first, second)
    ]
    assert len(names[0]) == len(names[1]) == 1
    assert names[0] != names[1]
    assert objects(made()) == first


@pytest.mark.parametrize("changed", [{"migrations": ["alembic upgrade 2"]}, {"cpu": "1"}, {"release": "1123456789ab"}])
def test_a_job_that_does_something_else_has_another_name(changed: dict[str, Any]) -> None:
    options = {"migrations": ["alembic upgrade head"]}
    assert made(**{**options, **changed})["job"] != made(**options)["job"] == made(**options)["job"]


def pod(found: dict[tuple[str, str], dict[str, Any]], kind: str = "Deployment", name: str = "shop") -> dict[str, Any]:
    spec = found[kind, name]["spec"]
    spec = spec["jobTemplate"]["spec"] if kind == "CronJob" else spec
    return dict(spec["template"]["spec"])


def test_every_pod_is_one_that_the_restricted_standard_admits() -> None:
    found = objects(made(files=FILES, **FULL))
    pods = [pod(found, kind, name) for kind, name in found if kind in ("Deployment", "Job", "CronJob")]
    assert len(pods) == 5
    for each in pods:
        assert each["securityContext"]["runAsNonRoot"] is True
        assert each["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert each["automountServiceAccountToken"] is False
        for container in [*each["containers"], *each.get("initContainers", [])]:
            context = container["securityContext"]
            assert context == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert container["image"] == OPTIONS["image"]


def test_a_rollout_takes_no_pod_away_before_the_next_one_serves_and_drains_it_longer_than_it_is_sent_requests() -> None:
    found = objects(made())
    spec = found["Deployment", "shop"]["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert pod(found)["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1] == "import time; time.sleep(5)"
    assert pod(found)["terminationGracePeriodSeconds"] == 5 + 20 + 15


def test_migrations_are_one_job_in_order_and_never_a_part_of_a_start() -> None:
    found = objects(made(**FULL))
    (name,) = [name for kind, name in found if kind == "Job"]
    assert name.startswith(f"shop-migrate-{RELEASE}-")
    job = pod(found, "Job", name)
    commands = [each["command"] for each in [*job["initContainers"], *job["containers"]]]
    assert commands == [
        ["alembic", "upgrade", "head"], ["python", "-m", "shop.views", "two words"], ["python", "-m", "shop.seed"],
    ]  # fmt: skip
    assert found["Job", name]["spec"]["backoffLimit"] == 0
    assert "alembic" not in str(pod(found))
    assert not [kind for kind, _name in objects(made()) if kind == "Job"]


def test_a_tag_that_is_no_name_of_kubernetes_is_made_one() -> None:
    (name,) = [name for kind, name in objects(made(release="V1.4_rc", migrations=["x"])) if kind == "Job"]
    assert name.startswith("shop-migrate-v1-4-rc-")


def test_the_server_is_one_uvicorn_unless_more_is_asked_for() -> None:
    command = ["/app/layer/bin/python", "-m", "forge_server", "/app/server/uvicorn.json", "shop.main:app"]
    assert pod(objects(made()))["containers"][0]["command"] == command
    several = pod(objects(made(workers=3)))["containers"][0]
    assert several["command"][1] == "/app/layer/bin/gunicorn"
    assert {"name": "WEB_CONCURRENCY", "value": "3"} in several["env"]
    assert several["resources"]["requests"]["memory"] == "384Mi"
    assert "gunicorn" in str(pod(objects(made(server="gunicorn-asgi")))["containers"][0]["command"])


def test_processes_run_as_the_inventory_says() -> None:
    found = objects(made(**FULL))
    worker, leader = found["Deployment", "shop-worker"]["spec"], found["Deployment", "shop-leader"]["spec"]
    assert (worker["replicas"], worker["template"]["spec"]["terminationGracePeriodSeconds"]) == (2, 90)
    assert leader["strategy"] == {"type": "Recreate"}
    nightly = found["CronJob", "shop-nightly"]["spec"]
    assert (nightly["schedule"], nightly["timeZone"], nightly["concurrencyPolicy"]) == ("30 3 * * *", "UTC", "Forbid")
    assert "livenessProbe" not in str(worker)


def test_settings_files_are_mounted_and_named() -> None:
    container = pod(objects(made(files=FILES)))["containers"][0]
    assert {"name": "SHOP_CONFIG", "value": "/app/settings/shop.toml"} in container["env"]
    assert {"name": "settings", "mountPath": "/app/settings", "readOnly": True} in container["volumeMounts"]


def test_pods_that_are_scaled_are_not_counted_by_the_deployment() -> None:
    found = objects(made(**FULL))
    assert "replicas" not in found["Deployment", "shop"]["spec"]
    scaled = found["HorizontalPodAutoscaler", "shop"]["spec"]
    assert (scaled["minReplicas"], scaled["maxReplicas"]) == (2, 6)
    assert objects(made())["Deployment", "shop"]["spec"]["replicas"] == 2


def test_names_get_an_ingress_with_tls() -> None:
    spec = objects(made(**FULL))["Ingress", "shop"]["spec"]
    assert [rule["host"] for rule in spec["rules"]] == ["shop.example.org", "www.example.org"]
    assert spec["tls"] == [{"hosts": ["shop.example.org", "www.example.org"], "secretName": "shop-tls"}]
    assert "tls" not in objects(made(**{**FULL, "tls_secret": ""}))["Ingress", "shop"]["spec"]
    assert ("Ingress", "shop") not in objects(made())


def test_the_commands_apply_one_after_the_other() -> None:
    result = made(**FULL)
    assert [each["path"] for each in (result["settings"], result["migrate"], result["app"])] == [
        "k8s/1-settings.yml", "k8s/2-migrate.yml", "k8s/3-app.yml",
    ]  # fmt: skip
    assert result["commands"][0] == "kubectl --namespace shops apply --filename k8s/1-settings.yml"
    assert "wait --for condition=complete --timeout 900s job/shop-migrate-" in result["commands"][2]
    assert result["commands"][-1] == "kubectl --namespace shops rollout status deployment/shop"
    assert len(made()["commands"]) == 3


@pytest.mark.parametrize(
    ("settings", "options", "sentence"),
    [
        (
            {"DATABASE_URL": "postgresql://shop:x@localhost/shop"},
            {},
            "FORGE_DATABASE_URL points to this host, which in a pod is",
        ),
        ({"DATABASE_URL": "postgresql://not-known-here/app"}, {}, "has the address of the inventory's database"),
        (
            {},
            {"release_commands": ["make"]},
            "forge_release_commands are run by hosts, and a pod has what its image has",
        ),
        ({}, {"state_directories": ["shop"]}, "forge_state_directories: each pod would have its own"),
        (
            {},
            {"processes": {"r": {"command": "x", "schedule": "2027-1-1 0:00"}}},
            "'2027-1-1 0:00' has no form in cron.*knows no years",
        ),
        ({}, {"processes": {"r" * 50: {"command": "x"}}}, "is longer than the 52 characters"),
    ],
)
def test_what_has_no_form_in_kubernetes_gets_a_sentence(
    settings: dict[str, Any], options: dict[str, Any], sentence: str
) -> None:
    assert re.search(sentence + ".*Nothing was written.$", made(settings, **options)["problem"])
