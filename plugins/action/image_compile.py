# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiles in a base image, where Ansible runs; the wheel goes into the cache."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..modules.compile import BUILD, ENVIRONMENT, SCRIPT, explain
from ..modules.image_compile import ARGUMENT_SPEC
from ..plugin_utils._private.build.errors import BuildError
from ..plugin_utils._private.build.target_platform import Platform
from ..plugin_utils._private.build.wheel_builder import accept_wheel
from ..plugin_utils._private.build.workspace import without_secrets
from ..plugin_utils._private.container_tool import ContainerTool, ContainerToolError

CONTAINERFILE = """\
FROM {base} AS build
{install}
COPY . /compile/
WORKDIR /compile
ENV {environment}
RUN ["/bin/sh", "-c", "/bin/sh compile.sh {python} \\"$(cat build.py)\\" <source.tar >output.tar"]

FROM scratch
COPY --from=build /compile/output.tar /
"""
INSTALL = "RUN apt-get update && apt-get install --yes --no-install-recommends {packages}"


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.image_compile``."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _valid, args = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        if self._task.check_mode:
            return {**result, "changed": True, "msg": f"Would compile {args['requirement']} in {args['base']}."}
        try:
            wheel = compile_in_image(args, ContainerTool.find(args["tool"]))
        except (BuildError, ContainerToolError) as error:
            raise AnsibleActionFail(without_secrets(f"{error} {args['advice']}".rstrip())) from None
        return {**result, "changed": True, "wheel": str(wheel)}


def compile_in_image(args: dict[str, Any], tool: ContainerTool) -> Path:
    """Compile, and put the wheel into the cache.

    :param args: arguments of the module.
    :raises ContainerToolError: when it does not compile.
    :raises BuildError: when what comes out is no such wheel.
    """
    with tempfile.TemporaryDirectory() as scratch:
        context, output = Path(scratch, "context"), Path(scratch, "output")
        context.mkdir()
        environment = {**ENVIRONMENT, "HOME": "/compile", "TMPDIR": "/compile"}
        texts = {
            "compile.sh": SCRIPT,
            "build.py": BUILD,
            "Containerfile": CONTAINERFILE.format(
                base=args["base"], python=args["python"],
                install=INSTALL.format(packages=" ".join(args["packages"])) if args["packages"] else "",
                environment=" ".join(f"{name}={value}" for name, value in environment.items()),
            ),
        }  # fmt: skip
        for name, text in texts.items():
            (context / name).write_text(text, encoding="utf-8")
        shutil.copy(args["source"], context / "source.tar")
        try:
            tool.export(context, output, args["image_platform"])
        except ContainerToolError as error:
            raise ContainerToolError(explain(error.output, args["requirement"])) from None
        return accept_wheel(
            output / "output.tar", args["requirement"], Platform(**args["platform"]), Path(args["wheel_dir"])
        )
