# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Controller's side of the compile module: the source goes to a host, the wheel comes back into the cache."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils._private.build.cache import file_digest
from ..plugin_utils._private.build.errors import BuildError
from ..plugin_utils._private.build.target_platform import Platform
from ..plugin_utils._private.build.wheel_builder import accept_wheel
from ..plugin_utils._private.transport.host_call import call


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.compile``."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        if self._task.check_mode:
            return {**result, **call(self, "compile", args, task_vars)}
        source, shell = Path(args["source"]), self._connection._shell
        if not shell.tmpdir:
            self._make_tmp_path()
        try:
            remote, output = shell.join_path(shell.tmpdir, source.name), shell.join_path(shell.tmpdir, "output.tar")
            args |= {"source": self._transfer_file(str(source), remote), "_output": output}
            args["_sha256"] = file_digest(source)
            answer = call(self, "compile", args, task_vars)
            if answer.get("failed"):
                return {**result, **answer}
            with tempfile.TemporaryDirectory() as scratch:
                fetched = Path(scratch) / "output.tar"
                self._connection.fetch_file(output, str(fetched))
                platform, wheel_dir = Platform(**args["platform"]), Path(args["wheel_dir"])
                wheel = accept_wheel(fetched, args["requirement"], platform, wheel_dir)
        except BuildError as error:
            raise AnsibleActionFail(str(error)) from None
        finally:
            self._remove_tmp_path(shell.tmpdir)
        source.unlink(missing_ok=True)
        return {**result, **answer, "wheel": str(wheel)}
