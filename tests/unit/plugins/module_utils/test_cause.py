# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first cause, in what programs print when they fail."""

from __future__ import annotations

import asyncio
import textwrap
import traceback
from collections.abc import Callable

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.cause import (
    LONGEST,
    SHOWN,
    explain,
    first_cause,
    hint,
    tool_cause,
)

TRACEBACK = """
Traceback (most recent call last):
  File "/srv/shop/main.py", line 7, in start
    connect()
    ~~~~~~~^^
"""
CASES = {
    "an exception": (TRACEBACK + "RuntimeError: no queue.\nlater", 1, "RuntimeError: no queue"),
    "an exception without a message": (TRACEBACK + "KeyboardInterrupt", 1, "KeyboardInterrupt"),
    "the first of two tracebacks": (
        f"starting{TRACEBACK}ValueError: first\n[2026-11-26 19:00:00 +0000] [7] [ERROR] Exception{TRACEBACK}OSError: second",
        1,
        "ValueError: first",
    ),
    "raised from": (
        f"{TRACEBACK}psycopg.OperationalError: too many\n\nThe above exception was the direct cause of the following "
        f"exception:\n{TRACEBACK}sqlalchemy.exc.OperationalError: (psycopg.OperationalError) too many\n[SQL: SELECT 1]",
        1,
        "sqlalchemy.exc.OperationalError: (psycopg.OperationalError) too many",
    ),
    "raised while another was handled, its message in lines": (
        f"{TRACEBACK}KeyError: 'a'\nand\nmore\n\nDuring handling of the above exception, another exception occurred:\n"
        f"{TRACEBACK}shop.Broken: cannot go on",
        1,
        "shop.Broken: cannot go on",
    ),
    "syntax": (
        'booting\nTraceback (most recent call last):\n  File "/a.py", line 3\n    def x(\n         ^\n'
        "SyntaxError: '(' was never closed",
        1,
        "SyntaxError: '(' was never closed",
    ),
    "syntax of the script itself": (
        '  File "/a.py", line 3\n    def x(\n         ^\nSyntaxError: invalid syntax',
        3,
        "SyntaxError: invalid syntax",
    ),
    "behind Gunicorn's prefix": (
        "[2026-11-26 19:00:00 +0000] [7] [INFO] Booting worker with pid: 7\n"
        "[2026-11-26 19:00:00 +0000] [7] [ERROR] Traceback (most recent call last):\n"
        '  File "/a.py", line 3, in lifespan\n    raise OSError("gone")\nOSError: gone\n\n'
        "[2026-11-26 19:00:00 +0000] [7] [ERROR] Application startup failed. Exiting.\n"
        "[2026-11-26 19:00:01 +0000] [1] [ERROR] Worker (pid:7) exited with code 3.",
        1,
        "OSError: gone",
    ),
    "behind Uvicorn's prefix": (
        "INFO:     Waiting for application startup.\nERROR:    Traceback (most recent call last):\n"
        '  File "/a.py", line 3\nConnectionRefusedError: [Errno 111] refused\n\nERROR:    Application startup failed. Exiting.',
        1,
        "ConnectionRefusedError: [Errno 111] refused",
    ),
    "in one line of JSON": (
        '{"level": "info", "event": "up"}\n{"level": "error", "exception": "Traceback (most recent call last):\\n  '
        'File \\"a.py\\", line 3\\n    x()\\nValueError: no \\"x\\"", "at": 1}',
        1,
        'ValueError: no \\"x\\"',
    ),
    "what pydantic refuses": (
        TRACEBACK + "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings\nport\n  Field required",
        1,
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings port",
    ),
    "a message that announces a list": (
        TRACEBACK + "psycopg.OperationalError: attempts failed. All failures were:\n- host: db: FATAL: too many clients",
        1,
        "psycopg.OperationalError: attempts failed. All failures were: - host: db: FATAL: too many clients",
    ),
    "no traceback": (
        "INFO  [alembic] Context impl PostgresqlImpl.\nFAILED: Multiple head revisions are present; see heads\nbye",
        1,
        "FAILED: Multiple head revisions are present; see heads",
    ),
    "a tool's own error behind a level": (
        "INFO: no errors so far\nERROR: Error loading ASGI app. Could not import module \"shop.main\".",
        1,
        'Error loading ASGI app. Could not import module "shop.main"',
    ),
    "of systemd": (
        "Starting...\nforge.socket: Failed to create listening socket (0.0.0.0:22): Address already in use\n"
        "forge.socket: Failed with result 'resources'.",
        1,
        "forge.socket: Failed to create listening socket (0.0.0.0:22): Address already in use",
    ),
    "nothing but consequences": (
        "[2026-11-26 19:00:01 +0000] [1] [INFO] Starting\n"
        "[2026-11-26 19:00:01 +0000] [1] [ERROR] Worker (pid:7) was sent SIGSEGV!\nMain process exited, code=exited",
        1,
        "Worker (pid:7) was sent SIGSEGV!",
    ),
    "no error at all": ("one\ntwo\n\n", 1, "two"),
    "nothing": ("", 1, ""),
    "a traceback that was cut": (TRACEBACK + "    and no end", 5, "and no end"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_first_cause_is_found(name: str) -> None:
    text, index, cause = CASES[name]
    assert first_cause(text.split("\n")) == (index, cause)


async def fails_in_tasks() -> None:
    async def fail() -> None:
        raise ValueError("of a task")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        group.create_task(asyncio.sleep(1))


def fails_in_a_chain() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("cannot be configured") from error


def fails_in_a_chain_of_groups() -> None:
    try:
        fails_in_a_chain()
    except RuntimeError as error:
        raise ExceptionGroup("of the start", [error, OSError("second")]) from None


@pytest.mark.parametrize(
    ("fail", "cause"),
    [
        (lambda: asyncio.run(fails_in_tasks()), "ValueError: of a task"),
        (fails_in_a_chain, "RuntimeError: cannot be configured"),
        (fails_in_a_chain_of_groups, "RuntimeError: cannot be configured"),
    ],
)
def test_what_python_prints_is_read(fail: Callable[[], None], cause: str) -> None:
    try:
        fail()
    except BaseException:
        lines = ["[INFO] starting", *traceback.format_exc().splitlines(), "[ERROR] Application startup failed."]
    assert first_cause(lines) == (1, cause)


def test_long_message_is_cut() -> None:
    assert len(first_cause(textwrap.dedent(TRACEBACK + "ValueError: " + "x" * 1000).split("\n"))[1]) == LONGEST + 3


@pytest.mark.parametrize(
    ("cause", "variable"),
    [
        ("psycopg.OperationalError: FATAL:  sorry, too many clients already", "forge_postgresql_max_connections"),
        ("FATAL: remaining connection slots are reserved for roles with SUPERUSER", "forge_worker_connections"),
        ("OSError: [Errno 30] Read-only file system: '/srv/x'", "forge_writable_paths"),
        ("PermissionError: [Errno 13] Permission denied: '/var/lib/x'", "forge_state_directories"),
        ("OSError: [Errno 98] Address already in use", "two generations"),
        ("ModuleNotFoundError: No module named 'x'", "dependencies"),
        ("Worker (pid:7) was sent SIGKILL! Perhaps out of memory?", "forge_memory_max_mb"),
    ],
)
def test_what_to_do_is_said_where_it_is_certain(cause: str, variable: str) -> None:
    assert variable in hint(cause)
    assert hint("ValueError: x") == ""


def test_problem_is_explained_in_one_sentence_and_the_output_is_shown_from_the_cause_on() -> None:
    lines = ["booting", *TRACEBACK.strip().split("\n"), "ModuleNotFoundError: No module named 'x'", *["after"] * SHOWN]
    sentence, shown = explain("Generation a exited (status 3)", lines)
    assert sentence.startswith("Generation a exited (status 3): ModuleNotFoundError: No module named 'x'. Is it among")
    assert shown[0] == "Traceback (most recent call last):"
    assert len(shown) == SHOWN
    assert explain("Generation a exited (status 3)", []) == ("Generation a exited (status 3).", [])


def test_the_last_word_of_a_program_is_the_cause_and_not_that_it_has_ended() -> None:
    lines = [
        "Started shop.worker.",
        "the queue is not there: broker",
        "shop.worker: Main process exited, status=1/FAILURE",
    ]
    sentence, shown = explain("Process worker exited (status 1)", lines)
    assert sentence == "Process worker exited (status 1): the queue is not there: broker."
    assert "the queue is not there: broker" in shown
    assert first_cause([lines[0], lines[2]])[0] == 1


# -- what build tools print -----------------------------------------------------------------------------

BACKEND = """\
Building wheel...
/x/setuptools/dist.py:5: SomeWarning: old license
running bdist_wheel
Traceback (most recent call last):
  File "<string>", line 11, in <module>
    backend.build()
    ^^^^^^^
hatchling.Missing: Readme file does not exist: README.md

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "x.py", line 1, in <module>
RuntimeError: it failed
"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (BACKEND, "hatchling.Missing: Readme file does not exist: README.md During"),
        (
            "gcc -c x.c\nx.c:1:10: fatal error: a.h: No such file or directory\n    1 | #include\n",
            "x.c:1:10: fatal error: a.h: No such",
        ),
        ("running build\nerror: Multiple top-level packages: ['a']\n", "error: Multiple top-level packages: ['a']"),
        (
            "Building wheel...\nCargo, the Rust package manager, is not installed.\nIt is needed.",
            "Cargo, the Rust package manager, is not",
        ),
        ("Building wheel...\nno compiler here\n", "no compiler here"),
        ("", ""),
    ],
)
def test_the_first_cause_of_a_build_comes_first(text: str, cause: str) -> None:
    assert tool_cause(text).startswith(cause)


def test_what_is_long_is_cut_at_its_end() -> None:
    said = tool_cause("word\n" * 99 + "error: " + "x " * 999)
    assert said.startswith("error: x x")
    assert len(said) <= 403
