# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

DOCUMENTATION = r"""
name: job_state
short_description: How a job of Kubernetes has ended
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - Asks the conditions of the job, which the cluster sets when it ends.
options:
  _input:
    description: What C(kubernetes.core.k8s_info) returns of it, which is nothing when it is not there.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Wait for a job
  kubernetes.core.k8s_info: {api_version: batch/v1, kind: Job, namespace: shop, name: migrate}
  register: job
  until: job.resources | thecodeforge.fastapi.job_state != ''
  retries: 60
"""

RETURN = r"""
_value:
  description: C(Complete) or C(Failed); empty while it runs, or is not there.
  type: str
"""

ENDS = ("Complete", "Failed")


def job_state(resources: list[dict[str, Any]]) -> str:
    for resource in resources:
        for condition in resource.get("status", {}).get("conditions") or []:
            if condition.get("type") in ENDS and condition.get("status") == "True":
                return str(condition["type"])
    return ""


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"job_state": job_state}
