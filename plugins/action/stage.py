# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's side of the stage module: compare in one call; upload only what is missing."""

from __future__ import annotations

import base64
import os
from typing import Any

from ..plugin_utils._private.generation_id import generation_id
from ..plugin_utils._private.transport.host_call import HostAction

# A release of code is kilobytes: it travels inside the module's call. A layer is megabytes: it is put as a file.
INLINE_BYTES = 512 * 1024


class ActionModule(HostAction):
    """See the documentation of the module ``thecodeforge.fastapi.stage``."""

    MODULE = "stage"

    def run_module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        if not arguments.get("generation"):
            arguments |= self._named(arguments)
        comparison = arguments.pop("comparison", None)
        blobs = {
            name: {"sha256": blob["sha256"], "path": blob["path"], "size": os.path.getsize(blob["path"])}
            for name, blob in (arguments.pop("blobs", None) or {}).items()
            if blob  # a host's own Python is none
        }
        metadata = {name: {key: blob[key] for key in ("sha256", "size")} for name, blob in blobs.items()}
        if comparison is None:
            comparison = super().run_module({**arguments, "blobs": metadata, "_apply": False}, task_vars)
        differs = bool(comparison.get("missing") or comparison.get("drifted"))
        if comparison.get("failed") or not differs or self._task.check_mode:
            return {**comparison, "changed": differs}
        missing = [name for name in comparison["missing"] if name in blobs]
        try:
            uploads = {name: {**metadata[name], **self._upload(blobs[name])} for name in missing}
            applied = super().run_module({**arguments, "blobs": {**metadata, **uploads}, "_apply": True}, task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        if not applied.get("failed"):
            applied["sent_bytes"] = sum(blobs[name]["size"] for name in missing)
            applied |= {"diff": comparison["diff"]} if "diff" in comparison else {}
        return applied

    def _named(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The generation's id, and its record with that."""
        record = arguments.get("record", {})
        parts = {name: arguments[name] for name in ("release", "layer", "environment", "units")}
        files = {**arguments["files"], **arguments.get("secret_files", {})}
        generation = generation_id(files=files, commands=record.get("release_commands", []), **parts)
        return {"generation": generation, "record": {**record, "generation": generation}}

    def _upload(self, blob: dict[str, Any]) -> dict[str, str]:
        """Where the module finds a blob: in its arguments, or in a file on the host."""
        if blob["size"] <= INLINE_BYTES:
            with open(blob["path"], "rb") as handle:
                return {"inline": base64.b64encode(handle.read()).decode()}
        shell = self._connection._shell
        if not shell.tmpdir:
            self._make_tmp_path()
        remote = shell.join_path(shell.tmpdir, os.path.basename(blob["path"]))
        return {"remote": self._transfer_file(blob["path"], remote)}
