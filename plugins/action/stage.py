# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Controller's side of the stage module: compare in one call; upload only what is missing."""

from __future__ import annotations

import base64
import os
from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils._private.generation_id import generation_id
from ..plugin_utils._private.transport.host_call import call

# A release of code is kilobytes: it travels inside the module's call. A layer is megabytes: it is put as a file.
INLINE_BYTES = 512 * 1024


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.stage``."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if not arguments.get("generation"):
            parts = {name: arguments[name] for name in ("release", "layer", "environment", "units")}
            files = {**arguments["files"], **arguments.get("secret_files", {})}
            arguments["generation"] = generation_id(files=files, **parts)
            arguments["record"] = {**arguments.get("record", {}), "generation": arguments["generation"]}
        comparison = arguments.pop("comparison", None)
        blobs = {
            name: {"sha256": blob["sha256"], "path": blob["path"], "size": os.path.getsize(blob["path"])}
            for name, blob in (arguments.get("blobs") or {}).items()
        }
        metadata = {name: {key: blob[key] for key in ("sha256", "size")} for name, blob in blobs.items()}
        if comparison is None:
            comparison = self._stage({**arguments, "blobs": metadata, "_apply": False}, task_vars)
        differs = bool(comparison.get("missing") or comparison.get("drifted"))
        if comparison.get("failed") or not differs or self._task.check_mode:
            return {**result, **comparison, "changed": differs}

        sent = 0
        for name in comparison["missing"]:
            if name not in blobs:
                continue
            blob = blobs[name]
            sent += blob["size"]
            if blob["size"] <= INLINE_BYTES:
                with open(blob["path"], "rb") as handle:
                    metadata[name]["inline"] = base64.b64encode(handle.read()).decode()
            else:
                shell = self._connection._shell
                if not shell.tmpdir:
                    self._make_tmp_path()
                remote = shell.join_path(shell.tmpdir, os.path.basename(blob["path"]))
                metadata[name]["remote"] = self._transfer_file(blob["path"], remote)
        try:
            applied = self._stage({**arguments, "blobs": metadata, "_apply": True}, task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        if not applied.get("failed"):
            applied["sent_bytes"] = sent
            if "diff" in comparison:
                applied["diff"] = comparison["diff"]
        return {**result, **applied}

    def _stage(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        return call(self, "stage", arguments, task_vars)
