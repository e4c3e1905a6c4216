# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an app changes on a database server that it shares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ownership import mark
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.records import ProjectRecord
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.database_server import (
    Names,
    Plan,
    Wish,
    block,
    first_match,
    names_of,
    plan,
)

HERE = "/etc/postgresql/15/main"
WISH = Wish("db1", "shop", Names("shop", "shop"), 5432, 100, ["192.0.2.7"], ["192.0.2.9"], has_password=True)
EARLIER = (
    "# Written by thecodeforge.fastapi.postgresql: changes by hand are replaced.\n"
    "listen_addresses = '*'\nport = 5432\nmax_connections = 100\npassword_encryption = 'scram-sha-256'\n"
)


def setting(runs: str, *entries: tuple[str, int, str], default: str = "", source: str = "configuration file") -> Any:
    return {"runs": runs, "source": source, "default": default or runs, "entries": [list(entry) for entry in entries]}


def rule(line: int, database: str, user: str, address: str, netmask: str, method: str, kind: str = "host") -> Any:
    return {
        "line_number": line, "type": kind, "database": [database], "user_name": [user], "address": address,
        "netmask": netmask, "auth_method": method, "options": None, "error": None,
    }  # fmt: skip


def server(**changes: Any) -> Any:
    """A server as Debian makes it."""
    fresh = {
        "clusters": ["15/main (port 5432)"],
        "missing_packages": [],
        "cluster": "15/main",
        "port": 5432,
        "directory": HERE,
        "running": True,
        "unreachable": "",
        "files": {},
        "block": "",
        "rules_are_utf8": True,
        "stale": False,
        "rules_file": f"{HERE}/pg_hba.conf",
        "settings": {
            "listen_addresses": setting("localhost", source="default"),
            "max_connections": setting("100", (f"{HERE}/postgresql.conf", 65, "100")),
            "port": setting("5432", (f"{HERE}/postgresql.conf", 64, "5432")),
            "ssl": setting("on", (f"{HERE}/postgresql.conf", 105, "on")),
        },
        "rules": [rule(97, "all", "all", "127.0.0.1", "255.255.255.255", "scram-sha-256")],
        "errors": [],
        "databases": {"postgres": {"owner": "postgres", "comment": "default administrative connection database"}},
        "roles": {"postgres": {"superuser": True, "comment": ""}},
    }
    return {**fresh, **changes}


def with_database(name: str, comment: str = "", owner: str = "", **changes: Any) -> Any:
    fresh = server(**changes)
    fresh["databases"][name] = {"owner": owner or name, "comment": comment}
    fresh["roles"][owner or name] = {"superuser": False, "comment": comment}
    return fresh


def settle(found: Any, wishes: list[Wish]) -> tuple[int, Any]:
    """Let apps have their way on a server, each twice, as the role does. Returns the restarts, and the server then."""
    restarts = 0
    for wish in [*wishes, *wishes]:
        made = plan(wish, found)
        assert made["problems"] == []
        found["files"].update(made["files"])
        for name, each in found["settings"].items():
            theirs = [entry for entry in each["entries"] if entry[0] not in found["files"]]
            lines = [
                [path, 1, line.split("'")[1]]
                for path, text in sorted(found["files"].items())
                for line in text.splitlines()
                if line.startswith(f"{name} = ")
            ]
            later = [entry for entry in theirs if "auto.conf" in entry[0] or "/conf.d/zz" in entry[0]]
            each["entries"] = [entry for entry in theirs if entry not in later] + lines + later
        if plan(wish, found)["restart"]:
            restarts += 1
            for each in found["settings"].values():
                if each["source"] != "command line":
                    each["runs"] = each["entries"][-1][2] if each["entries"] else each["default"]
    for wish in wishes:
        assert plan(wish, found)["files"] == {}
        assert plan(wish, found)["restart"] == ""
    return restarts, found


# -- names ---------------------------------------------------------------------------------------------


def test_names_are_the_apps_unless_the_inventory_or_an_earlier_version_says_otherwise() -> None:
    assert names_of("my-shop", "", "", {}, False) == ("my_shop", "my_shop")
    assert names_of("my-shop", "orders", "", {}, False) == ("orders", "my_shop")
    recorded = server(files={f"{HERE}/conf.d/shop.conf": f"# {mark('shop')}\n# Database forge of role clerk.\n"})
    assert names_of("shop", "", "", recorded, False) == ("forge", "clerk")
    assert names_of("shop", "orders", "", recorded, False) == ("orders", "clerk")
    assert names_of("api", "", "", recorded, False) == ("api", "api")


def test_a_database_of_an_earlier_version_keeps_its_names() -> None:
    files = {f"{HERE}/conf.d/shop.conf": EARLIER}
    assert names_of("shop", "", "", with_database("forge", files=files), False) == ("forge", "forge")
    assert names_of("shop", "", "", with_database("forge", owner="me", files=files), False) == ("shop", "shop")
    assert names_of("api", "", "", with_database("forge", files=files), False) == ("api", "api")
    assert names_of("shop", "", "", with_database("shop", files=files), False) == ("shop", "shop")
    assert names_of("shop", "", "", {}, True) == ("forge", "forge"), "the server is outside of --limit"


# -- whose it is ---------------------------------------------------------------------------------------


def said(wish: Wish, found: Any) -> str:
    return " ".join(plan(wish, found)["problems"])


@pytest.mark.parametrize("comment", ["", "The books", mark("api")])
def test_what_somebody_else_made_is_refused_or_taken_over_on_purpose(comment: str) -> None:
    found = with_database("shop", comment)
    whose = "belongs to the app api" if "api" in comment else "was not made by this collection"
    assert said(WISH, found) == (
        f"The database shop on db1 {whose}: set forge_database_name to a name that is the app's own, or take it over with "
        f"forge_take_over: [database]. The role shop on db1 {whose}: set forge_database_user to a name that is the app's "
        "own, or take it over with forge_take_over: [database]."
    )
    taken = plan(replace(WISH, take_over=True), found)
    assert taken["problems"] == []
    assert taken["database_comment"] == (f"The books ({mark('shop')})" if comment == "The books" else mark("shop"))
    assert "does not know" in said(replace(WISH, take_over=True, has_password=False), found)


def test_a_superuser_is_never_taken() -> None:
    found = with_database("shop")
    found["roles"]["shop"]["superuser"] = True
    assert "The role shop on db1 is a superuser" in said(replace(WISH, take_over=True), found)


def test_what_is_the_apps_stays_so() -> None:
    found = with_database("shop", mark("shop"))
    made = plan(WISH, found)
    assert (made["problems"], made["database_comment"], made["role_comment"]) == ([], "", "")
    assert not made["keeps_password"]


def test_a_controller_without_the_password_does_not_make_a_new_one_for_a_role_that_is_there() -> None:
    assert said(replace(WISH, has_password=False), with_database("shop", mark("shop"))) == (
        "The role shop on db1 has a password that this controller does not know: copy forge_database_password_file from the "
        "controller that made it, or set forge_database_password."
    )
    assert said(replace(WISH, has_password=False), server()) == ""


@pytest.mark.parametrize("name", ["forge", "common"])
@pytest.mark.parametrize("order", [("shop", "api"), ("api", "shop")])
def test_apps_that_an_earlier_version_had_share_a_database_go_on_to_and_are_told_once(
    order: tuple[str, str], name: str
) -> None:
    """Whoever comes first gives it the mark; neither changes the password, which is the other's too."""
    files = {f"{HERE}/conf.d/{app}.conf": EARLIER for app in order}
    settings = server()["settings"]
    settings["listen_addresses"] = setting("*", (f"{HERE}/conf.d/shop.conf", 2, "*"))
    found = with_database(name, files=files, settings=settings)
    for app in [*order, *order]:
        wish = replace(WISH, app=app, names=Names(name, name), clients=[])
        is_first_time = EARLIER in found["files"][f"{HERE}/conf.d/{app}.conf"]
        made = plan(wish, found)
        assert made["problems"] == []
        knows = name == "forge" or app != order[0] or not is_first_time
        assert made["keeps_password"] == knows, "the first one cannot know what the second one uses, by another name"
        assert [
            note.startswith(f"The apps api and shop share the database {name} on db1") for note in made["notes"]
        ] == ([True] if is_first_time and knows else [])
        assert made["database_comment"] == made["role_comment"] == (mark(app) if found["files"] == files else "")
        found["databases"][name]["comment"] = made["database_comment"] or found["databases"][name]["comment"]
        found["roles"][name]["comment"] = made["role_comment"] or found["roles"][name]["comment"]
        found["files"] = {**found["files"], **made["files"]}
        assert names_of(app, "", "", found, False) == (name, name)
    assert found["databases"][name]["comment"] == mark(order[0])
    new = replace(WISH, app="new", names=Names(name, name))
    assert f"belongs to the app {order[0]}" in said(new, found)


def test_another_project_of_the_same_name_is_refused() -> None:
    """What is known of a project once stays, so that controllers which know other things of it do not rewrite it in turn."""
    ann = replace(WISH, project=ProjectRecord(name="shop", source="/home/ann/shop"))
    path = f"{HERE}/conf.d/shop.conf"
    text = plan(ann, with_database("shop", mark("shop")))["files"][path]
    found = with_database("shop", mark("shop"), files={path: text})
    bob = replace(WISH, project=ProjectRecord(id="shop", name="shop", source="/home/bob/shop"))
    more = plan(bob, found)["files"][path]
    assert '"id": "shop"' in more
    assert '"source": "/home/ann/shop"' in more
    settled = with_database("shop", mark("shop"), files={path: more})
    assert plan(ann, settled)["files"] == plan(bob, settled)["files"] == {}
    blog = replace(WISH, project=ProjectRecord(name="blog"))
    assert said(blog, found) == (
        "The app shop on db1 is another project's, shop: give this app another name, or say once with forge_take_over: "
        "[project] that it is the same."
    )
    assert '"name": "blog"' in plan(replace(blog, take_over_project=True), found)["files"][path]


def test_a_database_of_other_names_that_an_earlier_version_made_is_the_apps() -> None:
    files = {f"{HERE}/conf.d/shop.conf": EARLIER}
    assert plan(WISH, with_database("shop", files=files))["database_comment"] == mark("shop")
    assert "was not made by" in said(WISH, with_database("shop", owner="me", files=files))


# -- the server ----------------------------------------------------------------------------------------


def test_a_server_on_another_port_is_left_alone() -> None:
    assert said(replace(WISH, port=5433), server()) == (
        "db1 has PostgreSQL, but none on port 5433: set forge_postgresql_port to that of the cluster which the app should use "
        "(15/main (port 5432))."
    )
    fresh: Plan = plan(replace(WISH, port=5433, fresh=True), server())
    assert (fresh["problems"], fresh["restart"]) == ([], "listen_addresses from localhost to *, port from 5432 to 5433")
    two = {"clusters": ["15/main (port 5433)", "16/main (port 5434)"], "missing_packages": []}
    assert "15/main (port 5433), 16/main (port 5434)" in said(WISH, two)


def test_a_host_without_a_server_gets_one() -> None:
    made = plan(WISH, {"clusters": [], "missing_packages": ["acl"]})
    assert (made["problems"], made["packages"], made["running"]) == ([], ["postgresql", "acl"], False)
    assert plan(WISH, server())["packages"] == []
    assert plan(WISH, server())["unit"] == "postgresql@15-main.service"


def test_a_server_that_would_not_start_again_is_not_touched() -> None:
    broken = {**rule(3, "all", "all", "", "", ""), "error": "end-of-line before authentication method"}
    assert said(WISH, server(rules=[broken])) == (
        f"PostgreSQL on db1 cannot read its configuration: correct {HERE}/pg_hba.conf:3: end-of-line before authentication "
        "method."
    )
    assert "correct /x.conf:1: syntax error." in said(WISH, server(errors=["/x.conf:1: syntax error"]))
    assert "(fe_sendauth: no password supplied)" in said(WISH, server(unreachable="fe_sendauth: no password supplied"))


# -- rules ---------------------------------------------------------------------------------------------


def test_the_app_gets_its_own_rules_and_its_clients_come_with_a_password() -> None:
    made = plan(replace(WISH, clients=["192.0.2.7", "2001:db8::7", "192.0.2.7", "198.51.100.9/24"]), server())
    assert made["rules"]["block"].splitlines() == [
        'host "shop" "shop" 127.0.0.1/32 scram-sha-256',
        'host "shop" "shop" ::1/128 scram-sha-256',
        'host "shop" "shop" 192.0.2.7/32 scram-sha-256',
        'host "shop" "shop" 198.51.100.0/24 scram-sha-256',
        'host "shop" "shop" 2001:db8::7/128 scram-sha-256',
    ]
    assert made["rules"]["marker"] == "# {mark} Managed by thecodeforge.fastapi for app shop"
    assert made["rules"]["earlier"] == ""
    again = server(block=made["rules"]["block"] + "\n")
    assert plan(replace(WISH, clients=["192.0.2.7", "2001:db8::7", "198.51.100.0/24"]), again)["rules"] == {}


def test_rules_of_an_earlier_version_are_carried_over() -> None:
    block = plan(WISH, server())["rules"]["block"] + "\n"
    files = {f"{HERE}/conf.d/shop.conf": EARLIER}
    made = plan(WISH, with_database("shop", files=files, block=block))
    assert made["rules"]["earlier"] == r"^host\t(shop|shop)\t(shop|shop)\t\S+\tscram-sha-256$"


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (rule(5, "all", "all", "0.0.0.0", "0.0.0.0", "reject"), 5),
        (rule(5, "sameuser", "shop", "192.0.2.0", "255.255.255.0", "reject", "hostssl"), 5),
        (rule(5, "all", "all", "all", "", "reject"), 5),
        (rule(5, '"shop"', "all", "192.0.2.7", "255.255.255.255", "ident"), 5),
        (rule(5, "all", "all", "192.0.2.0", "255.255.255.0", "md5"), 0),
        (rule(5, "replication", "all", "0.0.0.0", "0.0.0.0", "reject"), 0),
        (rule(5, "all", "repl", "0.0.0.0", "0.0.0.0", "reject"), 0),
        (rule(5, "all", "all", "0.0.0.0", "0.0.0.0", "reject", "hostnossl"), 0),
        (rule(5, "all", "all", "198.51.100.0", "255.255.255.0", "reject"), 0),
        (rule(5, "all", "all", "::", "::", "reject"), 0),
        (rule(5, "all", "all", "old.example.org", "", "reject"), 0),
        (rule(5, "all", "all", "", "", "reject", "local"), 0),
    ],
)
def test_a_rule_that_keeps_the_app_out_is_named(found: Any, line: int) -> None:
    ours = rule(9, "shop", "shop", "192.0.2.7", "255.255.255.255", "scram-sha-256")
    text = said(WISH, server(rules=[found, ours]))
    assert (f"{HERE}/pg_hba.conf:{line} " in text) == bool(line)
    assert bool(text) == bool(line)
    assert said(WISH, server(rules=[ours, found])) == "", "what comes later keeps nobody out"
    match = first_match(server(rules=[found, ours]), WISH.names, "192.0.2.7/32")
    assert match is not None


# -- settings and restarts -----------------------------------------------------------------------------


def test_a_new_server_is_restarted_once_to_listen() -> None:
    made = plan(WISH, server())
    assert made["files"] == {
        f"{HERE}/conf.d/shop.conf": f"# {mark('shop')}: changes by hand are replaced.\n# Database shop of role shop.\n"
        "# Needs max_connections 100, listen_addresses *.\nlisten_addresses = '*'\n"
    }
    assert made["restart"] == "listen_addresses from localhost to *"
    assert made["notes"] == [
        "The playbook site restarts PostgreSQL 15/main on db1 once: listen_addresses from localhost to *."
    ]
    assert settle(server(), [WISH])[0] == 1
    assert settle(server(), [replace(WISH, clients=[])])[0] == 0


def test_others_that_a_restart_cuts_are_named() -> None:
    assert "which cuts connections to books, crm too." in plan(
        WISH, {**server(), "databases": {"crm": {}, "books": {}, "postgres": {}}}
    )["notes"][0]  # fmt: skip


@pytest.mark.parametrize("order", [("api", "shop"), ("shop", "api")])
def test_of_several_apps_the_highest_need_counts_in_any_order(order: tuple[str, str]) -> None:
    """In either order of their files, too: the last one wins for PostgreSQL."""
    for high in order:
        wishes = [
            replace(WISH, app=app, names=Names(app, app), max_connections=300 if app == high else 200) for app in order
        ]
        restarts, found = settle(server(), wishes)
        assert found["settings"]["max_connections"]["runs"] == "300"
        assert restarts == (1 if order[0] == high else 2)
        for wish in wishes:
            assert (
                f"# Needs max_connections {wish.max_connections}," in found["files"][f"{HERE}/conf.d/{wish.app}.conf"]
            )


def test_an_app_that_needs_less_lowers_nothing() -> None:
    _restarts, found = settle(server(), [replace(WISH, max_connections=300)])
    restarts, found = settle(
        found, [replace(WISH, app="api", names=Names("api", "api"), max_connections=50, clients=[])]
    )
    assert restarts == 0
    assert found["settings"]["max_connections"]["runs"] == "300"
    assert found["settings"]["listen_addresses"]["runs"] == "*"


@pytest.mark.parametrize("path", [f"{HERE}/postgresql.conf", f"{HERE}/conf.d/zz.conf", f"{HERE}/conf.d/aa.conf"])
@pytest.mark.parametrize("value", ["*", "localhost,192.0.2.9", "0.0.0.0"])
def test_what_an_admin_has_set_suffices_and_is_left_alone(path: str, value: str) -> None:
    found = server()
    found["settings"]["max_connections"] = setting("300", (path, 1, "300"))
    found["settings"]["listen_addresses"] = setting(value, (path, 2, value))
    restarts, found = settle(found, [replace(WISH, max_connections=200)])
    assert restarts == 0
    assert "\nmax_connections" not in found["files"][f"{HERE}/conf.d/shop.conf"]
    assert "\nlisten" not in found["files"][f"{HERE}/conf.d/shop.conf"]


@pytest.mark.parametrize("path", [f"{HERE}/conf.d/zz.conf", "/var/lib/postgresql/15/main/postgresql.auto.conf"])
def test_a_file_that_overrides_ours_is_named_and_nothing_is_restarted(path: str) -> None:
    found = server()
    found["settings"]["listen_addresses"] = setting("*", (f"{HERE}/postgresql.conf", 2, "*"))
    found["settings"]["max_connections"] = setting("50", (f"{HERE}/postgresql.conf", 65, "100"), (path, 7, "50"))
    note = (
        f"On db1 max_connections is 50 by {path}:7, which overrides ours, and the apps there need 100: change it there, or set "
        "forge_postgresql_max_connections to 50."
    )
    assert plan(WISH, found)["notes"] == [note]
    restarts, found = settle(found, [WISH])
    assert restarts == 0
    assert plan(WISH, found)["notes"] == [note]


def test_what_the_command_line_or_a_pending_change_of_an_admin_says_is_not_restarted() -> None:
    found = server()
    found["settings"]["listen_addresses"] = setting("*", source="command line")
    found["settings"]["max_connections"] = setting("50", (f"{HERE}/postgresql.conf", 65, "100"), source="command line")
    restarts, found = settle(found, [WISH])
    assert restarts == 0
    assert "is 50 by the server's command line" in plan(WISH, found)["notes"][0]
    found = server()
    found["settings"]["listen_addresses"] = setting("*", (f"{HERE}/postgresql.conf", 2, "*"))
    found["settings"]["max_connections"] = setting("50", (f"{HERE}/conf.d/zz.conf", 1, "400"))
    restarts, found = settle(found, [WISH])
    assert restarts == 0
    assert f"is 50 until a restart, though {HERE}/conf.d/zz.conf:1 says 400" in plan(WISH, found)["notes"][0]


def test_a_file_of_an_earlier_version_is_replaced_without_a_restart() -> None:
    found = with_database("shop", files={f"{HERE}/conf.d/shop.conf": EARLIER})
    mine = f"{HERE}/conf.d/shop.conf"
    found["settings"]["listen_addresses"] = setting("*", (mine, 2, "*"), default="localhost")
    found["settings"]["max_connections"]["entries"].append([mine, 4, "100"])
    restarts, found = settle(found, [WISH])
    assert restarts == 0
    assert "# Database shop of role shop." in found["files"][mine]


def test_a_directory_that_the_server_does_not_read_is_said() -> None:
    found = server()
    found["files"] = plan(WISH, found)["files"]  # written, and still without an entry
    assert plan(WISH, found)["restart"] == ""
    assert "see that postgresql.conf includes the directory conf.d" in plan(WISH, found)["notes"][0]


def test_hosts_that_were_not_seen_are_still_let_in() -> None:
    """One that does not answer, or is outside of --limit: what the app's own rules say stays, and the seen are added."""
    other = replace(WISH, clients=["192.0.2.8", "2001:db8::8"])
    before = server(block=block(other) + "\n")
    whole, part = (
        plan(WISH, before)["rules"]["block"],
        plan(replace(WISH, keeps_clients=True), before)["rules"]["block"],
    )
    assert "192.0.2.8" not in whole
    for address in ("127.0.0.1/32", "::1/128", "192.0.2.7/32", "192.0.2.8/32", "2001:db8::8/128"):
        assert part.count(f" {address} ") == 1
    assert plan(replace(WISH, keeps_clients=True), server(block=part + "\n"))["rules"] == {}


def test_rules_of_an_earlier_version_are_not_carried_over_by_a_part_of_the_fleet() -> None:
    earlier = server(files={f"{HERE}/conf.d/shop.conf": EARLIER})
    [problem] = plan(replace(WISH, keeps_clients=True, uses_earlier_names=True), earlier)["problems"]
    assert "run the playbook site once with every host of the app" in problem
