# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ..module_utils._private.cause import first_cause
from ..module_utils._private.environment import read_environment
from ..module_utils._private.masking import mask, secrets_of

DOCUMENTATION = r"""
name: pod_cause
short_description: Why the newest pod of Kubernetes does not do what it should
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - What the cluster says of its containers, and the first cause in what they have printed.
options:
  _input:
    description: Pods, as C(kubernetes.core.k8s_info) returns them.
    type: list
    elements: dict
    required: true
  log:
    description: What the newest has printed.
    type: str
    default: ""
  environment:
    description: Text of the environment file, whose secrets are not shown.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show why
  ansible.builtin.debug:
    msg: "The release does not serve{{ pods.resources | thecodeforge.fastapi.pod_cause(log=log.log) }}."
"""

RETURN = r"""
_value:
  description: A colon and the cause, without an end mark; empty when none is known.
  type: str
"""

# What a container that is on its way waits for. Source: Kubernetes, kubelet's reasons.
NO_FAILURES = ("ContainerCreating", "PodInitializing")
CRASHES = ("CrashLoopBackOff", "Error", "Completed")


def pod_cause(pods: list[dict[str, Any]], log: str = "", environment: str = "") -> str:
    cause = ""
    for pod in sorted(pods, key=lambda each: str(each["metadata"].get("creationTimestamp", "")))[-1:]:
        cause = state_cause(pod.get("status", {}), log) or condition_cause(pod.get("status", {}))
    return mask(f": {cause}".rstrip("."), secrets_of(read_environment(environment))) if cause else ""


def state_cause(status: dict[str, Any], log: str) -> str:
    """Of the first container that waits for what does not come, or has failed."""
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        reason = waiting.get("reason") or (ended.get("reason") if ended.get("exitCode") else "") or ""
        if not reason or reason in NO_FAILURES:
            continue
        last = ended or (container.get("lastState") or {}).get("terminated") or {}
        if reason in CRASHES:
            ending = "memory ran out" if last.get("reason") == "OOMKilled" else f"exit code {last.get('exitCode')}"
            return first_cause(log.splitlines())[1] or f"container {container['name']} ends with {ending}"
        return ": ".join(text for text in (reason, waiting.get("message", "")) if text)
    return ""


def condition_cause(status: dict[str, Any]) -> str:
    """Of a pod that found no node, or is not ready."""
    for condition in status.get("conditions") or []:
        if condition.get("status") == "False" and condition.get("type") == "PodScheduled":
            return str(condition.get("message", condition.get("reason", "")))
    running = any("running" in (each.get("state") or {}) for each in status.get("containerStatuses") or [])
    return "its health check does not pass" if running else ""


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"pod_cause": pod_cause}
