# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles and playbooks work out about edges and absences."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.thecodeforge.fastapi.plugins.filter.absence_problem import absence_problem
from ansible_collections.thecodeforge.fastapi.plugins.filter.answering import answering
from ansible_collections.thecodeforge.fastapi.plugins.filter.certbot_cause import certbot_cause
from ansible_collections.thecodeforge.fastapi.plugins.filter.edge_addresses import edge_addresses
from ansible_collections.thecodeforge.fastapi.plugins.filter.edge_holds import edge_holds
from ansible_collections.thecodeforge.fastapi.plugins.filter.edge_servers import edge_servers
from ansible_collections.thecodeforge.fastapi.plugins.filter.edges_to_tell import edges_to_tell
from ansible_collections.thecodeforge.fastapi.plugins.filter.http_answer import http_answer
from ansible_collections.thecodeforge.fastapi.plugins.filter.patch_problem import patch_problem
from ansible_collections.thecodeforge.fastapi.plugins.filter.socket_clients import socket_clients


def test_addresses_of_edges_are_theirs_or_those_that_are_given() -> None:
    facts = [{"host": {"addresses": ["192.0.2.2", "2001:db8::2"]}}, {"host": {"addresses": ["192.0.2.1"]}}]
    assert edge_addresses(["e1", "e2"], facts) == ["192.0.2.1", "192.0.2.2", "2001:db8::2"]
    assert edge_addresses(["e1", "e2"], [{}, {}], ["10.0.0.0/8"]) == ["10.0.0.0/8"]
    assert edge_addresses([], [], ["10.0.0.0/8"]) == []
    with pytest.raises(AnsibleFilterError, match="^e2 was not looked at, so the addresses"):
        edge_addresses(["e1", "e2"], [facts[0], {"unanswered": "no route"}])


def test_an_edge_that_is_away_keeps_the_addresses_by_which_a_host_knows_it() -> None:
    """So that a release goes on without it, and is the same release when it is back. Who else may is no edge."""
    facts = [{"host": {"addresses": ["192.0.2.1"]}}, {"host": {"addresses": ["192.0.2.2", "2001:db8::2"]}}]
    everybody = edge_addresses(["e1", "e2"], facts)
    host = {"addresses": ["192.0.2.7"], "clients": socket_clients(everybody, "shop", ["192.0.2.7"], ["10.0.0.0/8"])}
    away = [facts[0], {"unanswered": "no route"}]
    assert edge_addresses(["e1", "e2"], away, host=host) == everybody
    of_e1_alone = socket_clients(["192.0.2.1"], "shop", ["192.0.2.8"], ["192.0.2.2"])
    for text in ("", of_e1_alone, "[Socket]\nIPAddressAllow=192.0.2.2\n"):
        with pytest.raises(
            AnsibleFilterError, match="e2 was not looked at, so the addresses of the edges are not known"
        ):
            edge_addresses(["e1", "e2"], away, host={"addresses": ["192.0.2.8"], "clients": text})


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ({}, "web1:8000"),
        ({"ansible_host": "192.0.2.7"}, "192.0.2.7:8000"),
        ({"ansible_host": "2001:db8::7", "forge_listen": [80]}, "[2001:db8::7]:80"),
        (
            {"ansible_host": "jump", "forge_edge_server_address": "10.0.0.7", "forge_listen": ["/run/x", "[::]:81"]},
            "10.0.0.7:81",
        ),
        ({"forge_listen": ["127.0.0.1:8000", "10.0.0.8:8000"]}, "10.0.0.8:8000"),
        ({"inventory_hostname": "e1"}, "127.0.0.1:8000"),
        ({"inventory_hostname": "e1", "forge_listen": ["127.0.0.1:8001"]}, "127.0.0.1:8001"),
    ],
)
def test_an_edge_finds_the_app_where_it_listens(host: dict[str, Any], address: str) -> None:
    (found,) = edge_servers([{"inventory_hostname": "web1", **host}], "e1")
    assert found["address"] == address


def test_an_edge_that_cannot_reach_the_app_says_so() -> None:
    with pytest.raises(
        AnsibleFilterError, match="forge_listen: web1 listens on 127.0.0.1:8000, /run/x, where the edge e1 cannot"
    ):
        edge_servers([{"inventory_hostname": "web1", "forge_listen": ["127.0.0.1:8000", "/run/x"]}], "e1")
    with pytest.raises(AnsibleFilterError, match="none is left behind the edge e1"):
        edge_servers([], "e1")


def test_only_edges_the_host_itself_and_who_is_named_reach_the_app() -> None:
    text = socket_clients(["192.0.2.1"], "shop", ["192.0.2.7"], ["198.51.100.0/24", "192.0.2.1"])
    assert text.startswith("# Managed by thecodeforge.fastapi for app shop:")
    assert text.endswith(
        "[Socket]\nIPAddressDeny=any\n# Its edges\nIPAddressAllow=192.0.2.1\n"
        "# Its own host, and who is named in forge_clients\nIPAddressAllow=localhost\nIPAddressAllow=192.0.2.7\n"
        "IPAddressAllow=198.51.100.0/24\n"
    )
    assert socket_clients(["192.0.2.1"], "shop", ["192.0.2.7"], ["any"]) == ""
    assert socket_clients([], "shop", ["192.0.2.7"], [], has_edges=False) == ""


def test_a_page_is_a_whole_answer() -> None:
    head, body = http_answer("<p>Später.", 60).split("\r\n\r\n")
    assert "content-length: 11" in head
    assert "retry-after: 60" in head
    assert body == "<p>Später."


def test_certbot_says_what_the_authority_said() -> None:
    said = "Saving debug log to /x\n  Domain: a.example\n  Type: dns\n  Detail: NXDOMAIN looking up A for a.example.\n"
    assert (
        certbot_cause({"stdout": said, "stderr": "Some challenges have failed."})
        == "a.example: NXDOMAIN looking up A for a.example."
    )
    assert certbot_cause({"stdout": "", "stderr": "Could not connect.\nAsk for help at x\n"}) == "Could not connect."
    assert certbot_cause({}) == "it does not say why."
    log = (
        "acme.messages.Error: urn:ietf:params:acme:error:rateLimited :: There were too many requests :: Try again at noon.\n"
        "\nDuring handling of the above exception, another exception occurred:\n\nAttributeError: can't set attribute\n"
    )
    masked = "An unexpected error occurred:\nAttributeError: can't set attribute"
    assert certbot_cause({"stderr": masked}, log) == "Try again at noon."
    assert certbot_cause({"stderr": masked}) == "AttributeError: can't set attribute."


GOOD, DRAINED, SICK = (
    {"drained": False, "problem": ""},
    {"drained": True, "problem": ""},
    {"drained": False, "problem": "it halts"},
)


@pytest.mark.parametrize(
    ("hosts", "results", "options", "sentence"),
    [
        (["web1"], [GOOD, GOOD, GOOD], {}, ""),
        (["web1"], [DRAINED, GOOD, SICK], {}, ""),
        (["web1", "web2"], [GOOD, GOOD, SICK], {}, "No host would be left to serve, and forge_min_serving is 1; web3 does not serve (it "),
        (["web1"], [GOOD, DRAINED, {}], {}, "No host would be left to serve, and forge_min_serving is 1; web2 is drained; web3 does"),
        (["web1"], [GOOD, GOOD, DRAINED], {"min_serving": 2}, "web2 would be left to serve, and forge_min_serving is 2; web3 is drained"),
        (["web1", "web2", "web3"], [GOOD, GOOD, GOOD], {"min_serving": 0}, ""),
        (["db1"], [GOOD, GOOD, GOOD], {}, "forge_drain_hosts has db1, which forge_app has not"),
        ([], [GOOD, GOOD, GOOD], {}, "forge_drain_hosts is empty: name hosts"),
        (["web1"], [GOOD, GOOD, GOOD], {"server": "gunicorn-asgi"}, "forge_server: gunicorn-asgi does not answer the checks"),
    ],
)  # fmt: skip
def test_hosts_are_taken_away_when_enough_are_left(
    hosts: list[str], results: list[dict[str, Any]], options: dict[str, Any], sentence: str
) -> None:
    found = absence_problem(hosts, ["web1", "web2", "web3"], results, **options)
    assert found.startswith(sentence)
    assert bool(found) == bool(sentence)


def test_a_play_for_edges_has_hosts_without_edges_too() -> None:
    assert answering({"forge_edge": ["e1"]}, ["forge_edge"], ["forge_app"]) == "forge_edge"
    assert (
        answering({"forge_edge": [], "forge_answering": []}, ["forge_edge"], ["forge_app"])
        == "forge_app:&forge_answering"
    )
    assert answering({}) == "forge_app"


@pytest.mark.parametrize(
    ("problem", "results", "options"),
    [
        ("", [{"other_apps": []}, {}], {"databases": ["db"], "edges": ["e1"]}),
        (
            "web1 is also the database and an edge, which would be away with it: patch it by hand in a maintenance. Nothing was changed.",
            [{}, {}],
            {"databases": ["web1"], "edges": ["web1"]},
        ),
        (
            "web1 also serves wiki: drain it there first, by the playbook drain of that inventory. "
            "web2 also serves blog, wiki: drain it there first, by the playbook drain of that inventory. Nothing was changed.",
            [{"other_apps": ["wiki"]}, {"other_apps": ["blog", "wiki"]}],
            {},
        ),
    ],
)
def test_hosts_that_do_more_than_to_serve_the_app_are_not_patched(
    problem: str, results: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    assert patch_problem(["web1", "web2"], results, **options) == problem


def test_edges_that_can_be_told_are_those_that_answer_and_have_haproxy() -> None:
    facts = [{}, {"unanswered": "no route"}, {"host": {}}, {"host": {}}]
    results = [{}, {}, {"installed": False}, {"installed": True}]
    assert edges_to_tell(["e1", "e2", "e3", "e4"], facts, results) == ["e1", "e4"]


def test_what_one_edge_holds_all_do_and_what_has_caught_up_none() -> None:
    held = [{"held": ["web2", "web3"]}, {"held": ["web2"]}, {}, {"how": "nothing", "held": ["web2", "web3"]}]
    assert edge_holds(held, ["web1"]) == {"hold": ["web3"], "lift": []}
    assert edge_holds(held, ["web1", "web3"]) == {"hold": [], "lift": ["web3"]}
    assert edge_holds([{"held": []}, {}], ["web1"]) == edge_holds([], []) == {"hold": [], "lift": []}
