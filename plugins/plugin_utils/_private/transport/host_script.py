# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What host_call sends along with a module: it runs the module on the host, and stands in for AnsibleModule there.

The text below is the beginning of the script, so it imports nothing of ours. Runs on Python 3.9 or newer.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import sys
import zlib
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn


class SentModules:
    """Imports modules from their texts, by name. What is only the beginning of a name is a package."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = sources

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        is_package = any(each.startswith(name + ".") for each in self.sources)
        if name not in self.sources and not is_package:
            return None
        spec = ModuleSpec(name, self, origin=f"{name}.py", is_package=is_package)  # type: ignore[arg-type]
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        text = self.sources.get(module.__name__, "")
        exec(compile(text, f"{module.__name__}.py", "exec"), module.__dict__)  # noqa: S102

    def get_source(self, name: str) -> str:
        """For ``inspect.getsource``: app_check is sent on, to the app's own Python."""
        return self.sources.get(name, "")


class StandIn:
    """What our modules use of AnsibleModule. The controller has checked the parameters, and masks the result."""

    call: dict[str, Any] = {}

    def __init__(self, argument_spec: dict[str, dict[str, Any]], supports_check_mode: bool = False) -> None:
        self.check_mode, self._diff = self.call["check"], self.call["diff"]
        self.warnings: list[str] = []
        self.deprecations: list[dict[str, Any]] = []
        self.params = dict(self.call["params"])
        for name, option in argument_spec.items():
            if option.get("type") == "path" and self.params[name]:
                self.params[name] = os.path.expanduser(os.path.expandvars(self.params[name]))
        if self.check_mode and not supports_check_mode:
            self.exit_json(skipped=True, msg="This module does not support check mode.")

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)

    def deprecate(self, msg: str, **when: Any) -> None:
        self.deprecations.append({"msg": msg, **when})

    def exit_json(self, **result: Any) -> NoReturn:
        self.print_result(result)
        sys.exit(0)

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        self.print_result({**result, "failed": True, "msg": msg})
        sys.exit(1)

    def print_result(self, result: dict[str, Any]) -> None:
        notes = {"warnings": self.warnings, "deprecations": self.deprecations}
        print("\n" + json.dumps({**result, **{name: each for name, each in notes.items() if each}}), flush=True)


def run(packed: str) -> None:
    """Run one module.

    :param packed: JSON, compressed, as base64: ``module`` (its full name), ``sources`` (name to text), ``params``, ``check``
        and ``diff``.
    """
    call = json.loads(zlib.decompress(base64.b64decode(packed)))
    StandIn.call = call
    basic: Any = ModuleType("ansible.module_utils.basic")
    basic.AnsibleModule = StandIn
    sys.modules[basic.__name__] = basic
    sys.meta_path.insert(0, SentModules(call["sources"]))  # type: ignore[arg-type]
    importlib.import_module(call["module"]).main()
