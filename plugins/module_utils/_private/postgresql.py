# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has of PostgreSQL: read as root, in one query of the server. Nothing is changed, and no password is read."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import Any, NamedTuple, TypedDict
from urllib.parse import urlsplit

from .command import run
from .debian import missing_packages
from .environment import read_environment
from .ownership import mark, marked_app
from .records import ProjectRecord
from .settings import read_settings

NEEDED_PACKAGES = ["python3-psycopg2", "acl"]  # Ansible's modules need them to become postgres, and to ask the server
EARLIER = "Written by thecodeforge.fastapi.postgresql"  # of versions whose files did not name the app
EARLIER_NAME = "forge"  # database and role that earlier versions made when the inventory did not name others
NAMES = re.compile(r"^# Database (\S+) of role (\S+)\.$", re.MULTILINE)
PROJECT = re.compile(r"^# Project (\{.*\})\.$", re.MULTILINE)
# A row of pg_hba_file_rules or pg_file_settings without an error is one that the server takes. That a setting waits for a
# restart is no error of the file.
QUERY = """
SELECT json_build_object(
  'loaded', extract(epoch FROM pg_conf_load_time()),
  'rules_file', current_setting('hba_file'),
  'settings', (SELECT json_object_agg(name, json_build_object(
      'runs', setting, 'source', source, 'default', boot_val,
      'entries', coalesce((SELECT json_agg(json_build_array(sourcefile, sourceline, f.setting) ORDER BY seqno)
                           FROM pg_file_settings f WHERE f.name = s.name), '[]')))
    FROM pg_settings s WHERE name IN ('listen_addresses', 'max_connections', 'port', 'ssl')),
  'rules', (SELECT coalesce(json_agg(r), '[]') FROM pg_hba_file_rules r),
  'errors', (SELECT coalesce(json_agg(sourcefile || ':' || sourceline || ': ' || error), '[]') FROM pg_file_settings
    WHERE error IS NOT NULL AND error NOT LIKE 'setting could not be applied%'),
  'databases', (SELECT json_object_agg(datname, json_build_object('owner', pg_get_userbyid(datdba),
      'comment', coalesce(shobj_description(oid, 'pg_database'), ''))) FROM pg_database WHERE NOT datistemplate),
  'connections', (SELECT coalesce(json_agg(c), '[]') FROM (SELECT datname AS database, usename AS role,
      coalesce(host(client_addr), '') AS address, application_name AS program FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) c),
  'roles', (SELECT json_object_agg(rolname, json_build_object('superuser', rolsuper,
      'comment', coalesce(shobj_description(oid, 'pg_authid'), ''))) FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%'))
"""


class Names(NamedTuple):
    database: str
    role: str


EARLIER_NAMES = Names(EARLIER_NAME, EARLIER_NAME)


class Connection(TypedDict):
    database: str
    role: str
    address: str  # of the client; empty over the server's socket
    program: str  # as it calls itself


class Setting(TypedDict):
    runs: str  # what the server runs with
    source: str  # where that is from, as in pg_settings: configuration file, command line, …
    default: str  # without any configuration
    entries: list[tuple[str, int, str]]  # file, line and value in the configuration files; the last one counts


class PostgreSQL(TypedDict, total=False):
    """What is known of the server on a port. Without a cluster there is nothing but ``clusters`` and ``missing_packages``."""

    clusters: list[str]  # all of the host, for people: 15/main (port 5432)
    missing_packages: list[str]
    cluster: str  # version and name: 15/main
    port: int
    directory: str  # of its configuration
    running: bool
    unreachable: str  # why a running server does not answer; empty when it does
    files: dict[str, str]  # files in conf.d that carry our mark, of any app: path to text
    block: str  # the app's own rules, as they stand in the file of rules; empty when there are none
    rules_are_utf8: bool  # else Ansible cannot show what differs in them
    stale: bool  # has the app's configuration changed since the server has read it?
    rules_file: str
    settings: dict[str, Setting]
    rules: list[dict[str, Any]]  # rows of pg_hba_file_rules
    errors: list[str]  # file, line and error of settings that the server would not start with
    databases: dict[str, dict[str, Any]]  # owner and comment
    roles: dict[str, dict[str, Any]]  # superuser and comment
    connections: list[Connection]  # open ones, but for that of this look


def look(port: int, app: str) -> PostgreSQL:
    """Return what the host has for a server on this port, or on its only cluster when none has the port."""
    lines = run(["pg_lsclusters", "--no-header"]).stdout.splitlines() if shutil.which("pg_lsclusters") else []
    clusters = [line.split() for line in lines if len(line.split()) > 3]
    found: PostgreSQL = {
        "clusters": [f"{each[0]}/{each[1]} (port {each[2]})" for each in clusters],
        "missing_packages": missing_packages(NEEDED_PACKAGES),
    }
    mine = [each for each in clusters if each[2] == str(port)] or (clusters if len(clusters) == 1 else [])
    if not mine:
        return found
    # A copy that is being restored has for a moment the port of the server it is of, and does not run.
    mine.sort(key=lambda each: not os.path.exists(os.path.join(each[5], "postmaster.pid")) if len(each) > 5 else True)
    version, name, its_port, status = mine[0][:4]
    directory = f"/etc/postgresql/{version}/{name}"
    found.update(
        {
            "cluster": f"{version}/{name}",
            "port": int(its_port),
            "directory": directory,
            "running": status.startswith("online"),
            "unreachable": "",
            "files": own_files(os.path.join(directory, "conf.d")),
            "block": "",
            "rules_are_utf8": True,
            "stale": False,
        }
    )
    if found["running"]:
        found.update(ask(int(its_port)))
    if not found["unreachable"] and found["running"]:
        found["block"], found["rules_are_utf8"] = block_of(app, found["rules_file"])
        files = [found["rules_file"], os.path.join(directory, "conf.d", f"{app}.conf")]
        changed = max((os.stat(path).st_mtime for path in files if os.path.exists(path)), default=0.0)
        found["stale"] = changed > found.pop("loaded")  # type: ignore[typeddict-item]
    return found


def ask(port: int) -> Any:
    """Return what the server says of itself, or ``unreachable`` with its reason."""
    done = run(
        ["runuser", "-u", "postgres", "--", "psql", "-XAtqw", "-h", "/var/run/postgresql", "-p", str(port), "-d", "postgres"],
        input=QUERY,
        cwd="/",
        env={**os.environ, "PGOPTIONS": "-c lc_messages=C", "PGCONNECT_TIMEOUT": "10", "PGCLIENTENCODING": "UTF8"},
    )  # fmt: skip
    if done.returncode == 0 and done.stdout.startswith("{"):
        return json.loads(done.stdout)
    return {"unreachable": (done.stderr.strip().splitlines() or ["no answer"])[-1]}


def own_files(directory: str) -> dict[str, str]:
    """Return the files in a directory of configuration that carry our mark, path to text."""
    found = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        path = os.path.join(directory, name)
        if name.endswith(".conf") and os.path.isfile(path):
            with open(path, encoding="utf-8", errors="replace") as handle:
                text = handle.read()
            if marked_app(text) or EARLIER in text:
                found[path] = text
    return found


def names_in(text: str) -> Names | None:
    """Return the names that an app's file in conf.d says; None when it says none, as those of earlier versions."""
    found = NAMES.search(text)
    return Names(found[1], found[2]) if found else None


def project_in(text: str) -> ProjectRecord:
    """Return the project that an app's file in conf.d is of; an empty one when it does not say."""
    found = PROJECT.search(text)
    try:
        return ProjectRecord.from_dict(json.loads(found[1]) if found else {})
    except (ValueError, RecursionError):
        return ProjectRecord()


def sharers(app: str, server: PostgreSQL, kind: str, name: str) -> list[str]:
    """Return the other apps of this server that use a database or role, as their files in conf.d say.

    Those of earlier versions do not say what they use: by default all of them used the same.

    :param kind: a field of :class:`Names`.
    """
    used = {other: names_in(text) or EARLIER_NAMES for other, text in other_files(app, server).items()}
    return sorted(other for other, names in used.items() if getattr(names, kind) == name)


def silent_apps(app: str, server: PostgreSQL) -> list[str]:
    """Return the other apps of this server that may use any database, as files of earlier versions do not say which."""
    return sorted(other for other, text in other_files(app, server).items() if not names_in(text))


def other_files(app: str, server: PostgreSQL) -> dict[str, str]:
    files = {os.path.basename(path).rpartition(".")[0]: text for path, text in server.get("files", {}).items()}
    return {other: text for other, text in files.items() if other != app}


def block_of(app: str, path: str) -> tuple[str, bool]:
    """Return the lines between the app's marks in the file of rules, empty without them, and whether the file is UTF-8."""
    with open(path, encoding="utf-8", errors="surrogateescape") as handle:
        text = handle.read()
    found = re.search(rf"^# BEGIN {mark(app)}\n(.*?)^# END {mark(app)}$", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else "", not re.search("[\udc80-\udcff]", text)


def uses_earlier_names(generation: str) -> bool:
    """Return whether the settings of a generation connect to PostgreSQL with the names that earlier versions gave."""
    try:
        values = read_environment(read_settings(generation)).values()
    except (OSError, ValueError):
        return False
    return any(
        re.match(rf"^postgres(ql)?(\+\w+)?://{EARLIER_NAME}:", value) and _path_of(value) == f"/{EARLIER_NAME}"
        for value in values
    )


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""
