# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user can get wrong in an inventory, and the sentence that says so.

Every function returns the problems it has found, a sentence each; an empty list when there are none.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import shlex
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ....module_utils._private.environment import NAME, UnwritableError, as_text, write_environment
from ....module_utils._private.listening import endpoint, overlap
from ....module_utils._private.transient import CONFINEMENT

# The one written in C is ten times as quick; it is not in every build of PyYAML.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROLES = Path(__file__).parents[4] / "roles"
APP = re.compile(r"^[a-z][a-z0-9-]{0,30}\Z")
ACCOUNT = re.compile(r"^[a-z_][a-z0-9_-]{0,31}\Z")
DATABASE = re.compile(
    r"^(?!(postgres|template[01]|pg_.*|all|replication|sameuser|samerole)\Z)[A-Za-z_][A-Za-z0-9_.-]{0,62}\Z"
)
TARGET = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?\Z")
LISTEN = re.compile(r"^(\d{1,5}|[0-9.]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}|/[^\s%]+)\Z")
ROOT = re.compile(r"^(/[A-Za-z0-9._-]+)+/?\Z")  # it stands in units, where blanks and % have a meaning
DIRECTORY = re.compile(r"^(?!.*(^|/)\.\.(/|\Z))[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*\Z")
FILE = re.compile(r"^\.?[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
CLASS = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+\Z")
STATUS = re.compile(r"^[1-5]\d\d\Z")
PROCESS = re.compile(r"^[a-z][a-z0-9-]{0,30}\Z")
SHARE = re.compile(r"^([1-9]\d{0,5}|([1-9]\d?|100)%)\Z")
PATH = re.compile(r"^/[A-Za-z0-9._~/-]*\Z")
WEB_ADDRESS = re.compile(r"^https?://[^\s/]+(/\S*)?\Z")
ACME = re.compile(r"^https://[^\s/]+(/\S*)?\Z")
EMAIL = re.compile(r"^[^@\s]+@[^@\s]+\Z")
HOST = re.compile(r"^[A-Za-z0-9_]([A-Za-z0-9._:-]*[A-Za-z0-9])?\Z")
# With a tag, and not by digest: what is made has none yet. Source: distribution/reference, the grammar of its doc.go.
IMAGE = re.compile(r"^([A-Za-z0-9.-]+(:\d{1,5})?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*:\w[\w.-]{0,127}\Z", re.ASCII)
LABEL = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")  # RFC 1123
CPU = re.compile(r"^(\d+m|\d+(\.\d{1,3})?)\Z", re.ASCII)
BASE = re.compile(r"^[A-Za-z0-9][\w./:@-]*\Z", re.ASCII)
SCHEDULE = re.compile(r"^[A-Za-z0-9*:/., ~_+-]+\Z")
PYTHON = re.compile(r"^(3\.(9|[1-9]\d)(\.\d{1,2})?|(/[\w.+-]+)*/?python3?(\.\d+)?[\w.-]*)\Z")
VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*\Z")
CLUSTER = re.compile(r"^[a-z][a-z0-9_]{0,40}\Z")  # a dash would be one of the unit's name
DIRECTIVE_VALUE = re.compile(r"^[^\x00-\x1f\x7f%\\]*\Z")  # of a unit, where % and a backslash have a meaning
PROCESS_SETTINGS = {"command", "schedule", "stop_seconds", "count", "once", "on_failure"}
# What the units set. A variable of that name would reach the app in its place, or not at all.
RESERVED = re.compile(
    r"^(PATH|PYTHONPATH|FORGE_IMPORT_PATHS|FORGE_WORKER_\w+|FORGE_CREDENTIAL|FORGE_SOCKET|LISTEN_\w+|NOTIFY_SOCKET|MAINPID"
    r"|(RUNTIME|STATE|CACHE)_DIRECTORY)\Z"
)
SET_BY_UNITS = ("RELEASE", "GENERATION")  # with the prefix of forge_environment
# No path, name, address or command holds these; a command may have several lines.
UNSPEAKABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
LINE_BREAK = re.compile(r"[\r\n]")
COMMANDS = (
    "forge_build_commands",
    "forge_release_commands",
    "forge_migrations",
    "forge_seeds",
    "forge_smoke_command",
    "forge_schema_version",
    "forge_wave_check",
    "forge_backup_drill_command",
    "forge_run_command",
)
# Variables whose text has lines.
TEXTS = ("forge_edge_certificate", "forge_edge_key", "forge_edge_unavailable_page", "forge_maintenance_page")
LONGEST, LONGEST_COMMAND = 4096, 100_000  # characters; of a text as of a command
NO_NUMBERS = (float("inf"), float("-inf"))
# Facts with which roles of one run hand their results on. An earlier play has set them, no inventory.
RESULT = re.compile(r"^forge_(\w+_result|host_facts|rollout_target)\Z")


@cache
def declared_options() -> dict[str, dict[str, Any]]:
    """Return every variable that a role of this collection declares, name to specification."""
    options: dict[str, dict[str, Any]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        specs = yaml.load(path.read_text(encoding="utf-8"), LOADER)["argument_specs"]  # noqa: S506 (a safe one)
        for entry_point in specs.values():
            options.update(entry_point.get("options") or {})
    return options


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    return {**{name: option.get("default") for name, option in declared_options().items()}, **values}


def wrong_types(values: dict[str, Any]) -> list[str]:
    """Values that are not of the declared type, or no text or number that anything can take.

    The value itself is not repeated: it may be a secret.
    """
    options = declared_options()
    problems = []
    for name, value in values.items():
        spec = {key: options[name][key] for key in ("type", "elements", "choices") if key in options[name]}
        elements = value if spec["type"] == "list" and isinstance(value, list) else []
        if (
            not has_shape(value, spec["type"])
            or not all(has_shape(each, spec["elements"]) for each in elements)
            or ArgumentSpecValidator({name: spec}).validate({name: value}).error_messages
        ):
            kind = f"list of {spec['elements']}" if "elements" in spec else spec["type"]
            choices = f", one of {', '.join(map(str, spec['choices']))}" if "choices" in spec else ""
            problems.append(f"{name} must be of type {kind}{choices}.")
            continue
        found = [unusable(name, each) for each in elements or [value]]
        found += [f"{name} has an empty entry." for each in elements if not str(each).strip()]
        problems += list(filter(None, found))[:1]
    return problems


def has_shape(value: Any, kind: str) -> bool:
    """Ansible's validator takes ``"a,b"`` for a list, ``"a=b"`` for a mapping, anything for a text and nothing for anything."""
    if kind in ("str", "int"):
        return isinstance(value, (str, int, float)) and not isinstance(value, bool) and value not in NO_NUMBERS
    return value is not None and isinstance(value, {"list": list, "dict": dict}.get(kind, object))


def unusable(name: str, value: Any) -> str:
    """Return why a text or number is one that no program takes; empty when it is none, or can be taken."""
    if isinstance(value, int) and abs(value) >= 2**31:
        return f"{name} must be less than 2147483648."
    if not isinstance(value, str):
        return ""
    is_command = name in COMMANDS + TEXTS
    most = LONGEST_COMMAND if is_command else LONGEST
    if len(value) > most:
        return f"{name} has {len(value)} characters: {most} are the most."
    found = UNSPEAKABLE.search(value) or (None if is_command else LINE_BREAK.search(value))
    return f"{name} contains the character U+{ord(found[0]):04X}, which it cannot hold." if found else ""


def is_account(name: Any) -> bool:
    return bool(ACCOUNT.match(str(name))) and name != "root"


def is_address(address: Any) -> bool:
    port = re.search(r"(?:^|:)(\d+)$", str(address))
    return bool(LISTEN.match(str(address))) and (port is None or 0 < int(port[1]) < 65536)


def is_network(address: Any) -> bool:
    try:
        return bool(ipaddress.ip_network(str(address), strict=False))
    except ValueError:
        return False


def is_below(path: Any) -> bool:
    return bool(DIRECTORY.match(str(path))) and not str(path).startswith(".")


def matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: bool(pattern.match(str(value)))


class Rule(NamedTuple):
    """What the value of a variable, or each entry of a list, must fulfil."""

    names: str  # with blanks between
    is_right: Callable[[Any], bool]
    sentence: str  # with {name}, and {value!r} where the value is no secret


RULES = (
    Rule("forge_app", matches(APP),
         "{name} must be lower-case letters, digits and dashes, a letter first, 31 at most."),
    Rule("forge_root", matches(ROOT),
         "{name} must be an absolute path of letters, digits, dots, dashes and underscores."),
    Rule("forge_user forge_group", is_account,
         "{name} must be the name of a system account, and not root."),
    Rule("forge_target", matches(TARGET),
         "{name} must have the form package.module:app."),
    Rule("forge_python", lambda name: not name or bool(PYTHON.match(str(name))),
         "{name} must be a version, in quotes, such as \"3.14\", or the name or path of an interpreter, such as python3.12."),
    Rule("forge_listen", bool,
         "{name} must name at least one address."),
    Rule("forge_timeout forge_keepalive forge_drain_seconds forge_health_deadline forge_health_passes "
         "forge_migrations_timeout forge_patch_reboot_seconds forge_run_seconds forge_worker_memory_mb", lambda value: int(value) > 0,
         "{name} must be more than 0."),
    Rule("forge_postgresql_port", lambda value: 0 < int(value) < 65536,
         "{name} must be a port, from 1 to 65535."),
    Rule("forge_backup_schedule forge_backup_dump_schedule forge_backup_offsite_schedule", matches(SCHEDULE),
         "{name} must be a time as systemd has it, such as daily: see systemd.time(7), OnCalendar."),
    Rule("forge_backup_drill_schedule", lambda value: not value or bool(SCHEDULE.match(str(value))),
         "{name} must be a time as systemd has it, such as daily (see systemd.time(7), OnCalendar), or empty for no drills."),
    Rule("forge_backup_on_failure forge_backup_heartbeat", lambda whom: not wrong_on_failure(whom, True),
         "{name} must be an address, such as https://example.com/x, or a command, on one line, with its quotes closed."),
    Rule("forge_backup_keep forge_backup_dump_keep forge_backup_wal_keep_mb forge_backup_base_hours forge_backup_wal_minutes "
         "forge_backup_drill_hours forge_backup_offsite_days forge_backup_offsite_minutes", lambda value: 0 < int(value) < 2**31,
         "{name} must be more than 0."),
    Rule("forge_backup_offsite_environment",
         lambda texts: all(isinstance(each, str) for pair in texts.items() for each in pair) and all(map(VARIABLE.match, texts)),
         "{name} must be texts by the names of variables, such as AWS_ACCESS_KEY_ID."),
    Rule("forge_restore_cluster", lambda name: not name or bool(CLUSTER.match(str(name))),
         "{name} must be the name of a cluster, in lower-case letters, digits and _, such as restored."),
    Rule("forge_image", lambda name: not name or bool(IMAGE.match(str(name))),
         "{name} must be a name with a tag, in lower-case letters, such as registry.example.org/shop:1.4."),
    Rule("forge_image_base", matches(BASE),
         "{name} must be the name of an image, such as docker.io/library/python:3.13-slim-trixie."),
    Rule("forge_image_port", lambda value: 1023 < int(value) < 65536,
         "{name} must be a port from 1024 to 65535, as the container has no right to open a lower one."),
    Rule("forge_image_user", lambda value: 0 < int(value) < 2**31,
         "{name} must be the number of a user, and not 0, which is root."),
    Rule("forge_kubernetes_replicas forge_kubernetes_workers forge_kubernetes_wait_seconds",
         lambda value: int(value) > 0,
         "{name} must be more than 0."),
    Rule("forge_kubernetes_max_replicas", lambda value: int(value) >= 0,
         "{name} must not be negative."),
    Rule("forge_kubernetes_image", lambda name: not name or bool(IMAGE.match(str(name))),
         "{name} must be a name with a tag, in lower-case letters, such as registry.example.org/shop:1.4."),
    Rule("forge_kubernetes_namespace", lambda name: not name or bool(LABEL.match(str(name))),
         "{name} must be lower-case letters, digits and dashes, 63 at the most."),
    Rule("forge_kubernetes_cpu", matches(CPU),
         "{name} must be CPUs as Kubernetes writes them, such as 250m or 1.5."),
    Rule("forge_kubernetes_ingress_annotations",
         lambda texts: all(isinstance(each, str) for pair in texts.items() for each in pair),
         "{name} must be texts by name: quote what looks like a number or a truth."),
    Rule("forge_build_hosts",
         lambda hosts: all(isinstance(each, dict) and {"python", "machine", "glibc"} <= set(each) for each in hosts.values()),
         "{name} must have python, machine and glibc of each name."),
    Rule("forge_kubernetes_directory", bool,
         "{name} must not be empty."),
    Rule("forge_health_status", matches(STATUS),
         "{name} must be a status of HTTP, from 100 to 599."),
    Rule("forge_edge_timeout forge_edge_tunnel_timeout forge_retry_after", lambda value: 0 < int(value) <= 604800,
         "{name} must be seconds, from 1 to 604800."),
    Rule("forge_ready_path", matches(PATH),
         "{name} must be a path of a URL that starts with a slash."),
    Rule("forge_edge_acme_server", matches(ACME),
         "{name} must be a URL that starts with https."),
    Rule("forge_edge_acme_email", lambda address: not address or bool(EMAIL.match(str(address))),
         "{name} must be an address of mail."),
    Rule("forge_edge_server_address", lambda address: not address or bool(HOST.match(str(address))),
         "{name} must be an address or a name of a host, without a port."),
    Rule("forge_edge_http forge_edge_https", bool,
         "{name} must name at least one address."),
    Rule("forge_edge_body_max_mb forge_edge_hsts_seconds forge_min_serving forge_drain_notice_seconds forge_drain_wait_seconds",
         lambda value: int(value) >= 0,
         "{name} must not be negative."),
    Rule("forge_build_cache_mb forge_database_connections forge_finish_seconds forge_keep forge_lock_wait forge_memory_max_mb "
         "forge_migrations_lock_timeout forge_rehearsal_lock_seconds forge_run_memory_mb "
         "forge_postgresql_max_connections forge_watch_seconds forge_wave_pause forge_worker_connections "
         "forge_workers", lambda value: int(value) >= 0,
         "{name} must not be negative."),
    Rule("forge_database_name forge_database_user", lambda name: not name or bool(DATABASE.match(str(name))),
         "{name} must be letters, digits, dots, dashes and underscores, 63 at most, and not a name of PostgreSQL's own."),
    Rule("forge_patch_batch", matches(SHARE),
         "{name} must be a number of hosts, or a percentage of them such as 50%."),
    Rule("forge_batch", lambda share: not str(share) or bool(SHARE.match(str(share))),
         "{name} must be a number of hosts, or a percentage of them such as 50%."),
    Rule("forge_waves", lambda shares: bool(shares) and str(shares[-1]) == "100%",
         "{name} must end with 100%, or some hosts would never get the release."),
    Rule("forge_health_path", lambda path: str(path).startswith("/"),
         "{name} must start with a slash."),
    Rule("forge_smoke", lambda requests: all(str(each.get("path", "")).startswith("/") for each in requests),
         "{name}: each request must have a path that starts with a slash."),
    Rule("forge_smoke", lambda requests: all(STATUS.match(str(each.get("status", 200))) for each in requests),
         "{name}: the status of a request must be one of HTTP, from 100 to 599."),
    Rule("forge_worker_class", lambda name: not name or bool(CLASS.match(str(name))),
         "{name} must have the form package.module.Class."),
    Rule("forge_directory", matches(DIRECTORY),
         "{name} must be a path inside the release, of letters, digits, dots, dashes and underscores."),
)  # fmt: skip
RULES_FOR_ENTRIES = (
    Rule("forge_listen", is_address,
         "{name}: {value!r} must be address:port, a port, or the path of a unix socket."),
    Rule("forge_state_directories", is_below,
         "{name}: {value!r} must be a path below /var/lib, without a slash at its start, such as shop or shop/uploads."),
    Rule("forge_cache_directories", is_below,
         "{name}: {value!r} must be a path below /var/cache, without a slash at its start, such as shop or shop/uploads."),
    Rule("forge_release_paths", lambda path: is_below(path) and posixpath.normpath(str(path)) == str(path),
         "{name}: {value!r} must be the path of a directory in the release, of letters, digits, dots, dashes and underscores, such as "
         "staticfiles."),
    Rule("forge_waves", matches(SHARE),
         "{name}: {value!r} must be a number of hosts, or a percentage of them such as 50%."),
    Rule("forge_clients", lambda address: address == "any" or is_network(address),
         "{name}: {value!r} must be an address, a network or any, such as 192.0.2.7 or 198.51.100.0/24."),
    Rule("forge_postgresql_clients forge_edge_addresses", is_network,
         "{name}: {value!r} must be an address or a network, such as 192.0.2.7 or 198.51.100.0/24."),
    Rule("forge_writable_paths", matches(ROOT),
         "{name}: {value!r} must be an absolute path of letters, digits, dots, dashes and underscores."),
)  # fmt: skip


def wrong_values(values: dict[str, Any]) -> list[str]:
    """Values of the right type that cannot work."""
    defaults, values = declared_options(), with_defaults(values)
    problems = []
    for rule in RULES:
        given = [name for name in rule.names.split() if values[name] != defaults[name].get("default")]
        wrong = [name for name in given if not rule.is_right(values[name])]
        problems += [rule.sentence.format(name=name) for name in wrong]
    for rule in RULES_FOR_ENTRIES:
        entries = [(name, value) for name in rule.names.split() for value in values[name]]
        problems += [
            rule.sentence.format(name=name, value=value) for name, value in entries if not rule.is_right(value)
        ]
    problems += overlapping(values["forge_listen"])
    problems += wrong_server(values)
    problems += wrong_release_paths(values)
    problems += wrong_sandbox(values["forge_sandbox"])
    for name, process in values["forge_processes"].items():
        problems += [f"forge_processes: {name}: {problem}." for problem in wrong_process(str(name), process)]
    commands = [(name, str(each)) for name in COMMANDS for each in listed(values[name])]
    return problems + [
        f"{name}: {text!r} is no command: {why}." for name, text in commands if (why := command_problem(text))
    ]


def listed(value: Any) -> list[Any]:
    """A list as it is; a text as the only one, or none where it is empty."""
    return value if isinstance(value, list) else [value] * bool(value)


def overlapping(listen: list[Any]) -> list[str]:
    """Addresses of which only one can be opened: the same twice, or one and all of its port."""
    entries = [str(entry) for entry in listen if is_address(entry)]
    return [
        f"forge_listen: {one} and {other} are the same or overlap: leave out one of them."
        for one, other in combinations(entries, 2)
        if overlap(endpoint(one), endpoint(other))
    ]


def wrong_release_paths(values: dict[str, Any]) -> list[str]:
    """Directories that would lie over each other, or that nothing writes."""
    paths = [str(path) for path in values["forge_release_paths"]]
    problems = [
        f"forge_release_paths: {one} and {other} are the same or one lies in the other: leave out one of them."
        for one, other in combinations(sorted(paths), 2)
        if f"{other}/".startswith(f"{one}/")
    ]
    if paths and not values["forge_release_commands"]:
        problems.append("forge_release_paths is what forge_release_commands write: give these too, or leave both out.")
    return problems


def wrong_server(values: dict[str, Any]) -> list[str]:
    """Settings that the server which is chosen does not have."""
    server, problems = values["forge_server"], []
    if values["forge_worker_class"] and server != "gunicorn":
        problems.append(f"forge_worker_class is for forge_server: gunicorn, not for {server}: leave out one of them.")
    if server == "uvicorn" and int(values["forge_workers"]) > 1:
        problems.append("forge_server: uvicorn is one process: leave out forge_workers, or use gunicorn.")
    return problems


def wrong_sandbox(sandbox: dict[Any, Any]) -> list[str]:
    """What is wrong with forge_sandbox. A truth has the form of YAML; a number would lose its zeros."""
    problems = [
        f"forge_sandbox: {name} is none of the directives that it may have: the README of the role service names them."
        for name in sandbox
        if name not in CONFINEMENT
    ]
    for name, value in sandbox.items():
        texts = [value] if isinstance(value, str) else value if isinstance(value, list) else [None]
        if not isinstance(value, bool) and not all(
            isinstance(each, str) and DIRECTIVE_VALUE.match(each) for each in texts
        ):
            problems.append(
                f"forge_sandbox: {name} must be true, false, a text in quotes, or a list of texts, without % and backslashes."
            )
    return problems


def wrong_process(name: str, process: Any) -> list[str]:
    """What is wrong with one of forge_processes."""
    if not PROCESS.match(name):
        return ["its name must be lower-case letters, digits and dashes, a letter first, 31 at the most"]
    if not isinstance(process, dict) or not isinstance(process.get("command"), str) or not process["command"]:
        return ["it must have a command"]
    problems = [
        f"{key} is none of {', '.join(sorted(PROCESS_SETTINGS))}" for key in sorted(set(process) - PROCESS_SETTINGS)
    ]
    command, schedule = str(process["command"]), str(process.get("schedule", ""))
    why = "it has a line break" if "\n" in command else command_problem(command)
    if why:
        problems.append(f"{command!r} is no command: {why}")
    if schedule and not SCHEDULE.match(schedule):
        problems.append(f"{schedule!r} is no schedule: see systemd.time(7), OnCalendar")
    for key in ("stop_seconds", "count"):
        if not re.fullmatch(r"[1-9]\d{0,4}", str(process.get(key, 1))):
            problems.append(f"{key} must be a number of at least 1")
    if schedule and str(process.get("count", 1)) != "1":
        problems.append("a command with a schedule runs once at a time: leave out count")
    if not isinstance(process.get("once", False), bool):
        problems.append("once must be true or false")
    if process.get("once") and str(process.get("count", 1)) != "1":
        problems.append("once is for one process in the fleet: leave out count")
    return problems + wrong_on_failure(process.get("on_failure", ""), bool(schedule))


def wrong_on_failure(whom: Any, has_schedule: bool) -> list[str]:
    """What is wrong with whom to tell of a failure: never the text itself, which may have a token."""
    if not whom and isinstance(whom, str):
        return []
    if not isinstance(whom, str) or "\n" in whom:
        return ["on_failure must be an address, such as https://example.com/x, or a command, on one line"]
    if not has_schedule:
        return ["on_failure is for a command with a schedule: what is kept running is started again"]
    if re.match(r"[a-z]+://", whom, re.IGNORECASE):
        return [] if WEB_ADDRESS.match(whom) else ["on_failure is no address: it must look like https://example.com/x"]
    why = command_problem(whom)
    return [f"on_failure is no command: {why}"] if why else []


def wrong_names(values: dict[str, Any]) -> list[str]:
    """Names of variables and of settings files that meet others or ours."""
    values = with_defaults(values)
    prefix, files = str(values["forge_environment_prefix"]), values["forge_files"]
    origins: dict[str, list[str]] = {}
    for origin, names in (
        ("forge_environment", [f"{prefix}{name}" for name in values["forge_environment"]]),
        ("forge_environment_plain", [str(name) for name in values["forge_environment_plain"]]),
        ("forge_files", [str(file["variable"]) for file in files if file.get("variable")]),
    ):
        for name in names:
            origins.setdefault(name, []).append(origin)
    problems = []
    for name, found_in in origins.items():
        if RESERVED.match(name) or name in [prefix + each for each in SET_BY_UNITS]:
            problems.append(f"{found_in[0]}: {name} is set by the service itself: choose another name.")
        if len(found_in) > 1:
            problems.append(f"{name} is given twice, in {' and in '.join(found_in)}: leave out one.")
    return problems + wrong_files(files)


def wrong_files(files: list[dict[str, Any]]) -> list[str]:
    """Settings files whose name, content or variable cannot be written."""
    problems, seen = [], set()
    for file in files:
        name = file.get("name", "")
        if not isinstance(name, str) or not FILE.match(name):
            shown = repr(name) if isinstance(name, str) else "name"
            problems.append(
                f"forge_files: {shown} must be the name of a file: letters, digits, dots, dashes and underscores."
            )
            continue
        if name in seen:
            problems.append(f"forge_files: {name} is given twice: leave out one.")
        seen.add(name)
        if extra := sorted(set(file) - {"name", "content", "variable"}):
            problems.append(f"forge_files: {name}: {', '.join(extra)} is none of content, name, variable.")
        try:
            as_text(f"the content of {name}", file.get("content"))
        except UnwritableError as error:
            problems.append(f"forge_files: {error}")
        if file.get("variable") and not NAME.match(str(file["variable"])):
            problems.append(f"forge_files: {name}: variable must be letters, digits and underscores.")
    return problems


def command_problem(command: str) -> str:
    """Return why a command cannot be split into arguments; empty when it can."""
    try:
        return "" if shlex.split(command) else "it is empty"
    except ValueError as error:
        return str(error).lower()


def wrong_settings(settings: dict[str, Any], prefix: str, origin: str = "forge_environment") -> list[str]:
    """Settings that cannot be written, or a database URL that cannot be one. Names only, never values."""
    problems = []
    for name, value in settings.items():
        try:
            write_environment({name: value}, prefix)
        except UnwritableError as error:
            problems.append(f"{origin}: {error}")
        if str(name) == "DATABASE_URL":
            problem = database_url_problem(value)
            if problem:
                problems.append(f"{origin}: {prefix}DATABASE_URL {problem}.")
    if not problems:
        try:
            write_environment(settings, prefix)
        except UnwritableError as error:
            problems.append(f"{origin}: {error}")
    return problems


def database_url_problem(value: Any) -> str:
    """Return what is wrong with a database URL; empty when nothing is."""
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
