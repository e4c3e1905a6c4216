# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of an edge is known to be wrong before a host is asked."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.inventory.edge_rules import wrong_edge
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.inventory.rules import wrong_values

NONE = {"forge_edge_tls": "none"}


def found(values: dict[str, Any], is_edge: bool = True) -> str:
    return " ".join(wrong_edge(values, is_edge, has_edges=True))


@pytest.mark.parametrize(
    "values", [NONE, {"forge_edge_tls": "own", "forge_edge_names": ["a.example", "*.b.example", "localhost"]}]
)
def test_what_is_right(values: dict[str, Any]) -> None:
    assert found(values) == ""
    assert found({}, is_edge=False) == ""


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "forge_edge_tls: given needs forge_edge_certificate and forge_edge_key"),
        ({"forge_edge_certificate": "x.pem"}, "forge_edge_tls: given needs"),
        ({"forge_edge_certificate": "/x.pem", "forge_edge_key": "/x.key"}, "forge_edge_certificate: /x.pem on the controller"),
        ({"forge_edge_tls": "acme"}, "forge_edge_tls: acme needs forge_edge_names"),
        ({"forge_edge_tls": "own"}, "forge_edge_tls: own needs forge_edge_names"),
        ({"forge_edge_tls": "acme", "forge_edge_names": ["*.a.example"]}, "forge_edge_tls: acme is for names without *"),
        ({"forge_edge_tls": "acme", "forge_edge_names": ["a.example"], "forge_edge_http": ["81"]}, "forge_edge_tls: acme needs port 80"),
        ({**NONE, "forge_edge_names": ["Shop.example"]}, "forge_edge_names: 'Shop.example' must be a name of a host"),
        ({**NONE, "forge_edge_names": ["https://shop.example"]}, "forge_edge_names: 'https://shop.example' must be"),
        ({**NONE, "forge_edge_names": ["a b"]}, "forge_edge_names: 'a b' must be"),
        ({**NONE, "forge_edge_http": ["/run/x.sock"]}, "forge_edge_http: '/run/x.sock' must be address:port or a port."),
        ({**NONE, "forge_edge_metrics": ["web1"]}, "forge_edge_metrics: 'web1' must be"),
        ({**NONE, "forge_edge_http": ["8404"]}, "forge_edge_http: 8404 and 127.0.0.1:8404 (forge_edge_metrics) are the same or overlap"),
        ({**NONE, "forge_edge_timeout": 10}, "forge_edge_timeout is less than the 20 s"),
        ({**NONE, "forge_edge_timeout": 60, "forge_finish_seconds": 90}, "forge_edge_timeout is less than the 90 s"),
        ({**NONE, "forge_listen": ["/run/x.sock"]}, "forge_listen has unix sockets alone"),
        ({**NONE, "forge_maintenance_page": "x" * 12_001}, "forge_maintenance_page has more than 12000 characters"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said(values: dict[str, Any], sentence: str) -> None:
    assert found(values).startswith(sentence)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"forge_ready_path": "ready"}, "forge_ready_path must be a path of a URL that starts with a slash."),
        ({"forge_ready_path": "/a b"}, "forge_ready_path must be a path"),
        ({"forge_retry_after": 0}, "forge_retry_after must be seconds, from 1 to 604800."),
        ({"forge_min_serving": -1}, "forge_min_serving must not be negative."),
        ({"forge_edge_acme_server": "http://x"}, "forge_edge_acme_server must be a URL that starts with https."),
        ({"forge_edge_acme_email": "me"}, "forge_edge_acme_email must be an address of mail."),
        (
            {"forge_edge_server_address": "10.0.0.1 check"},
            "forge_edge_server_address must be an address or a name of a host",
        ),
        ({"forge_edge_https": []}, "forge_edge_https must name at least one address."),
        ({"forge_clients": ["everybody"]}, "forge_clients: 'everybody' must be an address, a network or any"),
        ({"forge_edge_addresses": ["edge1"]}, "forge_edge_addresses: 'edge1' must be an address or a network"),
    ],
)
def test_value_that_cannot_work(values: dict[str, Any], sentence: str) -> None:
    assert [problem.startswith(sentence) for problem in wrong_values(values)] == [True]


def test_right_values() -> None:
    assert wrong_values({"forge_clients": ["any", "10.0.0.0/8"], "forge_edge_server_address": "2001:db8::1"}) == []
