# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Runs the build where Ansible runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..plugin_utils._private.build.bundle import pack
from ..plugin_utils._private.build.compiled import Job, NotHere
from ..plugin_utils._private.build.errors import BuildError
from ..plugin_utils._private.build.index import INDEX_ARGUMENTS, Index, without_secrets
from ..plugin_utils._private.build.release import build
from ..plugin_utils._private.build.target_platform import Platform
from ..plugin_utils._private.transport.controller import Controller


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.build``."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _valid, given = self.validate_argument_spec(
            argument_spec={
                "source": {"type": "str", "required": True},
                "directory": {"type": "str", "default": ""},
                "sha256": {"type": "str", "default": ""},
                "extras": {"type": "list", "elements": "str", "default": []},
                "dirty": {"type": "bool", "default": True},
                "target": {"type": "str", "required": True},
                "server": {"type": "str", "default": "gunicorn"},
                "server_requirements": {"type": "list", "elements": "str", "default": []},
                "hosts": {"type": "dict", "required": True},
                "exclude": {"type": "list", "elements": "str", "default": []},
                "compile": {"type": "bool", "default": False},
                "artifact": {"type": "str", "default": ""},
                "cache_mb": {"type": "int", "default": 0},
                **INDEX_ARGUMENTS,
            }
        )
        try:
            made = build(
                given["source"],
                given["target"],
                platforms_of(given["hosts"]),
                Path(given["cache"]).expanduser(),
                Index.given(given),
                given["exclude"],
                directory=given["directory"],
                sha256=given["sha256"],
                extras=given["extras"],
                dirty=given["dirty"],
                server=given["server"],
                server_requirements=given["server_requirements"],
                cache_mb=given["cache_mb"],
                builder=str(Controller.this()),
                artifact_path=Path(given["artifact"]).expanduser() if given["artifact"] else None,
            )
        except NotHere as wanted:
            if not given["compile"]:
                raise AnsibleActionFail(without_secrets(str(wanted))) from None
            return {**result, "changed": True, "to_compile": self.prepare(wanted.jobs, given)}
        except BuildError as error:
            raise AnsibleActionFail(without_secrets(str(error))) from None
        for note in made["notes"]:
            Display().display(note)
        return {**result, "changed": bool(made["made"]), "to_compile": {}, **made}

    def prepare(self, jobs: list[Job], given: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """For each job, by a name for people, the host and the arguments of the module compile."""
        if self._task.check_mode:
            said = ", ".join(f"{job.requirement} on {job.platform.hosts[0]}" for job in jobs)
            raise AnsibleActionFail(
                f"A run without check mode would compile {said}. Without that there is nothing more to check; the "
                "playbook build compiles and touches nothing else."
            )
        try:
            return {
                f"{job.requirement} on {job.platform.hosts[0]}": {
                    "host": job.platform.hosts[0],
                    "requirement": job.requirement,
                    "python": given["hosts"][job.platform.hosts[0]]["python"]["path"],
                    "platform": {name: getattr(job.platform, name) for name in ("python", "machine", "glibc")},
                    "source": str(pack(job, Path(given["cache"]).expanduser(), Index.given(given))),
                    "shelf": str(job.shelf),
                }
                for job in jobs
            }
        except BuildError as error:
            raise AnsibleActionFail(without_secrets(str(error))) from None


def platforms_of(hosts: dict[str, dict[str, Any]]) -> list[Platform]:
    """Hosts (name to what host_info says) grouped by platform.

    :raises BuildError: naming the hosts that cannot be built for.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for name, host in sorted(hosts.items()):
        if not host["python"]["version"]:
            raise BuildError(f"{name} does not have the interpreter that forge_python names.")
        if not host["glibc"]:
            raise BuildError(f"{name} does not use glibc: only Debian and Ubuntu hosts are supported.")
        found.setdefault((host["python"]["version"], host["machine"], host["glibc"]), []).append(name)
    return [Platform(*key, hosts=tuple(names)) for key, names in found.items()]
