# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the variables of a host on the controller."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.release import __version__ as ansible_version

from ..plugin_utils._private.inventory.edge_rules import wrong_edge
from ..plugin_utils._private.inventory.names import no_inventories, unknown_names
from ..plugin_utils._private.inventory.rules import (
    RESULT,
    declared_options,
    with_defaults,
    wrong_names,
    wrong_settings,
    wrong_types,
    wrong_values,
)
from ..plugin_utils._private.transport.controller import version_problems

NO_DATABASE = (
    ", because the group forge_database has no host: name there the one that runs PostgreSQL, or write the URL of your own "
    "database in its place"
)
NO_POSTGRESQL = (
    "The database of the group forge_database needs the collection community.postgresql, which the controller does not have: "
    "ansible-galaxy collection install community.postgresql."
)
NO_CRYPTO = (
    "forge_edge_tls: own needs the collection community.crypto, which the controller does not have: "
    "ansible-galaxy collection install community.crypto."
)
NO_KUBERNETES = (
    "forge_kubernetes_apply needs the collection kubernetes.core and its library, which the controller does not have: "
    "ansible-galaxy collection install kubernetes.core, and the Python package kubernetes for the Python that runs Ansible."
)
# In place of the database's URL while variables are checked, so that it is seen which of them refer to it.
STANDS_FOR = "known-when-the-server-was-looked-at"
STANDS_FOR_URL = f"postgresql://{STANDS_FOR}:{STANDS_FOR}@{STANDS_FOR}:5432/{STANDS_FOR}"
OPTIONS = declared_options()  # read once, when Ansible loads this, and not again in each of its forks


class ActionModule(ActionBase):
    """See the documentation of the module ``thecodeforge.fastapi.preflight``."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        names = {name for name in task_vars or {} if name.startswith("forge_")}
        too_old = version_problems(sys.version_info[:3], ansible_version)
        if too_old:
            raise AnsibleActionFail(" ".join([*too_old, "Nothing was changed."]))
        problems = unknown_names(names, OPTIONS)
        values: dict[str, Any] = {}
        self._provide_database_url(task_vars or {})
        for name in sorted(names & set(OPTIONS)):
            if not RESULT.match(name):
                value, undefined = self._evaluate(name, (task_vars or {})[name])
                problems += undefined
                if not undefined:
                    values[name] = value
        problems += wrong_types(values)
        if not problems:
            prefix = with_defaults(values)["forge_environment_prefix"]
            problems += wrong_values(values)
            problems += wrong_settings(values.get("forge_environment", {}), prefix)
            problems += wrong_settings(values.get("forge_environment_plain", {}), "", "forge_environment_plain")
            problems += wrong_names(values)
            groups = (task_vars or {}).get("groups", {})
            is_edge = (task_vars or {}).get("inventory_hostname") in groups.get("forge_edge", [])
            problems += wrong_edge(values, is_edge, has_edges=bool(groups.get("forge_edge")))
            if is_edge and values.get("forge_edge_tls") == "own" and not has_collection("community", "crypto"):
                problems.append(NO_CRYPTO)
            if values.get("forge_kubernetes_apply") and not (
                has_collection("kubernetes", "core") and has_library("kubernetes")
            ):
                problems.append(NO_KUBERNETES)
        uses = uses_database(values)
        if uses and (task_vars or {}).get("groups", {}).get("forge_database"):
            problems += [] if has_collection("community", "postgresql") else [NO_POSTGRESQL]
        if problems:
            raise AnsibleActionFail(" ".join([*problems, "Nothing was changed."]))
        return {
            **result,
            "changed": False,
            "uses_database": uses,
            "warnings": stray_files(task_vars or {}),
        }

    def _provide_database_url(self, task_vars: dict[str, Any]) -> None:
        """Let variables refer to the URL of the inventory's database, which is known when its server has been looked at."""
        groups = task_vars.get("groups", {})
        if groups.get("forge_database") and not task_vars.get("forge_database_url"):
            self._templar.available_variables = {
                **self._templar.available_variables,
                "forge_database_url": STANDS_FOR_URL,
            }

    def _evaluate(self, name: str, value: Any) -> tuple[Any, list[str]]:
        """Return the value of a variable, and a sentence for each part of it that is undefined."""
        if not isinstance(value, dict):
            return self._evaluate_part(name, value)
        parts = {key: self._evaluate_part(f"{name}.{key}", part) for key, part in value.items()}
        found = {key: part for key, (part, _problems) in parts.items()}
        return found, [problem for _part, problems in parts.values() for problem in problems]

    def _evaluate_part(self, name: str, value: Any) -> tuple[Any, list[str]]:
        try:
            return self._templar.template(value), []
        except AnsibleError as error:
            cause = last_cause(error)
            advice = NO_DATABASE if "'forge_database_url' is undefined" in cause else ""
            return None, [f"{name} cannot be worked out: {cause}{advice}."]


def has_collection(namespace: str, name: str) -> bool:
    """Return whether Ansible finds a collection."""
    try:
        return importlib.util.find_spec(f"ansible_collections.{namespace}.{name}") is not None
    except ImportError:
        return False


def has_library(name: str) -> bool:
    """Return whether the Python that runs Ansible finds a library."""
    return importlib.util.find_spec(name) is not None


def stray_files(task_vars: dict[str, Any]) -> list[str]:
    """Return a sentence for each file that Ansible took for an inventory; the first host of a play asks for all."""
    groups, hosts = task_vars["groups"], task_vars["hostvars"]
    if not groups["ungrouped"] or task_vars["inventory_hostname"] != task_vars["ansible_play_hosts_all"][0]:
        return []
    files = {name: hosts.raw_get(name).get("inventory_file") for name in groups["all"]}
    alone = {files.pop(name) for name in groups["ungrouped"] if name in files}
    return no_inventories(task_vars.get("ansible_inventory_sources") or [], alone, files.values())


def uses_database(values: dict[str, Any]) -> bool:
    """Return whether the inventory asks for a database: by a value that holds a part of its URL, or by naming it."""
    named = ("forge_database_name", "forge_database_user", "forge_database_password")
    return any(values.get(name) for name in named) or STANDS_FOR in json.dumps(values, default=str)


def last_cause(error: AnsibleError) -> str:
    """Return the last cause, in Ansible's words."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, RecursionError):
        return "it refers to itself, or to a variable that refers to it"
    return str(cause).splitlines()[0].rstrip(".")
