# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what an app changes on a database server that it may share: with other apps, and with an admin's own.

All of it follows from one look at the server (``module_utils/_private/postgresql.py``) and from what the inventory asks for.
Nothing is taken that is not marked as the app's; settings are only raised, by the file that each app has in ``conf.d``; and a
restart is asked for only where the configuration files would give the app what the running server does not.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, TypedDict

from ...module_utils._private.ownership import is_same_project, mark, marked_app
from ...module_utils._private.postgresql import (
    EARLIER,
    EARLIER_NAMES,
    Names,
    PostgreSQL,
    Setting,
    names_in,
    project_in,
    sharers,
)
from ...module_utils._private.records import ProjectRecord

WITH_PASSWORD = ("scram-sha-256", "md5", "password", "trust")  # methods that let the app in
OF_THE_SERVER = ("127.0.0.1/32", "::1/128")
NEEDS = re.compile(r"^# Needs max_connections (\d+), listen_addresses (\S+)\.$", re.MULTILINE)
LINE = re.compile(r"^(max_connections|listen_addresses|port) = '?([^'\n]*)'?$", re.MULTILINE)


@dataclass(frozen=True)
class Wish:
    """What the inventory asks for."""

    host: str  # its name in the inventory
    app: str
    names: Names
    port: int
    max_connections: int
    clients: list[str]  # addresses and networks of the app's hosts
    addresses: list[str]  # of the server
    has_password: bool  # does this controller know the password?
    take_over: bool = False  # take a database or role that this collection did not make
    fresh: bool = False  # has this run installed the server?
    project: ProjectRecord = field(default_factory=ProjectRecord)  # which project the app is of
    take_over_project: bool = False
    uses_earlier_names: bool = False  # does what serves connect with the names that earlier versions gave?
    keeps_clients: bool = False  # not every host of the app was seen: whoever is let in stays so

    @property
    def listen_addresses(self) -> str:
        return "*" if self.clients else "localhost"


# ---- Names -----------------------------------------------------------------------------------------------------------


def names_of(app: str, database: str, role: str, server: PostgreSQL, uses_earlier_names: bool) -> Names:
    """Return the names of the app's database and its role.

    :param database: what the inventory says; empty when it says nothing. Likewise ``role``.
    """
    default = Names(app.replace("-", "_"), app.replace("-", "_"))
    known = recorded_names(app, server) or default
    made_earlier = has_earlier_file(app, server) and has(server, EARLIER_NAMES) and not has(server, default)
    if not recorded_names(app, server) and (uses_earlier_names or made_earlier):
        known = EARLIER_NAMES
    return Names(database or known.database, role or known.role)


def has(server: PostgreSQL, names: Names) -> bool:
    return server.get("databases", {}).get(names.database, {}).get("owner") == names.role


def own_file(app: str, server: PostgreSQL) -> str:
    return server.get("files", {}).get(path_of(app, server), "")


def path_of(app: str, server: PostgreSQL) -> str:
    return f"{server.get('directory', '')}/conf.d/{app}.conf"


def has_earlier_file(app: str, server: PostgreSQL) -> bool:
    return EARLIER in own_file(app, server)


def recorded_names(app: str, server: PostgreSQL) -> Names | None:
    """Return the names that the app's file on the server says; none of an earlier version does."""
    return names_in(own_file(app, server))


# ---- Whose it is -----------------------------------------------------------------------------------------------------


def problems(wish: Wish, server: PostgreSQL) -> list[str]:
    """Return why the server cannot be used; a sentence each, in which it is not changed."""
    if not server.get("cluster") or (server["port"] != wish.port and not wish.fresh):
        there = ", ".join(server.get("clusters", []))
        if not there:
            return []
        return [
            f"{wish.host} has PostgreSQL, but none on port {wish.port}: set forge_postgresql_port to that of the cluster which "
            f"the app should use ({there})."
        ]
    if server["unreachable"]:
        return [
            f"PostgreSQL {server['cluster']} on {wish.host} does not let the system's user postgres in over its socket "
            f"({server['unreachable']}): pg_hba.conf needs the line 'local all postgres peer'."
        ]
    if not server["running"]:
        return []
    if wish.keeps_clients and has_earlier_file(wish.app, server):
        return [
            f"What {wish.host} has of the app {wish.app} was made by an earlier version, and does not say which hosts it is for: run "
            f"the playbook site once with every host of the app."
        ]
    return foreign_project(wish, server) or foreign_objects(wish, server) + broken_files(wish, server) + shut_out(
        wish, server
    )


def foreign_project(wish: Wish, server: PostgreSQL) -> list[str]:
    """Return a sentence when another project has an app of the same name on the server."""
    theirs = project_in(own_file(wish.app, server))
    if wish.take_over_project or is_same_project(theirs, wish.project):
        return []
    return [
        f"The app {wish.app} on {wish.host} is another project's, {theirs.owner()}: give this app another name, or say once with "
        "forge_take_over: [project] that it is the same."
    ]


def project_for(wish: Wish, server: PostgreSQL) -> str:
    """Return the line that says of which project the app is; what is known once stays, whoever comes from elsewhere."""
    recorded = project_in(own_file(wish.app, server))
    known = {each.name: value for each, value in recorded.items() if value}
    record = replace(wish.project, **known) if is_same_project(recorded, wish.project) else wish.project
    return f"# Project {json.dumps(record.to_dict(), sort_keys=True)}.\n" if record != ProjectRecord() else ""


def foreign_objects(wish: Wish, server: PostgreSQL) -> list[str]:
    """Return a sentence for a database, and for a role, that is not the app's; and for a password that is not known here."""
    role = server["roles"].get(wish.names.role)
    found = []
    for kind, name, variable, existing in (
        ("database", wish.names.database, "forge_database_name", server["databases"].get(wish.names.database)),
        ("role", wish.names.role, "forge_database_user", role),
    ):
        if existing and existing.get("superuser"):
            return [f"The role {name} on {wish.host} is a superuser: set {variable} to a name that is the app's own."]
        if existing and not is_ours(wish, server, existing["comment"]) and not wish.take_over:
            other = marked_app(existing["comment"])
            whose = f"belongs to the app {other}" if other else "was not made by this collection"
            found.append(
                f"The {kind} {name} on {wish.host} {whose}: set {variable} to a name that is the app's own, or take it over "
                f"with forge_take_over: [database]."
            )
    if not found and role and not wish.has_password:
        found.append(
            f"The role {wish.names.role} on {wish.host} has a password that this controller does not know: copy "
            f"forge_database_password_file from the controller that made it, or set forge_database_password."
        )
    return found


def is_ours(wish: Wish, server: PostgreSQL, comment: str) -> bool:
    """Return whether a database or role of the app's name is the app's: its comment or the app's own file says so.

    Earlier versions did not mark what they made. What the app of such a version uses stays its own, also when another one
    has been there first and has marked it; that the app knows the role's password is tried before anything is changed.
    """
    earlier = (has_earlier_file(wish.app, server) or wish.uses_earlier_names) and has(server, wish.names)
    return marked_app(comment) == wish.app or recorded_names(wish.app, server) == wish.names or earlier


def broken_files(wish: Wish, server: PostgreSQL) -> list[str]:
    """Return a sentence when the server would not take its files: it would keep its old rules, and fail to start again."""
    rules = [
        f"{rule.get('file_name') or server['rules_file']}:{rule['line_number']}: {rule['error']}"
        for rule in server["rules"]
        if rule["error"]
    ]
    errors = [*server["errors"], *rules]
    return [f"PostgreSQL on {wish.host} cannot read its configuration: correct {errors[0]}."] if errors else []


def shut_out(wish: Wish, server: PostgreSQL) -> list[str]:
    """Return a sentence when a rule before ours keeps hosts of the app out."""
    lines: dict[str, list[str]] = {}
    for network in networks(wish.clients):
        rule = first_match(server, wish.names, network)
        if rule and rule["auth_method"] not in WITH_PASSWORD:
            where = f"{rule.get('file_name') or server['rules_file']}:{rule['line_number']}"
            lines.setdefault(f"{where} ({rule['type']} … {rule['auth_method']})", []).append(network)
    return [
        f"On {wish.host} {line} keeps {', '.join(shut)} from the database {wish.names.database}: put "
        f"'{rule_for(wish.names, shut[0])}' before it, or change it."
        for line, shut in lines.items()
    ]


def networks(clients: list[str]) -> list[str]:
    """Return addresses and networks as networks, each once, as pg_hba.conf wants them.

    :raises ValueError: for what is neither.
    """
    return sorted({str(ipaddress.ip_network(each, strict=False)) for each in clients})


def let_in(server: PostgreSQL) -> list[str]:
    """Return the networks that the app's own rules let in, without those of the server's host itself."""
    networks = re.findall(r"^host (?:\S+ ){2}(\S+) ", server.get("block", ""), re.MULTILINE)
    return [each for each in networks if each not in OF_THE_SERVER]


def first_match(server: PostgreSQL, names: Names, network: str) -> dict[str, Any] | None:
    """Return the first rule that surely is for the app's role when it comes from a network; none when there is none.

    Host names, groups of roles and regular expressions are passed over: what they match is not known here.
    """
    encrypted = server["settings"]["ssl"]["runs"] == "on"  # as clients prefer it
    kinds = {"host", "hostssl" if encrypted else "hostnossl"}
    databases = {"all", names.database, *(["sameuser"] if names.database == names.role else [])}
    for rule in server["rules"]:
        if rule["error"] or rule["type"] not in kinds or not covers(rule["address"], rule["netmask"], network):
            continue
        if databases & unquoted(rule["database"]) and {"all", names.role} & unquoted(rule["user_name"]):
            return rule
    return None


def unquoted(names: list[str]) -> set[str]:
    return {name.strip('"') for name in names}


def covers(address: str | None, netmask: str | None, network: str) -> bool:
    """Return whether a rule's address is for all of a network."""
    if address == "all":
        return True
    try:
        theirs, ours = ipaddress.ip_network(f"{address}/{bits(netmask)}", strict=False), ipaddress.ip_network(network)
    except ValueError:
        return False
    return theirs.version == ours.version and ours.subnet_of(theirs)  # type: ignore[arg-type]


def bits(netmask: str | None) -> int:
    return bin(int(ipaddress.ip_address(netmask or ""))).count("1")


# ---- What is written -------------------------------------------------------------------------------------------------


def rule_for(names: Names, network: str) -> str:
    return f'host "{names.database}" "{names.role}" {network} scram-sha-256'


def block(wish: Wish) -> str:
    """Return the app's own rules: its hosts, and the server's host, may connect to its database as its role."""
    return "\n".join(rule_for(wish.names, each) for each in [*OF_THE_SERVER, *networks(wish.clients)])


def suffices(name: str, value: str, wanted: str, addresses: list[str]) -> bool:
    """Return whether a value of a setting gives what is wanted.

    :param addresses: of the server; an admin who lets it listen on one of them has chosen so.
    """
    if name == "max_connections":
        return int(value) >= int(wanted)
    if name == "port":
        return value == wanted
    listens = {each.strip() for each in value.split(",")}
    open_to_all = {"*", "0.0.0.0", "::"} & listens  # noqa: S104 (compared, not bound)
    return bool(open_to_all or listens & (set(addresses) if wanted == "*" else {"localhost", "127.0.0.1"}))


def without_ours(setting: Setting, ours: set[str]) -> str:
    """Return the value that a setting has when our files say nothing."""
    if setting["source"] == "command line":
        return setting["runs"]
    theirs = [value for path, _line, value in setting["entries"] if path not in ours]
    return theirs[-1] if theirs else setting["default"]


def needs(text: str) -> tuple[int, str]:
    """Return the connections and the addresses that an app's file says it needs."""
    found = NEEDS.search(text)
    if found:
        return int(found[1]), found[2]
    lines = dict(LINE.findall(text))  # of an earlier version
    return int(lines.get("max_connections", 0)), lines.get("listen_addresses", "localhost")


def wanted_settings(wish: Wish, server: PostgreSQL) -> dict[str, str]:
    """Return what the apps on the server need together: the highest."""
    others = [needs(text) for path, text in server["files"].items() if path != path_of(wish.app, server)]
    return {
        "max_connections": str(max([wish.max_connections, *(connections for connections, _listen in others)])),
        "listen_addresses": "*"
        if "*" in [wish.listen_addresses, *(listen for _connections, listen in others)]
        else "localhost",
        "port": str(wish.port),
    }


def files(wish: Wish, server: PostgreSQL) -> dict[str, str]:
    """Return the files of conf.d that carry our mark, as they should be: path to text.

    Each app's file says what the app needs, and sets what all of them need together, as the last file wins; where somebody
    else's file gives as much, ours sets nothing.
    """
    mine = path_of(wish.app, server)
    ours = {*server["files"], mine}
    wanted = wanted_settings(wish, server)
    text = (
        f"# {mark(wish.app)}: changes by hand are replaced.\n"
        f"# Database {wish.names.database} of role {wish.names.role}.\n"
        f"# Needs max_connections {wish.max_connections}, listen_addresses {wish.listen_addresses}.\n"
    ) + project_for(wish, server)
    for name, value in wanted.items():
        if not suffices(name, without_ours(server["settings"][name], ours), value, wish.addresses):
            text += f"{name} = '{value}'\n"

    def raised(line: re.Match[str]) -> str:
        name, value = line[1], line[2]
        return line[0] if suffices(name, value, wanted[name], []) else f"{name} = '{wanted[name]}'"

    others = {path: LINE.sub(raised, text) for path, text in server["files"].items() if path != mine}
    return {**others, mine: text}


# ---- Restart ---------------------------------------------------------------------------------------------------------


def entries(name: str, server: PostgreSQL, planned: dict[str, str]) -> list[tuple[str, int, str]]:
    """Return file, line and value of a setting, in the order in which the server reads them, once our files are written."""
    found = server["settings"][name]["entries"]
    if planned == server["files"]:
        return found
    ours = [(path, 0, value) for path, text in planned.items() for key, value in LINE.findall(text) if key == name]

    def place(entry: tuple[str, int, str]) -> tuple[int, str]:
        path = PurePosixPath(entry[0])
        if path.name == "postgresql.auto.conf":
            return 2, ""
        return (1, path.name) if path.parent.name == "conf.d" else (0, "")

    return sorted([*(each for each in found if each[0] not in planned), *ours], key=place)


def lacking(wish: Wish, server: PostgreSQL) -> tuple[list[str], list[str]]:
    """Return why a restart is needed, and why what the app needs is not had by one: somebody else's file says otherwise."""
    planned = files(wish, server)
    restart, overridden = [], []
    for name, value in wanted_settings(wish, server).items():
        setting = server["settings"][name]
        runs = setting["runs"]
        if suffices(name, runs, value, wish.addresses):
            continue
        found = entries(name, server, planned)
        path, line, says = found[-1] if found else ("", 0, setting["default"])
        helps = suffices(name, says, value, wish.addresses)
        if setting["source"] == "command line":
            where, advice = f"{name} is {runs} by the server's command line", "change it there"
        elif path in planned and helps:
            restart.append(f"{name} from {runs} to {says}")
            continue
        elif helps:
            where, advice = f"{name} is {runs} until a restart, though {path}:{line} says {says}", "restart it"
        elif path:
            where, advice = f"{name} is {says} by {path}:{line}, which overrides ours", "change it there"
        else:
            where, advice = f"{name} is {runs}", "see that postgresql.conf includes the directory conf.d"
        if name == "max_connections":
            advice += f", or set forge_postgresql_max_connections to {runs}"
        overridden.append(f"On {wish.host} {where}, and the apps there need {value}: {advice}.")
    return restart, overridden


def notes(wish: Wish, server: PostgreSQL) -> list[str]:
    """Return what a person should know before the server is changed; a sentence each."""
    restart, overridden = lacking(wish, server)
    found = list(overridden)
    others = sorted(set(server["databases"]) - {"postgres", wish.names.database})
    if restart and server["port"] == wish.port:
        shared = f", which cuts connections to {', '.join(others)} too" if others else ""
        found.append(
            f"The playbook site restarts PostgreSQL {server['cluster']} on {wish.host} once: {', '.join(restart)}{shared}."
        )
    others = shared_with(wish, server, "database")
    if others and not recorded_names(wish.app, server):
        found.append(
            f"The apps {' and '.join(sorted([*others, wish.app]))} share the database {wish.names.database} on {wish.host}, as "
            f"an earlier version had it, and go on to, with the password that it has: to part them, copy the data and set "
            f"forge_database_name and forge_database_user."
        )
    return found


def shared_with(wish: Wish, server: PostgreSQL, kind: str) -> list[str]:
    """Return the other apps that use the app's database or role: whose mark it has, or whose file names it.

    :param kind: a field of :class:`Names`.
    """
    name = getattr(wish.names, kind)
    existing = server[f"{kind}s"].get(name)  # type: ignore[literal-required]
    if not existing or wish.take_over:
        return []
    owner = marked_app(existing["comment"])
    return sorted({*sharers(wish.app, server, kind, name), *({owner} - {"", wish.app})})


def comment_for(wish: Wish, existing: dict[str, Any] | None) -> str:
    """Return the comment that marks a database or role as the app's; empty when the one that it has should stay."""
    theirs = existing["comment"] if existing else ""
    owner = marked_app(theirs)
    if owner == wish.app or (owner and not wish.take_over):
        return ""
    return mark(wish.app) if owner or not theirs else f"{theirs} ({mark(wish.app)})"


# ---- Together --------------------------------------------------------------------------------------------------------


class Plan(TypedDict, total=False):
    """What the role does. Where the server does not run yet, only the problems and the names are known."""

    names: Names
    problems: list[str]  # why nothing is done
    notes: list[str]
    running: bool
    packages: list[str]  # to be installed
    unit: str
    rules: dict[
        str, Any
    ]  # file, marker, block, and of an earlier version's lines the pattern: empty when all is as it should be
    files: dict[str, str]  # to be written, path to text
    restart: str  # why; empty when the server runs with what is needed
    reload: bool
    has_role: bool  # is it there already?
    keeps_password: bool  # it is another app's role too
    database_comment: str  # to be set; empty when it has its own
    role_comment: str


def plan(wish: Wish, server: PostgreSQL) -> Plan:
    if wish.keeps_clients:
        wish = replace(wish, clients=[*wish.clients, *let_in(server)])
    found = problems(wish, server)
    made: Plan = {
        "names": wish.names,
        "problems": found,
        "notes": [],
        "running": server.get("running", False),
        "packages": [*([] if server.get("clusters") else ["postgresql"]), *server.get("missing_packages", [])],
        "unit": f"postgresql@{server.get('cluster', '').replace('/', '-')}.service",
    }
    if found or not made["running"]:
        return made
    role, database = server["roles"].get(wish.names.role), server["databases"].get(wish.names.database)
    made.update(
        {
            "notes": notes(wish, server),
            "rules": rules(wish, server),
            "files": {path: text for path, text in files(wish, server).items() if text != server["files"].get(path)},
            "restart": ", ".join(lacking(wish, server)[0]),
            "reload": server["stale"],
            "has_role": bool(role),
            "keeps_password": bool(shared_with(wish, server, "role")),
            "database_comment": comment_for(wish, database),
            "role_comment": comment_for(wish, role),
        }
    )
    return made


def rules(wish: Wish, server: PostgreSQL) -> dict[str, Any]:
    earlier = has_earlier_file(wish.app, server)
    if server["block"] == block(wish) + "\n" and not earlier:
        return {}
    written_before = "|".join(re.escape(name) for name in wish.names)
    return {
        "file": server["rules_file"],
        "marker": f"# {{mark}} {mark(wish.app)}",
        "block": block(wish),
        "can_be_shown": server["rules_are_utf8"],
        # Earlier versions wrote the whole file, without marks: their lines, as the module postgresql_pg_hba writes them.
        "earlier": rf"^host\t({written_before})\t({written_before})\t\S+\tscram-sha-256$" if earlier else "",
    }
