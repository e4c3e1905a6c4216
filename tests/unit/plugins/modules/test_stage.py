# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module stage: answers as Ansible takes them. What it does is in module_utils/test_staging.py."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import StageError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.staging import Staging
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.systemd import SystemdError
from ansible_collections.thecodeforge.fastapi.plugins.modules import stage as module
from fake_staging import GENERATION, make_staging, without_root


class Answered(Exception):
    """What a module returns."""


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of the module for a host that has nothing."""
    without_root(monkeypatch)
    monkeypatch.setattr(module, "Staging", lambda params: make_staging(tmp_path, **params))
    for name in ("exit_json", "fail_json"):
        monkeypatch.setattr(basic.AnsibleModule, name, answerer(name))
    params = make_staging(tmp_path).params
    return {name: value for name, value in params.items() if name in module.ARGUMENT_SPEC}


def answerer(name: str) -> Any:
    def done(_module: object, **result: Any) -> None:
        raise Answered({"failed": name == "fail_json", **result})

    return done


def answer(arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    with patch_module_args({**arguments, **more}), pytest.raises(Answered) as caught:
        module.main()
    return caught.value.args[0]


def test_what_is_missing_is_made_and_then_nothing_is(arguments: dict[str, Any]) -> None:
    first = answer(arguments)
    assert (first["changed"], first["generation"], first["up_to_date"], first["drains"]) == (
        True,
        GENERATION,
        False,
        True,
    )
    assert first["missing"] == ["layer", "release", "generation", "validation"]
    second = answer(arguments)
    assert (second["changed"], second["missing"], second["drifted"]) == (False, [], [])


@pytest.mark.parametrize("only", [{"_ansible_check_mode": True}, {"_apply": False}])
def test_comparison_alone_makes_nothing(arguments: dict[str, Any], only: dict[str, bool]) -> None:
    found = answer(arguments, _ansible_diff=True, **only)
    assert found["changed"] is True
    assert any("gunicorn.conf.py" in diff["after"] for diff in found["diff"])
    assert "diff" not in answer(arguments, **only)
    assert not Path(arguments["root"]).exists()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (StageError("It does not load."), "It does not load."),
        (SystemdError("systemctl start x: it failed."), "systemctl start x: it failed."),
    ],
)
def test_failures_are_sentences(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(Staging, "apply", fail)
    failed = answer(arguments)
    assert (failed["failed"], failed["msg"]) == (True, sentence.format(root=arguments["root"]))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "(/srv/x: No space left on device): free some room there, and run again."),
        (errno.EROFS, "(/srv/x: Read-only file system): mend that on the host, and run again."),
    ],
)
def test_what_the_file_system_refuses_is_one_sentence(
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    sentence: str,
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number), "/srv/x")

    monkeypatch.setattr(Staging, "apply", fail)
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    assert json.loads(capsys.readouterr().out) == {
        "failed": True,
        "msg": f"The host's files cannot be used {sentence} What served before still serves.",
    }


def test_what_is_no_id_of_a_generation_is_refused(arguments: dict[str, Any]) -> None:
    assert answer(arguments, generation="../../etc")["msg"] == "'../../etc' is not the id of a generation."
