# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

DOCUMENTATION = r"""
name: rollout_state
short_description: How a rollout of a Deployment of Kubernetes has ended
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - As C(kubectl rollout status) has it.
options:
  _input:
    description: What C(kubernetes.core.k8s_info) returns of it, which is nothing when it is not there.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Wait for a rollout
  kubernetes.core.k8s_info: {api_version: apps/v1, kind: Deployment, namespace: shop, name: shop}
  register: deployment
  until: deployment.resources | thecodeforge.fastapi.rollout_state != ''
  retries: 600
"""

RETURN = r"""
_value:
  description: C(Complete) when all pods are the newest and serve, or C(Failed); empty while it goes on, or is not there.
  type: str
"""


def rollout_state(resources: list[dict[str, Any]]) -> str:
    for deployment in resources:
        if is_done(deployment):
            return "Complete"
        if any(is_failure(each) for each in deployment.get("status", {}).get("conditions") or []):
            return "Failed"
    return ""


def is_done(deployment: dict[str, Any]) -> bool:
    """Source: kubectl, pkg/polymorphichelpers/rollout_status.go."""
    status = deployment.get("status", {})
    wanted = deployment["spec"].get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and updated >= wanted
        and status.get("replicas", 0) <= updated
        and status.get("availableReplicas", 0) >= updated
    )


def is_failure(condition: dict[str, Any]) -> bool:
    return condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"rollout_state": rollout_state}
