# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that do not answer: what is said of them, and whom the plays are for then."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.action.host_info import cause
from ansible_collections.thecodeforge.fastapi.plugins.filter.answering import answering
from ansible_collections.thecodeforge.fastapi.plugins.filter.status_report import status_report
from ansible_collections.thecodeforge.fastapi.plugins.filter.unreachable import unreachable

HERE: dict[str, Any] = {"host": {}}
AWAY = {"unanswered": "connect to host 192.0.2.7 port 22: No route to host"}
APP = ["web1", "web2", "web3"]


def said(facts: dict[str, Any], choice: str, **more: Any) -> str:
    found = unreachable(facts, app_hosts=APP, choice=choice, **more)
    assert not (found["problem"] and found["note"])
    return found["problem"] or found["note"]


def test_nothing_is_said_of_hosts_that_answer() -> None:
    for choice in ("stop", "go_on"):
        assert said({"web1": HERE, "web2": HERE}, choice) == ""


def test_it_stops_and_names_every_host_with_the_cause() -> None:
    assert said({"web1": AWAY, "web2": HERE, "web3": AWAY}, "stop") == (
        "web1 (connect to host 192.0.2.7 port 22: No route to host), web3 (connect to host 192.0.2.7 port 22: No route to "
        "host) do not answer: start what is down, or go on without it with -e forge_unreachable=go_on. Nothing was changed."
    )


def test_it_goes_on_when_told_and_says_without_whom() -> None:
    found = unreachable({"web1": AWAY, "web2": HERE}, app_hosts=APP, choice="go_on")
    assert found["problem"] == ""
    assert found["note"].endswith("does not answer: the run goes on, and what is there stays until the next run.")


def test_it_never_goes_on_without_the_database_or_without_a_host() -> None:
    assert "no run goes on without the database on db" in said({"web1": HERE, "db": AWAY}, "go_on", needed=["db"])
    assert "the run goes on" in said({"web1": HERE, "db": AWAY}, "go_on")  # the app does not use it
    # web2 and web3 are not in the run (--limit).
    assert "no other host is left" in said({"web1": AWAY, "db": HERE}, "go_on")


VIA = "Failed to connect to the host via ssh: "


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"{VIA}ssh: connect to host w2 port 22: Connection refused", "connect to host w2 port 22: Connection refused"),
        (
            f"{VIA}Warning: added 'x'\r\nssh: Could not resolve hostname w2: unknown",
            "Could not resolve hostname w2: unknown",
        ),
        (f"Task failed: {VIA}admin@w2: Permission denied (publickey).", "admin@w2: Permission denied (publickey)"),
        (
            'Data could not be sent to remote host "w2". Make sure this host can be reached over ssh: ssh: connect to w2: timeout',
            "connect to w2: timeout",
        ),
        ("Timeout (12s) waiting for privilege escalation prompt: ", "no answer within 12 s"),
        ("Task failed: Timeout (12s) waiting for privilege escalation prompt: ", "no answer within 12 s"),
        ("", "no answer"),
    ],
)
def test_the_cause_is_what_ssh_said(message: str, expected: str) -> None:
    assert cause(message) == expected


def test_plays_are_for_all_until_somebody_was_asked_and_for_those_that_answer_then() -> None:
    groups = {"all": APP, "forge_app": APP}
    assert answering(groups) == "forge_app"
    assert answering(groups, of=["forge_app", "forge_database"]) == "forge_app:forge_database"
    assert answering({**groups, "forge_answering": ["web1"]}) == "forge_app:&forge_answering"


def test_the_table_has_a_host_that_does_not_answer() -> None:
    rows = status_report(["web2"], [{"healthy": False, "live": "", "problem": "it does not answer"}], [{}])
    assert dict(zip(*rows, strict=True))["healthy"] == "no: it does not answer"
