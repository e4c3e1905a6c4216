# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a pod does not serve: what the cluster says of it, or what it has printed, and no secret."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.filter.pod_cause import pod_cause
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.environment import write_environment

LOG = "starting\nTraceback (most recent call last):\n  File 'x'\nValueError: no such table: parts\nbye\n"
CRASH = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
NO_IMAGE = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "shop:1"'}}


def pod(created: str = "2026-01-01T00:00:00Z", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": f"shop-{created}", "creationTimestamp": created}, "status": status}


def container(state: dict[str, Any], last: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": "web", "state": state, "lastState": {"terminated": last} if last else {}}


@pytest.mark.parametrize(
    ("status", "log", "cause"),
    [
        ({"containerStatuses": [container(NO_IMAGE)]}, "", ': ImagePullBackOff: Back-off pulling image "shop:1"'),
        ({"containerStatuses": [container(CRASH, {"exitCode": 1})]}, LOG, ": ValueError: no such table: parts"),
        ({"containerStatuses": [container(CRASH, {"exitCode": 3})]}, "", ": container web ends with exit code 3"),
        (
            {"containerStatuses": [container(CRASH, {"exitCode": 137, "reason": "OOMKilled"})]},
            "",
            ": container web ends with memory ran out",
        ),
        ({"containerStatuses": [container({"terminated": {"exitCode": 1, "reason": "Error"}})]}, LOG,
         ": ValueError: no such table: parts"),
        ({"initContainerStatuses": [container({"terminated": {"exitCode": 0, "reason": "Completed"}})],
          "containerStatuses": [container({"terminated": {"exitCode": 2, "reason": "Error"}})]}, "",
         ": container web ends with exit code 2"),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient cpu."}]}, "",
         ": 0/3 nodes: Insufficient cpu"),
        ({"containerStatuses": [container({"running": {}})]}, "", ": its health check does not pass"),
        ({"containerStatuses": [container({"waiting": {"reason": "ContainerCreating"}})]}, "", ""),
        ({}, LOG, ""),
    ],
)  # fmt: skip
def test_the_cause(status: dict[str, Any], log: str, cause: str) -> None:
    assert pod_cause([pod(**status)], log=log) == cause


def test_the_newest_pod_counts_and_where_there_is_none_nothing_is_said() -> None:
    old = pod("2026-01-01T00:00:00Z", containerStatuses=[container(NO_IMAGE)])
    new = pod("2026-01-02T00:00:00Z", containerStatuses=[container({"running": {}})])
    assert pod_cause([new, old]) == ": its health check does not pass"
    assert pod_cause([]) == ""


def test_a_secret_in_what_was_printed_is_not_shown() -> None:
    log = "sqlalchemy.exc.OperationalError: postgresql://shop:correct-horse@db/shop: refused\n"
    status = {"containerStatuses": [container({"terminated": {"exitCode": 1, "reason": "Error"}})]}
    said = pod_cause(
        [pod(**status)],
        log=log,
        environment=write_environment({"DATABASE_URL": "postgresql://shop:correct-horse@db/shop"}, ""),
    )
    assert "correct-horse" not in said
    assert "refused" in said
