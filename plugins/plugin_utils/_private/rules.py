# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""What a user can get wrong in an inventory, and the sentence that says so."""

from __future__ import annotations

import re
import shlex
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ...module_utils._private.environment import UnwritableError, write_environment

# The one written in C is ten times as quick; it is not in every build of PyYAML.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROLES = Path(__file__).parents[3] / "roles"
APP = re.compile(r"^[a-z][a-z0-9-]{0,30}\Z")
ACCOUNT = re.compile(r"^[a-z_][a-z0-9_-]{0,31}\Z")
TARGET = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?\Z")
LISTEN = re.compile(r"^(\d{1,5}|[0-9.]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}|/[^\s%]+)\Z")
ROOT = re.compile(r"^(/[A-Za-z0-9._-]+)+/?\Z")  # it stands in units, where blanks and % have a meaning
POSITIVE = (
    "forge_timeout",
    "forge_keepalive",
    "forge_drain_seconds",
    "forge_health_deadline",
    "forge_health_passes",
    "forge_migrations_timeout",
    "forge_worker_memory_mb",
)
NOT_NEGATIVE = (
    "forge_database_connections",
    "forge_keep",
    "forge_lock_wait",
    "forge_memory_max_mb",
    "forge_watch_seconds",
    "forge_worker_connections",
    "forge_workers",
)


@lru_cache(maxsize=1)
def declared_options() -> dict[str, dict[str, Any]]:
    """Every variable that a role of this collection declares, name to specification."""
    options: dict[str, dict[str, Any]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        specs = yaml.load(path.read_text(encoding="utf-8"), LOADER)["argument_specs"]  # noqa: S506 (a safe one)
        for entry_point in specs.values():
            options.update(entry_point.get("options") or {})
    return options


def wrong_types(values: dict[str, Any]) -> list[str]:
    """Values that are not of the declared type. The value itself is not repeated: it may be a secret."""
    options = declared_options()
    said = []
    for name, value in values.items():
        spec = {key: options[name][key] for key in ("type", "elements", "choices") if key in options[name]}
        if (
            not has_shape(value, spec["type"])
            or ArgumentSpecValidator({name: spec}).validate({name: value}).error_messages
        ):
            kind = f"list of {spec['elements']}" if "elements" in spec else spec["type"]
            choices = f", one of {', '.join(map(str, spec['choices']))}" if "choices" in spec else ""
            said.append(f"{name} must be of type {kind}{choices}.")
    return said


def has_shape(value: Any, kind: str) -> bool:
    """Ansible's validator takes ``"a,b"`` for a list, ``"a=b"`` for a mapping and nothing for anything; templates do not."""
    return value is not None and isinstance(value, {"list": list, "dict": dict}.get(kind, object))


def wrong_values(values: dict[str, Any]) -> list[str]:
    """Values of the right type that cannot work."""
    said = []
    if not APP.match(str(values.get("forge_app", "forge"))):
        said.append("forge_app must be lower-case letters, digits and dashes, a letter first, 31 at the most.")
    if not ROOT.match(str(values.get("forge_root", "/srv"))):
        said.append("forge_root must be an absolute path of letters, digits, dots, dashes and underscores.")
    for name in ("forge_user", "forge_group"):
        if not ACCOUNT.match(str(values.get(name, "forge"))) or values.get(name) == "root":
            said.append(f"{name} must be the name of a system account, and not root.")
    if not TARGET.match(str(values.get("forge_target", "main:app"))):
        said.append("forge_target must have the form package.module:app.")
    for address in values.get("forge_listen", []):
        port = re.search(r"(?:^|:)(\d+)$", str(address))
        if not LISTEN.match(str(address)) or (port and not 0 < int(port[1]) < 65536):
            said.append(f"forge_listen: {address!r} must be address:port, a port, or the path of a unix socket.")
    if "forge_listen" in values and not values["forge_listen"]:
        said.append("forge_listen must name at least one address.")
    said += [f"{name} must be more than 0." for name in POSITIVE if int(values.get(name, 1)) <= 0]
    said += [f"{name} must not be negative." for name in NOT_NEGATIVE if int(values.get(name, 0)) < 0]
    if not str(values.get("forge_health_path", "/")).startswith("/"):
        said.append("forge_health_path must start with a slash.")
    if not all(str(request.get("path", "")).startswith("/") for request in values.get("forge_smoke", [])):
        said.append("forge_smoke: each request must have a path that starts with a slash.")
    commands = [("forge_migrations", command) for command in values.get("forge_migrations", [])]
    commands += [(name, values[name]) for name in ("forge_smoke_command", "forge_schema_version") if values.get(name)]
    said += [f"{name}: {text!r} is no command: {why}." for name, text in commands if (why := command_problem(text))]
    return said


def command_problem(command: str) -> str:
    """Why a command has no words; empty when it has."""
    try:
        return "" if shlex.split(command) else "it is empty"
    except ValueError as error:
        return str(error).lower()


def wrong_settings(settings: dict[str, Any], prefix: str) -> list[str]:
    """Settings that cannot be written, or a database URL that cannot be one. Names only, never values."""
    said = []
    for name, value in settings.items():
        try:
            write_environment({name: value}, prefix)
        except UnwritableError as error:
            said.append(f"forge_environment: {error}")
        if str(name) == "DATABASE_URL":
            problem = database_url_problem(value)
            if problem:
                said.append(f"forge_environment: {prefix}DATABASE_URL {problem}.")
    return said


def database_url_problem(value: Any) -> str:
    """What is wrong with a database URL; empty when nothing is."""
    if not isinstance(value, str) or not value:
        return "is empty: put a host into the group forge_database, or give the URL of your own database"
    try:
        url = urlsplit(value)
        _port = url.port
    except ValueError:
        return "is not a URL (is a character in the password not escaped, or the port not a number?)"
    if not url.scheme or "://" not in value:
        return "is not a URL: it must start with a scheme, such as postgresql://"
    if not url.scheme.startswith("sqlite") and not url.path.strip("/"):
        return "names no database: it must end in /name"
    return ""
