# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles compute from the inventory and from results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLES = Path(__file__).parents[3] / "roles"
LOCAL_RULES = 3  # of pg_hba.conf: the server's own host


def load(role: str, path: str) -> Any:
    file = ROLES / role / path
    return DataLoader().load_from_file(str(file), trusted_as_template=True) if file.is_file() else {}


def compute(role: str, value: str, **variables: Any) -> Any:
    """A variable of ``vars/main.yml``, or another expression of a role, with the role's defaults and these variables."""
    known = {**load("common", "defaults/main.yml"), **load(role, "defaults/main.yml"), **load(role, "vars/main.yml")}
    templar = Templar(DataLoader(), variables={**known, **variables})
    return templar.template(known.get(value, value))


def test_the_lock_lies_on_the_first_host_of_the_app_unless_the_inventory_says_otherwise() -> None:
    fleet = {"groups": {"forge_app": ["web1", "web2"]}, "ansible_play_hosts_all": ["web2"]}
    assert compute("release", "__forge_lock_host", **fleet) == "web1"
    assert compute("release", "__forge_lock_host", **fleet, forge_lock_host="db1") == "db1"
    assert compute("release", "__forge_lock_host", groups={}, ansible_play_hosts_all=["web2"]) == "web2"


def rules(**variables: Any) -> list[dict[str, str]]:
    return compute("postgresql", "__forge_postgresql_rules", inventory_hostname="db1", **variables)


def test_the_database_lets_only_the_clients_in_and_only_with_a_password() -> None:
    found = rules(forge_postgresql_clients=["192.0.2.7", "2001:db8::7", "192.0.2.7", "198.51.100.0/24"])
    assert found[LOCAL_RULES:] == [
        {"source": source, "method": "scram-sha-256"}
        for source in ("192.0.2.7/32", "198.51.100.0/24", "2001:db8::7/128")
    ]
    assert {rule["method"] for rule in found if rule.get("contype") != "local"} == {"scram-sha-256"}
    assert {rule["source"] for rule in found[1:LOCAL_RULES]} == {"127.0.0.1/32", "::1/128"}


@pytest.mark.parametrize("word", ["everyone", "all", "samenet", ".example.org"])
def test_a_word_that_postgresql_would_take_for_more_than_an_address_becomes_a_network_that_is_none(word: str) -> None:
    """postgresql_pg_hba refuses it then: "neither a valid IP address, network, hostname or keyword"."""
    assert rules(forge_postgresql_clients=[word])[LOCAL_RULES:] == [{"source": f"{word}/32", "method": "scram-sha-256"}]


def test_the_clients_are_the_hosts_of_the_app_unless_the_inventory_says_otherwise() -> None:
    facts = {"web1": ["192.0.2.7"], "web2": ["192.0.2.8", "2001:db8::8"], "db1": ["192.0.2.9"]}
    fleet = {
        "groups": {"forge_app": ["web1", "web2", "db1"]},
        "hostvars": {name: {"forge_host_facts": {"host": {"addresses": found}}} for name, found in facts.items()},
    }
    assert [rule["source"] for rule in rules(**fleet)[LOCAL_RULES:]] == [
        "192.0.2.7/32",
        "192.0.2.8/32",
        "2001:db8::8/128",
    ]
    given = rules(**fleet, forge_postgresql_clients=["203.0.113.1"])
    assert [rule["source"] for rule in given[LOCAL_RULES:]] == ["203.0.113.1/32"]
    no_fleet: dict[str, Any] = {"groups": {}, "hostvars": {}}
    assert rules(**no_fleet)[LOCAL_RULES:] == []
    assert compute("postgresql", "__forge_postgresql_listen", **no_fleet, inventory_hostname="db1") == "localhost"


@pytest.mark.parametrize(
    ("host", "given", "url"),
    [
        ("web1", "", "postgresql://forge:pw@192.0.2.9:5432/forge"),
        ("db1", "", "postgresql://forge:pw@127.0.0.1:5432/forge"),
        ("web1", "postgresql://me@elsewhere/shop", "postgresql://me@elsewhere/shop"),
    ],
)
def test_the_url_of_the_database_is_that_of_the_inventory_or_of_our_server(host: str, given: str, url: str) -> None:
    facts = load("postgresql", "tasks/url.yml")[0]["ansible.builtin.set_fact"]
    fleet = {"groups": {"forge_database": ["db1"]}, "hostvars": {"db1": {"ansible_host": "192.0.2.9"}}}
    variables = {"inventory_hostname": host, "forge_database_password": "pw", "forge_database_url": given}
    assert compute("postgresql", facts["forge_database_url"], **fleet, **variables) == url


def test_a_rollout_takes_what_was_staged_unless_it_is_told_a_target() -> None:
    results = {
        "forge_service_result": {"workers": {"count": 3}, "listen": ["8000"]},
        "forge_release_result": {"generation": "new", "live": "old", "converged": False},
    }
    staged = compute("rollout", "__forge_target", **results)
    assert staged == {**results["forge_service_result"], **results["forge_release_result"]}
    told = compute("rollout", "__forge_target", **results, forge_rollout_target={"generation": "older"})
    assert (told["generation"], told["live"]) == ("older", "old")
    assert compute("rollout", "__forge_target", forge_rollout_target={"generation": "older"}) == {"generation": "older"}


def test_hosts_that_do_not_serve_their_target_are_pending() -> None:
    hostvars = {
        "web1": {"forge_release_result": {"converged": True}},
        "web2": {"forge_release_result": {"converged": False}},
        "web3": {"forge_release_result": {"converged": True}, "forge_rollout_target": {"converged": False}},
        "web4": {"forge_rollout_target": {"converged": True}},
    }
    facts = load("rollout", "tasks/pending.yml")[0]["ansible.builtin.set_fact"]
    fleet = {"hostvars": hostvars, "ansible_play_hosts_all": list(hostvars)}
    assert compute("rollout", facts["forge_rollout_pending"], **fleet) == ["web2", "web3"]
