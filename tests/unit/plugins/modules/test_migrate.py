# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""When migrations have to run: whatever may change their outcome is another fingerprint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import systemd
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.database_lock import DatabaseLocked, Held
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.transient import TransientError
from ansible_collections.thecodeforge.fastapi.plugins.modules import migrate as module
from ansible_collections.thecodeforge.fastapi.plugins.modules.migrate import (
    fingerprint,
    is_migrated,
    migrate,
    version_in,
)

FIRST, SECOND = "aaaaaaaaaaaa-00000000", "bbbbbbbbbbbb-00000000"
COMMANDS = ["alembic upgrade head"]


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Two generations of releases that differ in code alone."""
    monkeypatch.setattr(systemd, "instances", lambda _app: [])
    layout = Layout(str(tmp_path), "forge")
    for generation in (FIRST, SECOND):
        release = generation.split("-")[0]
        home, code = Path(layout.generation(generation)), Path(layout.release(release))
        (code / "migrations" / "versions").mkdir(parents=True)
        (code / "migrations" / "versions" / "0001.py").write_text("revision = '0001'\n")
        (code / "alembic.ini").write_text("[alembic]\n")
        (code / "main.py").write_text(f"RELEASE = {release!r}\n")
        home.mkdir(parents=True)
        (home / "environment").write_text('FORGE_DATABASE_URL="postgresql://db/forge"\n')
        (home / "release.json").write_text(json.dumps({"release": release, "layer": "cccccccccccc-py3.11"}))
    return layout


def of(layout: Layout, generation: str, commands: list[str] = COMMANDS) -> str:
    return fingerprint(layout, generation, commands, ["migrations", "alembic.ini"])


def test_other_code_with_the_same_migrations_is_the_same(layout: Layout) -> None:
    cache = Path(layout.release("bbbbbbbbbbbb"), "migrations", "__pycache__")
    cache.mkdir()
    (cache / "env.pyc").write_bytes(b"x")
    assert of(layout, FIRST) == of(layout, SECOND)


@pytest.mark.parametrize(
    "path", ["migrations/versions/0001.py", "migrations/versions/0002.py", "migrations/new.sql", "alembic.ini"]
)
def test_another_file_is_another(layout: Layout, path: str) -> None:
    Path(layout.release("bbbbbbbbbbbb"), path).write_text("revision = '0002'\n")
    assert of(layout, FIRST) != of(layout, SECOND)


def test_other_settings_dependencies_or_commands_are_another(layout: Layout) -> None:
    assert of(layout, FIRST) != of(layout, FIRST, [*COMMANDS, "seed"])
    environment = Path(layout.generation(SECOND), "environment")
    before = environment.read_text()
    environment.write_text('FORGE_DATABASE_URL="postgresql://elsewhere/forge"\n')
    assert of(layout, FIRST) != of(layout, SECOND)
    environment.write_text(before)
    Path(layout.record(SECOND)).write_text(json.dumps({"release": "bbbbbbbbbbbb", "layer": "dddddddddddd-py3.11"}))
    assert of(layout, FIRST) != of(layout, SECOND)


@pytest.mark.parametrize("path", ["nothing", "../bbbbbbbbbbbb/migrations", "/etc", "."])
def test_a_path_that_is_not_in_the_release_is_refused(layout: Layout, path: str) -> None:
    with pytest.raises(TransientError, match="forge_migrations_paths"):
        fingerprint(layout, FIRST, COMMANDS, [path])


def test_what_is_live_was_migrated_with_it_unless_a_rollback_made_it_live(layout: Layout) -> None:
    Path(layout.current).symlink_to(f"generations/{FIRST}")
    record = json.loads(Path(layout.record(FIRST)).read_text())
    Path(layout.record(FIRST)).write_text(json.dumps({**record, "migrated_with": "mark"}))
    assert is_migrated(layout, "mark")
    assert not is_migrated(layout, "another")
    assert not is_migrated(layout, "")
    ledger = Path(layout.ledger)
    ledger.write_text(json.dumps({"action": "deploy", "result": "switched", "to": FIRST}) + "\n")
    assert is_migrated(layout, "mark")
    with ledger.open("a") as lines:
        lines.write(json.dumps({"action": "rollback", "result": "switched", "to": FIRST}) + "\n")
    assert not is_migrated(layout, "mark")


@pytest.mark.parametrize(
    ("output", "version"),
    [("INFO context\n0001_users (head)\n", "0001_users"), ("", "none"), ("\n \n", "none"), ("abc\n\n", "abc")],
)
def test_version_of_the_schema(output: str, version: str) -> None:
    assert version_in(output) == version


class FakeTransient:
    """Runs nothing; a command that has "fail" in it fails."""

    ran: list[list[str]] = []

    def __init__(self, *_arguments: object) -> None:
        self.ran.clear()

    def run(self, argv: list[str], _timeout: int, environment: dict[str, str] | None = None) -> tuple[int, str, float]:
        self.ran.append([*(f"{name}={value}" for name, value in (environment or {}).items()), *argv])
        printed = f"preparing\nOperationalError: no {argv[0]}\nbye\n" if "loudly" in argv else f"{argv[0]} ran\n"
        return int("fail" in argv), printed, 0.5


PARAMS = {
    "generation": SECOND, "commands": COMMANDS, "paths": [], "version_command": "alembic current", "timeout": 5, "wait": 60,
    "lock_timeout": 10,
}  # fmt: skip


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the database does: ``problem``, why it holds no lock, or ``holds``, who migrates."""
    state: dict[str, Any] = {"problem": "", "asked": [], "options": ""}

    @contextmanager
    def database_lock(_transient: object, wait: int, seconds: int, lock_timeout: int) -> Iterator[Held]:
        if "holds" in state:
            raise DatabaseLocked(state["holds"])
        state["asked"].append((wait, seconds, lock_timeout, len(FakeTransient.ran)))
        yield Held(state["problem"], state["options"])
        state["asked"].append(len(FakeTransient.ran))

    monkeypatch.setattr(module, "database_lock", database_lock)
    return state


def test_the_database_holds_a_lock_over_all_commands(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, database: dict[str, Any]
) -> None:
    outcome(layout, monkeypatch, commands=["first", "second"])
    assert database["asked"] == [(60, 2 * (5 + module.SLACK), 10, 0), 2]
    database["asked"].clear()
    outcome(layout, monkeypatch, commands=[])
    assert database["asked"] == [], "only the version is asked"


def test_commands_give_up_waiting_for_a_lock_where_the_database_lets_them(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, database: dict[str, Any]
) -> None:
    database["options"] = "-c lock_timeout=10s"
    outcome(layout, monkeypatch)
    assert FakeTransient.ran == [["PGOPTIONS=-c lock_timeout=10s", *COMMANDS[0].split()], ["alembic", "current"]]


def test_no_lock_in_the_database_is_said_and_is_no_failure(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, database: dict[str, Any]
) -> None:
    database["problem"] = "No lock in the database of URL: no driver"
    assert outcome(layout, monkeypatch)["lines"][:2] == [
        "No lock in the database of URL: no driver.",
        "$ alembic upgrade head",
    ]


def test_another_migration_is_named_and_nothing_runs(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, database: dict[str, Any]
) -> None:
    database["holds"] = "192.0.2.7 has been at it since 2026-11-27 14:03:11 UTC"
    with pytest.raises(TransientError, match="did not end within 60 s: 192.0.2.7 has been at it since 2026"):
        outcome(layout, monkeypatch)
    assert FakeTransient.ran == []


def outcome(layout: Layout, monkeypatch: pytest.MonkeyPatch, **changes: object) -> dict[str, Any]:
    monkeypatch.setattr(module, "Transient", FakeTransient)
    result: dict[str, Any] = {"changed": True, "lines": [], "version": "", "seconds": 0.0}
    migrate(layout, {**PARAMS, **changes}, result)
    return result


def test_commands_run_in_order_and_then_the_version_is_asked(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    result = outcome(layout, monkeypatch, commands=["first", "second 'a b'"])
    assert FakeTransient.ran == [["first"], ["second", "a b"], ["alembic", "current"]]
    assert result == {
        "changed": True,
        "lines": ["$ first", "first ran", "$ second 'a b'", "second ran", "$ alembic current", "alembic ran"],
        "version": "alembic",
        "seconds": 1.5,
    }


def test_command_that_fails_is_named_and_the_next_is_not_run(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransientError, match=r"^'upgrade fail' failed with exit code 1: upgrade ran\.$"):
        outcome(layout, monkeypatch, commands=["upgrade fail", "second"])
    assert FakeTransient.ran == [["upgrade", "fail"]]
    with pytest.raises(TransientError, match=r"^\"a 'b\": it cannot be read"):
        outcome(layout, monkeypatch, commands=["a 'b"])


def test_output_of_a_command_that_fails_begins_with_the_first_error(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Transient", FakeTransient)
    result: dict[str, Any] = {"changed": True, "lines": [], "version": "", "seconds": 0.0}
    with pytest.raises(TransientError, match=r"failed with exit code 1: OperationalError: no upgrade\.$"):
        migrate(layout, {**PARAMS, "commands": ["first", "upgrade fail loudly"]}, result)
    assert result["lines"] == ["$ upgrade fail loudly", "OperationalError: no upgrade", "bye"]


def test_same_inputs_are_migrated_once(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fchown", lambda *_arguments: None)
    paths = ["migrations", "alembic.ini"]
    assert outcome(layout, monkeypatch, paths=paths)["changed"]
    assert layout.read_record(SECOND).migrated_with == fingerprint(layout, SECOND, COMMANDS, paths)
    Path(layout.current).symlink_to(f"generations/{SECOND}")
    result = outcome(layout, monkeypatch, paths=paths, generation=FIRST)
    assert (result["changed"], FakeTransient.ran) == (False, [])
    assert result["lines"] == [f"Nothing to migrate: {SECOND} was migrated with the same files and settings."]
