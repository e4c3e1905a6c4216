# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other filters."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.thecodeforge.fastapi.plugins.filter.database_url import database_url
from ansible_collections.thecodeforge.fastapi.plugins.filter.environment_file import environment_file
from ansible_collections.thecodeforge.fastapi.plugins.filter.remove_report import remove_report
from ansible_collections.thecodeforge.fastapi.plugins.filter.rollback_target import rollback_target
from ansible_collections.thecodeforge.fastapi.plugins.filter.rollout_report import rollout_report
from ansible_collections.thecodeforge.fastapi.plugins.filter.status_report import status_report
from ansible_collections.thecodeforge.fastapi.plugins.filter.table import table
from hypothesis import given
from hypothesis import strategies as st

hostile = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def test_environment_file_names_the_variable_and_not_the_value() -> None:
    assert environment_file({"A": True}, prefix="FORGE_") == 'FORGE_A="true"\n'
    with pytest.raises(AnsibleFilterError) as caught:
        environment_file({"KEY": "s3cret\0"}, prefix="FORGE_")
    assert "forge_environment: FORGE_KEY contains the character U+0000" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@given(hostile, hostile, hostile, st.integers(1, 65535))
def test_every_part_of_a_database_url_can_be_read_back(name: str, user: str, password: str, port: int) -> None:
    parts = urlsplit(database_url(name, user, password, "db.example.org", port))
    assert parts.scheme == "postgresql"
    assert (parts.hostname, parts.port) == ("db.example.org", port)
    assert unquote(parts.username or "") == user
    assert unquote(parts.password or "") == password
    assert unquote(parts.path[1:]) == name
    assert (parts.query, parts.fragment) == ("", "")


def test_database_url_of_an_ipv6_address() -> None:
    assert database_url("n", "u", "p", "2001:db8::7") == "postgresql://u:p@[2001:db8::7]:5432/n"


def test_table_lines_its_columns_up() -> None:
    rows = [["host", "workers", "why"], ["web1", 5, ""], ["longer.example.org", 12, "x"]]
    assert table(rows) == [
        "host                workers  why",
        "web1                5",
        "longer.example.org  12       x",
    ]
    assert table([]) == []


FACTS = {"os": {"name": "Debian 12"}, "python": {"version": "3.11.2"}}
TARGET = {
    "live": "aaaaaaaaaaaa-00000000",
    "generation": "bbbbbbbbbbbb-00000000",
    "workers": {"count": 5, "reason": "2 CPUs: 2 x 2 + 1"},
    "listen": ["0.0.0.0:8000"],
}
DONE = {
    "candidate": {"changed": True, "seconds": 1.25},
    "switch": {"changed": True, "switched_in": 0.5, "seconds": 12.0},
}


def report(target: dict[str, Any] = TARGET, result: dict[str, Any] = DONE, address: str = "") -> dict[str, str]:
    """The row of one host, by the names of the columns."""
    return dict(zip(*rollout_report(["web1"], [FACTS], [target], [result], [address]), strict=True))


def test_report_of_a_rollout() -> None:
    assert report() == {
        "host": "web1",
        "system": "Debian 12",
        "Python": "3.11.2",
        "workers": "5",
        "why": "2 CPUs: 2 x 2 + 1",
        "from": "aaaaaaaaaaaa-00000000",
        "to": "bbbbbbbbbbbb-00000000",
        "address": "http://web1:8000",
        "seconds": "1.8",
        "ended meanwhile": "nothing",
    }
    assert report({**TARGET, "live": ""})["from"] == "nothing"


@pytest.mark.parametrize("result", [{}, {"candidate": {"skipped": True}, "switch": {"skipped": True}}])
def test_report_says_what_did_not_change(result: dict[str, Any]) -> None:
    row = report(result=result)
    assert (row["from"], row["seconds"]) == ("no change", "-")


def test_report_says_what_a_release_ended() -> None:
    ended = ["2 streams", "process mail, killed after 5 s"]
    row = report(result={**DONE, "switch": {**DONE["switch"], "ended": ended}})
    assert row["ended meanwhile"] == "2 streams, process mail, killed after 5 s"
    in_two_steps = {"switch": {**DONE["switch"], "ended": ended[1:]}, "finish": {"ended": ["1 websocket"]}}
    assert report(result={**DONE, **in_two_steps})["ended meanwhile"] == "process mail, killed after 5 s, 1 websocket"


def test_report_of_a_host_that_served_it_before_has_nothing_of_an_earlier_rollout_of_the_run() -> None:
    row = report({**TARGET, "converged": True})
    assert (row["from"], row["seconds"], row["ended meanwhile"]) == ("no change", "-", "-")


def test_report_says_when_a_release_does_not_drain() -> None:
    assert report({**TARGET, "drains": True}) == report()
    assert report({**TARGET, "drains": False})["why"].endswith("; no drain: a release may cut requests")


def test_report_has_a_row_for_each_host() -> None:
    both = {"facts": [FACTS] * 2, "targets": [TARGET] * 2, "results": [DONE, {}], "addresses": ["192.0.2.7", ""]}
    _head, first, second = rollout_report(["web1", "web2"], **both)
    assert (first[0], first[5], first[7]) == ("web1", "aaaaaaaaaaaa-00000000", "http://192.0.2.7:8000")
    assert (second[0], second[5], second[7]) == ("web2", "no change", "http://web2:8000")


@pytest.mark.parametrize(
    ("listen", "host", "address"),
    [
        ("8000", "", "http://web1:8000"),
        ("[::]:8000", "192.0.2.7", "http://192.0.2.7:8000"),
        ("0.0.0.0:80", "2001:db8::7", "http://[2001:db8::7]:80"),
        ("127.0.0.1:8000", "", "http://127.0.0.1:8000"),
        ("[2001:db8::7]:80", "", "http://[2001:db8::7]:80"),
        ("/run/forge.sock", "", "/run/forge.sock"),
    ],
)
def test_report_says_where_it_serves(listen: str, host: str, address: str) -> None:
    assert report({**TARGET, "listen": [listen]}, address=host)["address"] == address


LIVE, OLD, OLDER, BAD = (
    "cccccccccccc-00000000",
    "bbbbbbbbbbbb-00000000",
    "aaaaaaaaaaaa-00000000",
    "eeeeeeeeeeee-00000000",
)


def status(**changes: Any) -> dict[str, Any]:
    return {
        "live": LIVE,
        "previous": OLD,
        "served": [LIVE, OLD, OLDER],
        "generations": {
            OLDER: {"state": "left"},
            OLD: {"state": "good", "schema": "0002"},
            LIVE: {"state": "good", "schema": "0002"},
            BAD: {"state": "bad", "reason": "it exited"},
        },
        **changes,
    }


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({}, OLD),
        ({"schema": "0002"}, OLD),
        ({"schema": "0003", "compatible": True}, OLD),
        ({"to": OLDER}, OLDER),
        ({"to": "aaaaaaaaaaaa"}, OLDER),
        ({"to": "cccccccccccc"}, LIVE),
    ],
)
def test_rollback_goes_to_what_has_served(options: dict[str, Any], target: str) -> None:
    assert rollback_target(status(), **options) == {"generation": target, "problem": ""}


@pytest.mark.parametrize(
    ("changes", "options", "problem"),
    [
        ({"live": ""}, {}, "nothing was ever released here"),
        ({"previous": ""}, {}, "there is no earlier good generation to go back to"),
        ({}, {"to": "aaaa"}, f"there is no generation or release aaaa here; kept are {OLDER}, {OLD}, {LIVE}"),
        ({}, {"to": BAD}, f"{BAD} has never served: it is bad (it exited)"),
        ({}, {"schema": "0003"}, f"the database is at schema 0003, but {OLD} was migrated to 0002"),
        ({}, {"schema": "0003", "to": OLDER}, f"but {OLDER} was released without saying its schema"),
    ],
)
def test_rollback_that_cannot_work_is_refused(changes: dict[str, Any], options: dict[str, Any], problem: str) -> None:
    chosen = rollback_target(status(**changes), **options)
    assert chosen["generation"] == ""
    assert problem in chosen["problem"]
    assert chosen["problem"].endswith(". Nothing was changed.") or "forge_schema_compatible=true" in chosen["problem"]


@pytest.mark.parametrize(
    ("state", "of", "goes"),
    [
        ("works", "bbbbbbbbbbbb", True),
        ("works", "aaaaaaaaaaaa", False),  # of another release
        ("is not known", "bbbbbbbbbbbb", False),
        ("does not work", "bbbbbbbbbbbb", False),
    ],
)
def test_a_rehearsal_answers_whether_a_rollback_works(state: str, of: str, goes: bool) -> None:
    was = status()
    was["generations"][OLD]["release"] = "bbbbbbbbbbbb"
    was["generations"][LIVE]["way_back"] = {"release": of, "state": state, "reason": "It is gone."}
    chosen = rollback_target(was, schema="0003")
    assert (chosen["generation"] == OLD) is goes
    barred = state == "does not work"
    assert (
        "does not work with the database as it is: It is gone. To go back all the same" in chosen["problem"]
    ) is barred
    assert rollback_target(was, schema="0003", compatible=True)["generation"] == OLD
    assert (rollback_target(was)["generation"] == "") is barred, "also where nothing says which version the schema has"


def host_status(**changes: Any) -> dict[str, Any]:
    found = {
        "live": LIVE,
        "since": "2026-01-01T00:00:00Z",
        "workers": 3,
        "healthy": True,
        "problem": "",
        "previous": "",
    }
    return {**found, "generations": {LIVE: {"commit": "0123456789abcdef"}}, "lock": {}, **changes}


def test_status_of_a_host() -> None:
    holder = {"user": "ann", "host": "laptop", "reason": "deploy", "since": "noon"}
    sick = host_status(live="", since="", healthy=False, problem="it does not run", lock=holder, previous=OLD)
    head, *rows = status_report(["web1", "web2"], [host_status(), sick], [{}, {}])
    assert head == ["host", "live", "commit", "since", "workers", "healthy", "previous", "drift", "lock"]
    assert rows[0] == ["web1", LIVE, "0123456789", "2026-01-01T00:00:00Z", "3", "yes", "-", "?", "-"]
    assert rows[1][:4] == ["web2", "nothing", "-", "-"]
    assert rows[1][5:7] == ["no: it does not run", OLD]
    assert rows[1][8] == "ann@laptop (deploy) since noon"


def test_status_says_what_an_operator_has_said_of_a_host() -> None:
    drained, both = {"drained": True}, {"drained": True, "in_maintenance": True}
    rows = status_report(["web1", "web2"], [{**host_status(), **each} for each in (drained, both)], [{}, {}])[1:]
    assert [row[5] for row in rows] == ["yes, drained", "yes, drained, in maintenance"]


@pytest.mark.parametrize(
    ("generation", "release", "drift"),
    [
        (LIVE, {"drifted": [], "missing": [], "converged": True}, "-"),
        (OLD, {"drifted": [], "missing": [], "converged": False}, f"the inventory asks for {OLD}"),
        (LIVE, {"drifted": ["/etc/x"], "missing": [], "converged": False}, "edited: /etc/x"),
        (LIVE, {"drifted": [], "missing": ["layer"], "converged": True}, "incomplete"),
        (LIVE, {"drifted": [], "missing": [], "converged": False}, "incomplete"),
    ],
)
def test_status_says_how_a_host_differs_from_the_inventory(
    generation: str, release: dict[str, Any], drift: str
) -> None:
    compared = {**release, "generation": generation}
    assert status_report(["web1"], [host_status()], [compared])[1][7] == drift


def test_a_removal_ends_with_a_row_for_each_thing() -> None:
    found = {
        "removed": [{"what": "unit", "name": "shop.service"}],
        "left": [{"what": "path", "name": "/x", "why": "not ours"}],
    }
    rows = remove_report(["web1", "web2"], [{"app": found}, {"app": {"removed": [], "left": []}}], removed=False)
    assert rows[1:] == [
        ["web1", "unit", "shop.service", "would be removed"],
        ["web1", "path", "/x", "left: not ours"],
        ["web2", "nothing", "-", "the host has nothing of this app"],
    ]
