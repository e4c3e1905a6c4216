# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of an edge is wrong in an inventory, and can be known before a host is asked."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

from ....module_utils._private.listening import endpoint, overlap
from ..certificates import CertificateError, whole_pem
from .rules import is_address, with_defaults

NAME = re.compile(r"^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
LARGEST_PAGE = 12_000  # characters: HAProxy has to hold it in one buffer


def wrong_edge(values: dict[str, Any], is_edge: bool, has_edges: bool) -> list[str]:
    """Problems of a host, a sentence each; none when there are none.

    :param is_edge: whether the host is in the group ``forge_edge``.
    :param has_edges: whether any is.
    """
    values = with_defaults(values)
    names = [str(name) for name in values["forge_edge_names"]]
    problems = [
        f"forge_edge_names: {name!r} must be a name of a host, in lower case, such as shop.example.org or *.example.org."
        for name in names
        if not NAME.match(name)
    ]
    for variable in ("forge_maintenance_page", "forge_edge_unavailable_page"):
        if len(str(values[variable])) > LARGEST_PAGE:
            problems.append(
                f"{variable} has more than {LARGEST_PAGE} characters, which HAProxy cannot hold: make it smaller."
            )
    if has_edges and all(str(each).startswith("/") for each in values["forge_listen"]):
        problems.append(
            "forge_listen has unix sockets alone, which no edge can reach: add an address such as 0.0.0.0:8000."
        )
    if not is_edge or problems:
        return problems
    return [*wrong_tls(values, names), *wrong_addresses(values), *wrong_times(values)]


def wrong_tls(values: dict[str, Any], names: list[str]) -> list[str]:
    tls = values["forge_edge_tls"]
    given = bool(values["forge_edge_certificate"] and values["forge_edge_key"])
    if tls == "given" and not given:
        return [
            "forge_edge_tls: given needs forge_edge_certificate and forge_edge_key: give both, or choose acme, own or none."
        ]
    if tls in ("acme", "own") and not names:
        return [f"forge_edge_tls: {tls} needs forge_edge_names, which the certificate is to be for."]
    if tls == "acme" and any(name.startswith("*.") for name in names):
        return [
            "forge_edge_tls: acme is for names without *, as it proves them over HTTP: name each, or give a certificate."
        ]
    if tls == "acme" and not any(endpoint(str(each)).port == 80 for each in values["forge_edge_http"]):
        return ["forge_edge_tls: acme needs port 80 in forge_edge_http, where the authority asks."]
    if tls != "given":
        return []
    try:
        whole_pem(str(values["forge_edge_certificate"]), str(values["forge_edge_key"]), names)
    except CertificateError as error:
        return [str(error)]
    return []


def wrong_addresses(values: dict[str, Any]) -> list[str]:
    used = [
        "forge_edge_http",
        *(["forge_edge_https"] if values["forge_edge_tls"] != "none" else []),
        "forge_edge_metrics",
    ]
    entries = [(name, str(each)) for name in used for each in values[name]]
    wrong = [
        f"{name}: {each!r} must be address:port or a port."
        for name, each in entries
        if not is_address(each) or each[0] == "/"
    ]
    if wrong:
        return wrong
    return [
        f"{name}: {one} and {other} ({other_name}) are the same or overlap: leave out one of them."
        for (name, one), (other_name, other) in combinations(entries, 2)
        if overlap(endpoint(one), endpoint(other))
    ]


def wrong_times(values: dict[str, Any]) -> list[str]:
    """Times that would let the edge give up first."""
    finish = max(int(values["forge_finish_seconds"]), int(values["forge_drain_seconds"]))
    if int(values["forge_edge_timeout"]) < finish:
        return [
            f"forge_edge_timeout is less than the {finish} s that an answer may take when a generation ends "
            "(forge_finish_seconds, forge_drain_seconds): give the edge at least as long."
        ]
    return []
