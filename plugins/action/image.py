# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the image of a release where Ansible runs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils._private.environment import read_environment
from ..modules.image import ARGUMENT_SPEC
from ..plugin_utils._private.build.artifact import bill_of_materials, with_names
from ..plugin_utils._private.build.errors import BuildError
from ..plugin_utils._private.build.records import BuildRecord, read_record
from ..plugin_utils._private.build.workspace import Workspace, without_secrets
from ..plugin_utils._private.container_tool import ContainerTool, ContainerToolError
from ..plugin_utils._private.image import (
    ImageError,
    env_file,
    leaks,
    pointing_to_the_host,
    seconds_of,
    write_context,
    write_private,
)


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.image``."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _valid, args = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        try:
            workspace = Workspace.from_arguments(args)
            record = read_record(workspace.cache, args["release"])
            settings = read_environment(args["environment"])
            found = list(leaks(Path(record.code), args["files"], settings, args["secret_files"].values()))
            if found:
                raise ImageError(
                    f"The image would hold secrets: {'; '.join(found)}. Leave them out of the source, or name the files in "
                    "forge_source_exclude: a container gets its settings when it starts. No image was made."
                )
            settings_text = env_file(settings) if args["env_file"] else ""
            local = pointing_to_the_host(settings)
            if local:
                self._display.warning(
                    f"{', '.join(local)} points to this host, which in a container is the container itself: start that with another value."
                )
            tool = ContainerTool.find(args["tool"])
            tags = [args["name"], f"{args['name'].rpartition(':')[0]}:{record.release}"]
            id_of = tool.id_of if len(args["layers"]) == 1 else tool.id_of_index
            before = id_of(args["name"])
            if self._task.check_mode:
                return {**result, "changed": not before, "tags": tags, "id": before}
            if settings_text:
                write_private(Path(args["env_file"]).expanduser(), settings_text)
            image = self._build(tool, tags, record, args, workspace)
            if args["push"]:
                for tag in tags:
                    tool.push(tag)
        except (BuildError, ContainerToolError, ImageError) as error:
            raise AnsibleActionFail(without_secrets(str(error))) from None
        return {**result, "changed": image != before or args["push"], "tags": tags, "id": image}

    def _build(
        self,
        tool: ContainerTool,
        tags: list[str],
        record: BuildRecord,
        args: dict[str, Any],
        workspace: Workspace,
    ) -> str:
        """:returns: id of the image."""
        lock = without_secrets("".join(Path(each).read_text(encoding="utf-8") for each in record.locks))
        materials = bill_of_materials(with_names(lock, record.extra_wheels), workspace)
        images = []
        for platform, layer in args["layers"].items():
            with tempfile.TemporaryDirectory() as scratch:
                write_context(Path(scratch), Path(record.code), Path(layer), materials, args["files"])
                time = seconds_of(record.time)
                built = tool.build(Path(scratch), platform, time)[0]
                images.append(
                    tool.give_names(built, tags if len(args["layers"]) == 1 else [], args["base"], platform, time)
                )
        return images[0] if len(images) == 1 else tool.make_index(images, tags)
