# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""Runs a module of this collection on a host from the sources that arrive with it: see plugin_utils/_private/transport/host_call.py.

It stands in for ``ansible.module_utils.basic``, with what our modules use of it and nothing else.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from importlib.machinery import ModuleSpec
from typing import Any, NoReturn

MASK = "********"
TRUE, FALSE = ("y", "yes", "on", "1", "true", "t", "1.0"), ("n", "no", "off", "0", "false", "f", "0.0")


class Sources:
    """Imports modules from texts, by name. A package is a name without a text."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self.texts:
            return None
        spec = ModuleSpec(name, self, origin=f"{name}.py", is_package=not self.texts[name])  # type: ignore[arg-type]
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(compile(self.texts[module.__name__], module.__spec__.origin, "exec"), module.__dict__)  # noqa: S102

    def get_source(self, name: str) -> str:
        return self.texts[name]


class AnsibleModule:
    given: dict[str, Any] = {}
    checks = diffs = False

    def __init__(self, argument_spec: dict[str, dict[str, Any]], supports_check_mode: bool = False) -> None:
        self.check_mode, self._diff = self.checks, self.diffs
        self.warnings: list[str] = []
        self.secrets = [str(self.given.get(name) or "") for name, spec in argument_spec.items() if spec.get("no_log")]
        self.params = {name: self.value(name, spec) for name, spec in argument_spec.items()}
        unknown = sorted(set(self.given) - set(argument_spec))
        if unknown:
            self.fail_json(f"Unsupported parameters: {', '.join(unknown)}.")

    def value(self, name: str, spec: dict[str, Any]) -> Any:
        value = self.given.get(name)
        if value is None:
            if spec.get("required"):
                self.fail_json(f"missing required arguments: {name}")
            return spec.get("default")
        try:
            value = as_type(value, spec.get("type", "str"))
            if "elements" in spec:
                value = [as_type(each, spec["elements"]) for each in value]
        except (TypeError, ValueError):
            self.fail_json(f"{name} must be of type {spec.get('type', 'str')}.")
        if "choices" in spec and value not in spec["choices"]:
            self.fail_json(f"{name} must be one of {', '.join(spec['choices'])}.")
        return value

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)

    def exit_json(self, **result: Any) -> NoReturn:
        self.answer(result)
        sys.exit(0)

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        self.answer({**result, "failed": True, "msg": msg})
        sys.exit(1)

    def answer(self, result: dict[str, Any]) -> None:
        text = json.dumps({**result, "warnings": self.warnings} if self.warnings else result)
        for secret in filter(None, self.secrets):
            text = text.replace(json.dumps(secret)[1:-1], MASK)
        print("\n" + text, flush=True)


def as_type(value: Any, kind: str) -> Any:
    """As AnsibleModule converts, for the types that our modules have.

    :raises TypeError, ValueError: when it cannot be one.
    """
    if kind == "bool":
        word = str(value).lower()
        if word not in TRUE + FALSE:
            raise ValueError(word)
        return word in TRUE
    if kind == "path":
        return os.path.expanduser(os.path.expandvars(str(value)))
    if kind in ("list", "dict"):
        if not isinstance(value, {"list": list, "dict": dict}[kind]):
            raise TypeError(kind)
        return value
    if kind == "int" and isinstance(value, float) and value != int(value):
        raise ValueError(value)
    return {"int": int, "float": float, "str": str}[kind](value)


def run(call: dict[str, Any]) -> None:
    """Run one module.

    :param call: ``module`` (its full name), ``sources`` (name to text), ``arguments``, ``check`` and ``diff``.
    """
    AnsibleModule.given, AnsibleModule.checks, AnsibleModule.diffs = call["arguments"], call["check"], call["diff"]
    sys.meta_path.insert(0, Sources(call["sources"]))  # type: ignore[arg-type]
    importlib.import_module("ansible.module_utils.basic").AnsibleModule = AnsibleModule  # type: ignore[attr-defined]
    importlib.import_module(call["module"]).main()
