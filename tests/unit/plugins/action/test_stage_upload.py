# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage action: compares once, and uploads only what is missing."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.action import stage as module
from ansible_collections.thecodeforge.fastapi.plugins.action.stage import ActionModule
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.transport.host_call import HostAction

MISSING = {"missing": ["layer", "release", "generation"], "drifted": [], "diff": [{"after": "x"}]}


class Stage:
    """The action with a module that answers in turn."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[dict[str, Any]] = []
        self.answers = [dict(MISSING), {"changed": True}]
        self.transferred: list[str] = []
        self.removed: list[str] = []
        self.blobs = {}
        for name, size in (("release", 10), ("layer", module.INLINE_BYTES + 1)):
            path = tmp_path / f"{name}.tar.gz"
            path.write_bytes(b"x" * size)
            self.blobs[name] = {"path": str(path), "sha256": f"hash of {name}"}
        monkeypatch.setattr(HostAction, "run_module", lambda _self, arguments, _vars: self.answer(arguments))
        self.action = ActionModule.__new__(ActionModule)
        self.action._task = SimpleNamespace(check_mode=False)
        shell = SimpleNamespace(tmpdir="/tmp/remote", join_path=lambda *parts: "/".join(parts))
        self.action._connection = SimpleNamespace(_shell=shell)
        monkeypatch.setattr(
            self.action, "_transfer_file", lambda _local, remote: self.transferred.append(remote) or remote
        )
        monkeypatch.setattr(self.action, "_remove_tmp_path", self.removed.append)

    def answer(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(arguments)
        return self.answers.pop(0)

    def run(self, **arguments: Any) -> dict[str, Any]:
        given = {"release": "r", "layer": "l", "environment": "", "units": {}, "files": {}, "blobs": self.blobs}
        return self.action.run_module({**given, **arguments}, None)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_what_is_missing_is_uploaded_by_its_size(stage: Stage) -> None:
    result = stage.run()
    compare, apply = stage.calls
    assert (compare["_apply"], apply["_apply"]) == (False, True)
    assert compare["blobs"] == {
        "release": {"sha256": "hash of release", "size": 10},
        "layer": {"sha256": "hash of layer", "size": module.INLINE_BYTES + 1},
    }
    assert base64.b64decode(apply["blobs"]["release"]["inline"]) == b"x" * 10
    assert apply["blobs"]["layer"]["remote"] == "/tmp/remote/layer.tar.gz"
    assert stage.removed == ["/tmp/remote"]
    assert result == {"changed": True, "sent_bytes": module.INLINE_BYTES + 11, "diff": [{"after": "x"}]}


def test_generation_is_named_after_what_decides_what_runs(stage: Stage) -> None:
    stage.run(record={"workers": 2})
    named = stage.calls[0]
    assert named["generation"].startswith("r-")
    assert named["record"] == {"workers": 2, "generation": named["generation"]}


def test_comparison_that_is_given_is_not_made_again(stage: Stage) -> None:
    stage.answers = [{"changed": True}]
    result = stage.run(comparison={**MISSING, "missing": ["generation"]})
    assert [call["_apply"] for call in stage.calls] == [True]
    assert "inline" not in str(stage.calls[0]["blobs"])
    assert result["sent_bytes"] == 0


@pytest.mark.parametrize(
    ("comparison", "changed"),
    [({"missing": [], "drifted": []}, False), ({"failed": True, "msg": "no"}, False)],
)
def test_nothing_is_applied_where_nothing_differs_or_the_comparison_failed(
    stage: Stage, comparison: dict[str, Any], changed: bool
) -> None:
    stage.answers = [comparison]
    assert stage.run() == {**comparison, "changed": changed}
    assert len(stage.calls) == 1


def test_check_mode_only_compares(stage: Stage) -> None:
    stage.action._task.check_mode = True
    assert stage.run() == {**MISSING, "changed": True}
    assert len(stage.calls) == 1


def test_uploads_are_removed_when_the_module_fails(stage: Stage) -> None:
    stage.answers = [dict(MISSING), {"failed": True, "msg": "It does not load."}]
    assert stage.run() == {"failed": True, "msg": "It does not load."}
    assert stage.removed == ["/tmp/remote"]
