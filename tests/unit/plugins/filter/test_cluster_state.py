# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a job has ended, and a rollout is done, as a cluster says it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.filter.job_state import job_state
from ansible_collections.thecodeforge.fastapi.plugins.filter.rollout_state import rollout_state


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        (None, ""),
        ([], ""),
        ([{"type": "Suspended", "status": "True"}], ""),
        ([{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}], "Complete"),
        ([{"type": "FailureTarget", "status": "True"}, {"type": "Failed", "status": "True"}], "Failed"),
        ([{"type": "Failed", "status": "False"}], ""),
    ],
)
def test_how_a_job_has_ended(conditions: list[dict[str, str]] | None, state: str) -> None:
    assert job_state([{"status": {} if conditions is None else {"conditions": conditions}}]) == state
    assert job_state([]) == ""


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"observedGeneration": 4, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, "Complete"),
        ({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, ""),  # not seen yet
        ({"observedGeneration": 4, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}, ""),
        (
            {"observedGeneration": 4, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3},
            "",
        ),  # an old one is left
        ({"observedGeneration": 4, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}, ""),
        ({}, ""),
        ({"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}, "Failed"),
        ({"conditions": [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}]}, ""),
    ],
)
def test_how_a_rollout_has_ended(status: dict[str, Any], state: str) -> None:
    assert rollout_state([{"metadata": {"generation": 4}, "spec": {"replicas": 2}, "status": status}]) == state
    assert rollout_state([]) == ""
