# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""One configuration of HAProxy from what each app wants."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.edge_config import (
    CONFIG,
    HOME,
    Part,
    binds,
    problems,
    shared_files,
)


def part(app: str, **settings: Any) -> Part:
    wanted = {"http": ["0.0.0.0:80"], "https": ["0.0.0.0:443"], "metrics": ["127.0.0.1:8404"], "tls": True, **settings}
    return Part.from_dict({"app": app, "backend": f"backend {app}\n", **wanted})


def test_apps_share_addresses_and_are_told_apart_by_their_names() -> None:
    files = shared_files(
        [part("blog", names=["*.blog.example"]), part("shop", names=["shop.example", "www.shop.example"])]
    )
    assert files[f"{HOME}/hosts.map"] == "shop.example shop\nwww.shop.example shop\n"
    assert files[f"{HOME}/domains.map"] == ".blog.example blog\n"
    assert files[f"{HOME}/certificates.list"] == f"{HOME}/certificates/blog.pem\n{HOME}/certificates/shop.pem\n"
    text = files[CONFIG]
    assert text.count("bind 0.0.0.0:443 ssl") == text.count("bind 0.0.0.0:80\n") == 1
    assert "set-var(txn.app) str(forge_nobody)" in text
    assert text.endswith("backend blog\n\nbackend shop\n")


def test_app_without_names_has_what_nobody_else_has() -> None:
    text = shared_files([part("blog", names=["blog.example"]), part("shop")])[CONFIG]
    assert "set-var(txn.app) str(shop)" in text


def test_without_tls_there_is_no_address_for_it_and_without_acme_no_challenge() -> None:
    text = shared_files([part("shop", tls=False, metrics=[])])[CONFIG]
    assert "forge_https" not in text
    assert "forge_private" not in text
    assert "acme" not in text
    asked = shared_files([part("shop", challenges=["127.0.0.1:8402", "192.0.2.2:8402"])])[CONFIG]
    assert "server challenge1 192.0.2.2:8402" in asked
    assert asked.count("use_backend forge_challenges if { path_beg /.well-known/acme-challenge/ }") == 2


def test_a_reload_leaves_the_longest_connection_its_time() -> None:
    assert "hard-stop-after 7200s" in shared_files([part("blog", longest=60), part("shop", longest=7200)])[CONFIG]


@pytest.mark.parametrize(
    ("addresses", "written"),
    [
        ([["80"]], ["[::]:80 v4v6"]),
        ([["0.0.0.0:80", "[::]:80"]], ["0.0.0.0:80", "[::]:80 v6only"]),
        ([["0.0.0.0:80"], ["0.0.0.0:80", "[2001:db8::1]:80"]], ["0.0.0.0:80", "[2001:db8::1]:80 v6only"]),
    ],
)
def test_addresses_are_written_as_haproxy_has_them(addresses: list[list[str]], written: list[str]) -> None:
    assert binds(addresses) == written


@pytest.mark.parametrize(
    ("mine", "others", "sentence"),
    [
        ({"names": ["a.example"]}, {"names": ["b.example"]}, ""),
        ({"names": ["a.example"]}, {}, ""),
        (
            {"names": ["a.example", "b.example"]},
            {"names": ["b.example"]},
            "forge_edge_names: b.example is served by the app blog on e1",
        ),
        ({}, {}, "forge_edge_names is empty, and on e1 the app blog already has all names"),
        (
            {"names": ["a"], "metrics": ["0.0.0.0:8404"]},
            {"names": ["b"]},
            "forge_edge_metrics: 0.0.0.0:8404 and 127.0.0.1:8404 (forge_edge_metrics of the app blog) overlap on e1",
        ),
        (
            {"names": ["a"], "http": ["0.0.0.0:443"]},
            {"names": ["b"], "https": ["0.0.0.0:443"]},
            "forge_edge_http: 0.0.0.0:443 and 0.0.0.0:443 (forge_edge_https",
        ),
        ({"names": ["a"], "http": ["0.0.0.0:443"]}, {"names": ["b"], "tls": False}, "forge_edge_http: 0.0.0.0:443"),
        ({"names": ["a"], "tls": False, "http": ["0.0.0.0:443"]}, {"names": ["b"], "tls": False}, ""),
    ],
)
def test_what_cannot_be_beside_each_other_is_said(mine: dict[str, Any], others: dict[str, Any], sentence: str) -> None:
    found = problems(part("shop", **mine), [part("blog", **others)], "e1")
    assert " ".join(found).startswith(sentence)
    assert bool(found) == bool(sentence)


def test_a_part_of_another_version_is_read_as_far_as_it_is_known() -> None:
    assert Part.from_dict({"app": "shop", "names": "x", "newer": 1}) == Part(app="shop")
    assert Part.from_dict(None).app == ""
