# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that runs once for the fleet, without its database: that is tried in tests/system/test_once.py."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.filter.generation_units import LOOK_SECONDS
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import (
    database_session,
    database_url,
    once,
)

FILES = Path(__file__).parents[4] / "roles" / "service" / "files"
NOON = 1795953600.0  # 2026-11-29 12:00:00 UTC, a Sunday


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "forge_database", database_session)
    monkeypatch.setitem(sys.modules, "forge_database_url", database_url)
    monkeypatch.syspath_prepend(FILES.parents[1] / "common" / "files")
    spec = importlib.util.spec_from_file_location("forge_process", FILES / "forge_process.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        ("*:*:0/5 UTC", "2026-11-29T12:00:00+00:00"),
        ("*:59:59 UTC", "2026-11-29T11:59:59+00:00"),
        ("*-*-* 11:00..30:* UTC", "2026-11-29T11:30:59+00:00"),  # 1860 times in an hour, and then none
        ("03:00 UTC", "2026-11-29T03:00:00+00:00"),
        ("Mon 23:00 UTC", "2026-11-23T23:00:00+00:00"),
        ("*-02-29 UTC", "2024-02-29T00:00:00+00:00"),
        ("2027-01-01 UTC", ""),
    ],
)
def test_when_it_was_last_due(module: Any, monkeypatch: pytest.MonkeyPatch, zone: str, schedule: str, due: str) -> None:
    monkeypatch.setenv("TZ", zone)
    assert module.last_due(schedule, NOON) == due


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_a_schedule_is_that_of_the_hosts_own_time(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    assert module.last_due("daily", NOON) == "2026-11-29T05:00:00+00:00"


class Row:
    """What the hosts agree by, where nobody else is at it, or somebody has taken over."""

    def __init__(self, ours: bool = True, newest: bool = True) -> None:
        self.ours, self.newest, self.told = ours, newest, list[str]()

    def let_go(self) -> None:
        pass

    def is_ours(self) -> bool:
        if isinstance(self.ours, Exception):
            raise self.ours
        return self.ours

    def is_newest(self) -> bool:
        return self.newest

    def end(self, result: str) -> None:
        self.told.append(result)

    def give_back(self) -> None:
        self.told.append("given back")


@pytest.fixture
def quick(module: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    before = signal.getsignal(signal.SIGTERM)
    for name, seconds in {"BEAT": 0.1, "END": 0.5, "KILL": 1.5, "LEASE": 2.0}.items():
        monkeypatch.setattr(module, name, seconds)
    yield module
    signal.signal(signal.SIGTERM, before)


def test_its_end_is_written_down(quick: Any) -> None:
    for command, status, told in (
        (["true"], 0, "succeeded"),
        (["VARIABLE=3", "sh", "-c", "exit $VARIABLE"], 3, "failed with exit status 3"),
        (["sh", "-c", "kill -9 $$"], 137, "failed with exit status 137"),
        (["no-such-program"], 127, "failed with exit status 127"),
    ):
        row = Row()
        assert quick.run_leased(row, command) == status
        assert row.told == [told]


def test_it_is_told_when_it_was_due(quick: Any, tmp_path: Path) -> None:
    out = tmp_path / "due"
    assert quick.run_leased(Row(), ["sh", "-c", f'echo "$FORGE_DUE" > {out}'], "2026-11-29T03:00:00+00:00") == 0
    assert out.read_text() == "2026-11-29T03:00:00+00:00\n"


@pytest.mark.parametrize(
    ("script", "told"),
    [("exec sleep 60", ["given back"]), ("trap 'exit 0' TERM; while true; do sleep 0.1; done", ["succeeded"])],
)
def test_what_is_stopped_is_given_back_unless_it_ends_well(quick: Any, script: str, told: list[str]) -> None:
    row = Row()
    threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert quick.run_leased(row, ["sh", "-c", script]) == 0
    assert row.told == told


def test_what_is_kept_running_is_left_to_a_newer_release(quick: Any, capsys: pytest.CaptureFixture[str]) -> None:
    row = Row(newest=False)
    assert quick.run_leased(row, ["sleep", "60"], yields=True) == 0, "no failure"
    assert row.told == ["given back"], "at once"
    assert capsys.readouterr().out == "sleep 60 was ended: a host with a newer release runs it.\n"


def test_what_has_a_schedule_is_finished_beside_a_newer_release(quick: Any) -> None:
    row = Row(newest=False)
    assert quick.run_leased(row, ["sleep", "0.7"], "2026-11-29T03:00:00+00:00") == 0
    assert row.told == ["succeeded"]


@pytest.mark.parametrize(
    ("ours", "sentence"),
    [
        (False, "was ended: another host has taken it over."),
        (OSError(), "was ended: the database was not to be reached for"),
    ],
)
def test_what_another_host_may_run_ends_also_when_it_will_not(
    quick: Any, capsys: pytest.CaptureFixture[str], ours: Any, sentence: str
) -> None:
    row, began = Row(ours), time.monotonic()
    assert quick.run_leased(row, ["sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"]) == 1
    assert time.monotonic() - began < quick.LEASE + 1
    assert row.told == []
    assert sentence in capsys.readouterr().out


def test_it_is_ended_before_another_host_may_begin(module: Any) -> None:
    assert module.BEAT * 3 < module.END < module.KILL < module.LEASE - 5


@pytest.fixture
def hook() -> Iterator[tuple[str, list[bytes]]]:
    bodies: list[bytes] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(404 if "bad" in self.path else 200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()


def test_a_failure_is_told_to_an_address_and_to_a_command(
    module: Any, monkeypatch: pytest.MonkeyPatch, hook: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, bodies = hook
    monkeypatch.setenv("TOKEN", "bad-hunter22")
    assert module.tell("shop", "nightly", f"{address}/x") == 0
    for name, value in (("SERVICE_RESULT", "success"), ("EXIT_CODE", "exited"), ("EXIT_STATUS", "75")):
        monkeypatch.setenv(name, value)
    assert module.tell("shop", "nightly", f"{address}/x") == 0
    assert bodies == [], "nothing has failed"
    monkeypatch.setenv("SERVICE_RESULT", "oom-kill")
    monkeypatch.setenv("EXIT_CODE", "killed")
    monkeypatch.setenv("EXIT_STATUS", "KILL")
    assert module.tell("shop", "nightly", f"{address}/x") == 0
    sentence = json.loads(bodies.pop())["text"]
    assert sentence.endswith(": oom-kill (killed KILL).")
    assert sentence.startswith("nightly of shop failed on ")
    assert module.tell("shop", "nightly", f"{address}/${{TOKEN}}") == 1
    assert capsys.readouterr().out == "The address of on_failure was not to be called: Not Found.\n"
    monkeypatch.setenv("TOKEN", "hunter22 hunter22")
    assert module.tell("shop", "nightly", f"{address}/${{TOKEN}}") == 1
    assert capsys.readouterr().out == "The address of on_failure was not to be called: InvalidURL.\n"
    out = tmp_path / "told"
    assert module.tell("shop", "nightly", f"sh -c 'echo \"$FORGE_FAILURE\" > {out}; echo $$ >> {out}'") == 0
    assert out.read_text().splitlines()[0] == sentence
    assert out.read_text().splitlines()[1].isdigit(), "a shell of its own reads it"


@pytest.mark.parametrize("password", ["hunter22/more#22", "hunter%2F22", "hunter22"])
def test_what_a_driver_says_of_a_url_has_no_password(
    module: Any, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    for name in [name for name, value in os.environ.items() if value.startswith("postgres")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SHOP_URL", f"postgresql+psycopg://shop:{password}@db/shop")
    row = module.Row("shop", "beat")
    for said in (password, password.partition("/")[0], password.replace("%2F", "/")):
        monkeypatch.setattr(
            module, "connect", lambda _url, said=said: (_ for _ in ()).throw(ValueError(f'invalid port "{said}"'))
        )
        with pytest.raises(module.CannotAgree) as caught:
            row.ask_again("SELECT 1", 0)
        assert str(caught.value) == 'invalid port "********"'


def test_numbers_that_stand_in_two_places_are_the_same(module: Any) -> None:
    assert (module.NOT_RUN, module.LOOK) == (once.NOT_RUN, LOOK_SECONDS)


def test_without_a_database_it_is_said(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name, value in os.environ.items() if value.startswith("postgres")]:
        monkeypatch.delenv(name)
    assert module.main("kept", "shop", "beat", "--check") == 1
    assert capsys.readouterr().out == (
        "the hosts cannot agree on who runs it: no setting of the app is the URL of a PostgreSQL database\n"
    )


@pytest.mark.parametrize("sealed", [False, True])
def test_command_has_the_settings_wherever_they_are(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sealed: bool
) -> None:
    credential = {"FORGE_CREDENTIAL": "environment", "CREDENTIALS_DIRECTORY": str(tmp_path), "PYTHONPATH": str(FILES)}
    (tmp_path / "environment").write_text('TOKEN="hunter22"\nFORGE_DUE="theirs"\n')
    monkeypatch.setenv("TOKEN", "hunter22")
    beginning = {name: value for name, value in os.environ.items() if name != "TOKEN"}
    monkeypatch.setattr(module, "BEFORE", {**beginning, **credential} if sealed else {})
    says = f'printf "%s %s" "$TOKEN" "$FORGE_DUE" >{tmp_path}/said'
    assert module.start(["FORGE_DUE=now", "sh", "-c", says]).wait(60) == 0
    assert (tmp_path / "said").read_text() == "hunter22 now"
