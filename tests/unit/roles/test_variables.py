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


def load(role: str, path: str) -> Any:
    file = ROLES / role / path
    return DataLoader().load_from_file(str(file), trusted_as_template=True) if file.is_file() else {}


def compute(role: str, value: str, **variables: Any) -> Any:
    """A variable of ``vars/main.yml``, or another expression of a role, with the role's defaults and these variables."""
    own = load(role, f"defaults/main/{role}.yml")
    known = {**load("common", "defaults/main.yml"), **own, **load(role, "vars/main.yml")}
    templar = Templar(DataLoader(), variables={**known, **variables})
    return templar.template(known.get(value, value))


def test_the_clients_are_the_hosts_of_the_app_unless_the_inventory_says_otherwise() -> None:
    facts = {"web1": ["192.0.2.7"], "web2": ["192.0.2.8", "2001:db8::8"], "db1": ["192.0.2.9"]}
    fleet: dict[str, Any] = {
        "inventory_hostname": "db1",
        "groups": {"forge_app": ["web1", "web2", "web3", "db1"]},
        "hostvars": {name: {"forge_host_facts": {"host": {"addresses": found}}} for name, found in facts.items()},
    }
    fleet["hostvars"]["web3"] = {}  # outside of --limit
    clients = "__forge_postgresql_clients"
    assert sorted(compute("postgresql", clients, **fleet)) == ["192.0.2.7", "192.0.2.8", "2001:db8::8"]
    assert compute("postgresql", clients, **fleet, forge_postgresql_clients=["203.0.113.1"]) == ["203.0.113.1"]
    assert compute("postgresql", clients, groups={}, hostvars={}, inventory_hostname="db1") == []


def test_names_of_the_database_follow_what_was_seen_of_the_server_or_of_what_serves() -> None:
    live = {"forge_host_facts": {"host": {"uses_earlier_names": True}}}
    mark = "# Managed by thecodeforge.fastapi for app shop\n# Database orders of role clerk.\n"
    seen = {"directory": "/etc/x", "files": {"/etc/x/conf.d/shop.conf": mark}}
    server = {"forge_host_facts": {"host": {"uses_earlier_names": False, "postgresql": seen}}}
    groups = {"forge_app": ["web1", "web2"], "forge_database": ["db1"]}
    shop = {"inventory_hostname": "web1", "groups": groups, "forge_app": "shop"}
    names = "__forge_database_names"
    nothing: dict[str, Any] = {"web1": {}, "web2": {}, "db1": {}}
    assert compute("postgresql", names, **shop, hostvars=nothing) == {"database": "shop", "role": "shop"}
    limited = {**nothing, "web2": live}
    assert compute("postgresql", names, **shop, hostvars=limited) == {"database": "forge", "role": "forge"}
    whole = {**limited, "db1": server}
    assert compute("postgresql", names, **shop, hostvars=whole) == {"database": "orders", "role": "clerk"}
    given = {"forge_database_name": "mine", "forge_database_user": "me"}
    assert compute("postgresql", names, **shop, **given, hostvars=whole) == {"database": "mine", "role": "me"}


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
    fleet: dict[str, Any] = {"groups": {"forge_database": ["db1"]}, "hostvars": {"db1": {"ansible_host": "192.0.2.9"}}}
    fleet["hostvars"]["web1"] = {}
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
    task = load("rollout", "tasks/pending.yml")[0]
    fleet = {"hostvars": hostvars, "ansible_play_hosts_all": list(hostvars)}
    assert compute("rollout", task["vars"]["__forge_pending"], **fleet) == ["web2", "web3"]


def test_connections_of_the_database_follow_the_fleet_by_the_variables_of_its_hosts() -> None:
    seen = {"forge_host_facts": {"host": {"cpus": 2, "cpu_quota": 0, "memory_mb": 8192}}}
    hosts: dict[str, Any] = {
        "web1": {**seen, "forge_worker_connections": "10"},
        "web2": {"forge_host_facts": {"unanswered": "no answer"}},
        "db1": {"forge_host_facts": {"host": {"memory_mb": 16384}}},
    }
    groups = {"forge_app": ["web1", "web2"], "forge_database": ["db1"]}
    for asking in ("db1", "web1"):
        fleet = {"groups": groups, "hostvars": hosts, "inventory_hostname": asking}
        assert compute("postgresql", "__forge_postgresql_max_connections", **fleet) == 2 * 5 * 2 * 10 + 10
        assert (
            compute("postgresql", "__forge_postgresql_max_connections", **fleet, forge_postgresql_max_connections=50)
            == 50
        )


EDGES: dict[str, Any] = {
    "e1": {"forge_host_facts": {"host": {"addresses": ["192.0.2.1"]}}},
    "e2": {"forge_host_facts": {"host": {"addresses": ["192.0.2.2", "2001:db8::2"]}}},
}


def test_the_app_trusts_its_edges_and_they_alone_reach_it() -> None:
    fleet = {"groups": {"forge_app": ["web1"], "forge_edge": ["e1", "e2"]}, "hostvars": EDGES}
    trusted = compute("service", "__forge_trusted_proxies", **fleet)
    assert trusted == ["127.0.0.1", "::1", "192.0.2.1", "192.0.2.2", "2001:db8::2"]
    assert compute("service", "__forge_trusted_proxies", groups={}, hostvars={}) == ["127.0.0.1", "::1"]
    own = {"forge_host_facts": {"host": {"addresses": ["192.0.2.7"]}}}
    text = compute("edge", "__forge_edge_clients", **fleet, **own)
    assert [line for line in text.splitlines() if "192.0.2" in line] == [
        f"IPAddressAllow=192.0.2.{each}" for each in (1, 2, 7)
    ]
    assert compute("edge", "__forge_edge_clients", **fleet, **own, forge_clients=["any"]) == ""
    assert compute("edge", "__forge_edge_clients", groups={}, hostvars={}, **own) == ""


@pytest.mark.parametrize(
    ("https", "port"),
    [(["0.0.0.0:443"], ""), (["[::]:8443"], ":8443"), (["8443", "443"], ""), ([443], ""), (["0.0.0.0:1443"], ":1443")],
)
def test_a_redirect_names_the_port_when_it_is_another(https: list[Any], port: str) -> None:
    assert compute("edge", "__forge_edge_https_port", forge_edge_https=https) == port


def test_challenges_are_asked_of_every_edge_where_an_authority_is_asked() -> None:
    fleet = {"groups": {"forge_edge": ["e1", "e2"]}, "hostvars": EDGES, "inventory_hostname": "e1"}
    assert compute("edge", "__forge_edge_challenges", **fleet) == []
    asked = compute("edge", "__forge_edge_challenges", **fleet, forge_edge_tls="acme")
    assert asked == ["127.0.0.1:8402", "192.0.2.2:8402"]
    argv = compute(
        "edge",
        "__forge_edge_certbot",
        **fleet,
        forge_edge_names=["a.example", "b.example"],
        forge_edge_acme_email="me@x",
    )
    assert argv[-4:] == ["--email", "me@x", "--domain=a.example", "--domain=b.example"]
    assert "0.0.0.0" in argv


def test_names_of_hosts_to_drain_stand_in_one_text() -> None:
    assert compute("absence", "__forge_absence_hosts", forge_drain_hosts="web1, web2,") == ["web1", "web2"]
    assert compute("absence", "__forge_absence_hosts") == []
