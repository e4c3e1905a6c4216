# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's side of the compile module: the source goes to a host, the wheel comes back into the cache."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail

from ..plugin_utils._private.build.cache import file_digest
from ..plugin_utils._private.build.errors import BuildError
from ..plugin_utils._private.build.target_platform import Platform
from ..plugin_utils._private.build.wheel_builder import accept_wheel
from ..plugin_utils._private.transport.host_call import HostAction


class ActionModule(HostAction):
    """See the documentation of the module ``thecodeforge.fastapi.compile``."""

    MODULE = "compile"

    def run_module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        if self._task.check_mode:
            return super().run_module(arguments, task_vars)
        source, shell = Path(arguments["source"]), self._connection._shell
        if not shell.tmpdir:
            self._make_tmp_path()
        try:
            remote, output = shell.join_path(shell.tmpdir, source.name), shell.join_path(shell.tmpdir, "output.tar")
            uploaded = {"source": self._transfer_file(str(source), remote), "_sha256": file_digest(source)}
            answer = super().run_module({**arguments, **uploaded, "_output": output}, task_vars)
            if answer.get("failed"):
                return answer
            with tempfile.TemporaryDirectory() as scratch:
                fetched = Path(scratch) / "output.tar"
                self._connection.fetch_file(output, str(fetched))
                platform, wheel_dir = Platform(**arguments["platform"]), Path(arguments["wheel_dir"])
                wheel = accept_wheel(fetched, arguments["requirement"], platform, wheel_dir)
        except BuildError as error:
            raise AnsibleActionFail(str(error)) from None
        finally:
            self._remove_tmp_path(shell.tmpdir)
        source.unlink(missing_ok=True)
        return {**answer, "wheel": str(wheel)}
