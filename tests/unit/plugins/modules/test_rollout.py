# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module rollout: answers as Ansible takes them. What it does is in module_utils/test_rollout_steps.py."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import RolloutError
from ansible_collections.thecodeforge.fastapi.plugins.modules import rollout as module


class Answered(Exception):
    """What a module returns."""


class FakeSteps:
    """Warns and fails as the test wants it."""

    fails = False

    def __init__(self, params: dict[str, Any], warn: Any) -> None:
        warn(f"{params['step']} of {params['generation']}")
        self.result = {"changed": True, "from": "a"}

    def run(self, check_mode: bool) -> None:
        self.result["check"] = check_mode
        if self.fails:
            raise RolloutError("It failed.", ["last words"])


def answer(monkeypatch: pytest.MonkeyPatch, check: bool = False) -> dict[str, Any]:
    def exit_json(kind: str) -> Any:
        def done(_module: object, **result: Any) -> None:
            raise Answered({kind: True, **result})

        return done

    warnings: list[str] = []
    monkeypatch.setattr(basic.AnsibleModule, "exit_json", exit_json("ok"))
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", exit_json("failed"))
    monkeypatch.setattr(basic.AnsibleModule, "warn", lambda _module, warning: warnings.append(warning))
    monkeypatch.setattr(module, "RolloutSteps", FakeSteps)
    arguments = {"app": "forge", "root": "/srv", "generation": "g", "step": "switch", "_ansible_check_mode": check}
    with patch_module_args(arguments), pytest.raises(Answered) as caught:
        module.main()
    return {**caught.value.args[0], "warned": warnings}


@pytest.mark.parametrize("check", [False, True])
def test_result_and_warnings_are_answered(monkeypatch: pytest.MonkeyPatch, check: bool) -> None:
    assert answer(monkeypatch, check) == {
        "ok": True, "changed": True, "from": "a", "check": check, "warned": ["switch of g"]
    }  # fmt: skip


def test_failure_has_its_sentence_its_journal_and_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSteps, "fails", True)
    failed = answer(monkeypatch)
    assert (failed["failed"], failed["msg"], failed["journal"], failed["from"]) == (
        True,
        "It failed.",
        ["last words"],
        "a",
    )
