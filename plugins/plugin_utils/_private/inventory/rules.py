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

from ....module_utils._private.environment import NAME, UnwritableError, as_text, write_environment

# The one written in C is ten times as quick; it is not in every build of PyYAML.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROLES = Path(__file__).parents[4] / "roles"
APP = re.compile(r"^[a-z][a-z0-9-]{0,30}\Z")
ACCOUNT = re.compile(r"^[a-z_][a-z0-9_-]{0,31}\Z")
TARGET = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?\Z")
LISTEN = re.compile(r"^(\d{1,5}|[0-9.]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}|/[^\s%]+)\Z")
ROOT = re.compile(r"^(/[A-Za-z0-9._-]+)+/?\Z")  # it stands in units, where blanks and % have a meaning
DIRECTORY = re.compile(r"^(?!.*(^|/)\.\.(/|\Z))[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*\Z")
FILE = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
CLASS = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+\Z")
PROCESS = re.compile(r"^[a-z][a-z0-9-]{0,30}\Z")
SCHEDULE = re.compile(r"^[A-Za-z0-9*:/., ~_+-]+\Z")
PROCESS_SETTINGS = {"command", "schedule", "stop_seconds", "count"}
# What the units set. A variable of that name would reach the app in its place, or not at all.
RESERVED = re.compile(
    r"^(PATH|PYTHONPATH|FORGE_WORKER_(CURRENT|GENERATION|STATE|DRAIN)|FORGE_SOCKET|LISTEN_\w+|NOTIFY_SOCKET|MAINPID"
    r"|(RUNTIME|STATE|CACHE)_DIRECTORY)\Z"
)
OWN = ("RELEASE", "GENERATION")
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
    said += wrong_server(values)
    said += wrong_paths(values)
    for name, process in values.get("forge_processes", {}).items():
        said += [f"forge_processes: {name}: {problem}." for problem in wrong_process(str(name), process)]
    commands = [(name, each) for name in ("forge_migrations", "forge_seeds") for each in values.get(name, [])]
    commands += [(name, values[name]) for name in ("forge_smoke_command", "forge_schema_version") if values.get(name)]
    said += [f"{name}: {text!r} is no command: {why}." for name, text in commands if (why := command_problem(text))]
    return said


def wrong_server(values: dict[str, Any]) -> list[str]:
    said = []
    server, worker_class = values.get("forge_server", "gunicorn"), str(values.get("forge_worker_class", ""))
    if worker_class and not CLASS.match(worker_class):
        said.append("forge_worker_class must have the form package.module.Class.")
    if worker_class and server != "gunicorn":
        said.append(f"forge_worker_class is for forge_server: gunicorn, not for {server}: leave out one of them.")
    if server == "uvicorn" and int(values.get("forge_workers", 0)) > 1:
        said.append("forge_server: uvicorn is one process: leave out forge_workers, or use gunicorn.")
    return said


def wrong_paths(values: dict[str, Any]) -> list[str]:
    said = []
    if not DIRECTORY.match(str(values.get("forge_directory", "."))):
        said.append(
            "forge_directory must be a path inside the release, of letters, digits, dots, dashes and underscores."
        )
    for name, base in (("forge_state_directories", "/var/lib"), ("forge_cache_directories", "/var/cache")):
        said += [
            f"{name}: {path!r} must be a path below {base}, without a slash at its start, such as shop or shop/uploads."
            for path in values.get(name, [])
            if not DIRECTORY.match(str(path)) or str(path).startswith(".")
        ]
    said += [
        f"forge_writable_paths: {path!r} must be an absolute path of letters, digits, dots, dashes and underscores."
        for path in values.get("forge_writable_paths", [])
        if not ROOT.match(str(path))
    ]
    return said


def wrong_process(name: str, process: Any) -> list[str]:
    """What is wrong with one of forge_processes."""
    if not PROCESS.match(name):
        return ["its name must be lower-case letters, digits and dashes, a letter first, 31 at the most"]
    if not isinstance(process, dict) or not process.get("command"):
        return ["it must have a command"]
    said = [
        f"{key} is none of {', '.join(sorted(PROCESS_SETTINGS))}" for key in sorted(set(process) - PROCESS_SETTINGS)
    ]
    command, schedule = str(process["command"]), str(process.get("schedule", ""))
    problem = "it has a line break" if "\n" in command else command_problem(command)
    if problem:
        said.append(f"{command!r} is no command: {problem}")
    if schedule and not SCHEDULE.match(schedule):
        said.append(f"{schedule!r} is no schedule: see systemd.time(7), OnCalendar")
    for key in ("stop_seconds", "count"):
        if not re.fullmatch(r"[1-9]\d{0,4}", str(process.get(key, 1))):
            said.append(f"{key} must be a number of at least 1")
    if schedule and str(process.get("count", 1)) != "1":
        said.append("a command with a schedule runs once at a time: leave out count")
    return said


def wrong_names(values: dict[str, Any]) -> list[str]:
    """Names of variables and of settings files that meet others or ours."""
    prefix = str(values.get("forge_environment_prefix", "FORGE_"))
    files = values.get("forge_files", [])
    origins: dict[str, list[str]] = {}
    for origin, names in (
        ("forge_environment", [f"{prefix}{name}" for name in values.get("forge_environment", {})]),
        ("forge_environment_plain", [str(name) for name in values.get("forge_environment_plain", {})]),
        ("forge_files", [str(file["variable"]) for file in files if file.get("variable")]),
    ):
        for name in names:
            origins.setdefault(name, []).append(origin)
    said = []
    for name, given in origins.items():
        if RESERVED.match(name) or name in [prefix + own for own in OWN]:
            said.append(f"{given[0]}: {name} is set by the service itself: choose another name.")
        if len(given) > 1:
            said.append(f"{name} is given twice, in {' and in '.join(given)}: leave out one.")
    return said + wrong_files(files)


def wrong_files(files: list[dict[str, Any]]) -> list[str]:
    said, seen = [], set()
    for file in files:
        name = str(file.get("name", ""))
        if not FILE.match(name):
            said.append(
                f"forge_files: {name!r} must be the name of a file: letters, digits, dots, dashes and underscores."
            )
            continue
        if name in seen:
            said.append(f"forge_files: {name} is given twice: leave out one.")
        seen.add(name)
        if extra := sorted(set(file) - {"name", "content", "variable"}):
            said.append(f"forge_files: {name}: {', '.join(extra)} is none of content, name, variable.")
        try:
            as_text(f"the content of {name}", file.get("content"))
        except UnwritableError as error:
            said.append(f"forge_files: {error}")
        if file.get("variable") and not NAME.match(str(file["variable"])):
            said.append(f"forge_files: {name}: variable must be letters, digits and underscores.")
    return said


def command_problem(command: str) -> str:
    """Why a command has no words; empty when it has."""
    try:
        return "" if shlex.split(command) else "it is empty"
    except ValueError as error:
        return str(error).lower()


def wrong_settings(settings: dict[str, Any], prefix: str, origin: str = "forge_environment") -> list[str]:
    """Settings that cannot be written, or a database URL that cannot be one. Names only, never values."""
    said = []
    for name, value in settings.items():
        try:
            write_environment({name: value}, prefix)
        except UnwritableError as error:
            said.append(f"{origin}: {error}")
        if str(name) == "DATABASE_URL":
            problem = database_url_problem(value)
            if problem:
                said.append(f"{origin}: {prefix}DATABASE_URL {problem}.")
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
