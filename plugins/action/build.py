# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the build where Ansible runs."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..modules.build import ARGUMENT_SPEC
from ..plugin_utils._private.build.compile_bundle import write_bundle
from ..plugin_utils._private.build.errors import BuildError
from ..plugin_utils._private.build.release import build
from ..plugin_utils._private.build.target_platform import platforms_of
from ..plugin_utils._private.build.wheel_builder import CompileJob, NeedsCompiling
from ..plugin_utils._private.build.workspace import Workspace, without_secrets
from ..plugin_utils._private.transport.console import show
from ..plugin_utils._private.transport.controller import Controller


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.build``."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _valid, args = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        try:
            workspace = Workspace.from_arguments(args)
            try:
                built = build(args, platforms_of(args["hosts"]), workspace, str(Controller.this()))
            except NeedsCompiling as needed:
                if not args["compile"]:
                    raise
                return {**result, "changed": True, "to_compile": self._jobs(needed.jobs, args["hosts"], workspace)}
        except BuildError as error:
            raise AnsibleActionFail(without_secrets(str(error))) from None
        notes = show(built["notes"]) if built["notes"] else {}
        return {**result, "changed": bool(built["created"]), "to_compile": [], **built, **notes}

    def _jobs(self, jobs: list[CompileJob], hosts: dict[str, Any], workspace: Workspace) -> list[dict[str, Any]]:
        """For each job the host and the arguments of the module compile."""
        if self._task.check_mode:
            planned = ", ".join(f"{job.requirement} on {job.platform.hosts[0]}" for job in jobs)
            raise AnsibleActionFail(
                f"A run without check mode would compile {planned}. Without that there is nothing more to check; the "
                "playbook build compiles and touches nothing else."
            )
        return [
            {
                "host": job.platform.hosts[0],
                "requirement": job.requirement,
                "python": hosts[job.platform.hosts[0]]["python"]["path"],
                "platform": {name: getattr(job.platform, name) for name in ("python", "machine", "glibc")},
                "source": str(write_bundle(job, workspace)),
                "wheel_dir": str(job.wheel_dir),
                "advice": job.advice,
            }
            for job in jobs
        ]
