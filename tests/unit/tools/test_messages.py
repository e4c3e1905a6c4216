# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/messages finds what a user can meet, however the code says it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import scripts


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return scripts.load("messages")


@pytest.mark.parametrize(
    ("code", "template"),
    [
        ('raise BuildError("There is no wheel.")', "There is no wheel."),
        ('raise BuildError(f"There is no {name}.") from None', "There is no …."),
        ('raise BuildError(f"{a} {b} is not here")', "… is not here"),
        ('raise BuildError("Set it" if known else f"Name {it} here")', "Name … here"),
        ('raise errors.BuildError("One " + what + " is not here")', "One … is not here"),
        ('module.fail_json(msg=f"No space below {home}.", changed=True)', "No space below …."),
        ('self._display.warning("It could not be read")', "It could not be read"),
        ('problems.append(f"{name} must start with a slash.")', "… must start with a slash."),
        ('problems += [f"{name} must not be negative." for name in names]', "… must not be negative."),
        ('TEXT = "{server} can neither stand by nor drain."', "… can neither stand by nor drain."),
    ],
)
def test_a_message_is_found(tool: ModuleType, code: str, template: str) -> None:
    assert template in tool.of_code(code)


@pytest.mark.parametrize(
    "code",
    [
        '"""A docstring that reads as a sentence."""',
        'def f():\n    """A docstring that reads as a sentence."""',
        'DOCUMENTATION = "A module that does one thing well."',
        "raise BuildError(str(error))",
        'raise BuildError(f"{error}")',
        'name = f"{app}@{generation}.service"',
    ],
)
def test_what_is_no_message_is_left_out(tool: ModuleType, code: str) -> None:
    assert tool.of_code(code) == {}


def test_tasks_that_fail_are_found(tool: ModuleType) -> None:
    tasks = """
- block:
    - ansible.builtin.assert: {that: ok, fail_msg: "{{ host }} lacks {{ names | join(', ') }}: run site."}
  rescue:
    - ansible.builtin.fail: {msg: The release stopped.}
    - ansible.builtin.fail: {msg: "{{ reason }}"}
"""
    assert tool.of_tasks(tasks) == ["… lacks …: run site.", "The release stopped."]


def test_text_blocks_of_the_page_are_its_entries(tool: ModuleType) -> None:
    page = "# Messages\n\nDo this:\n\n```text\nOne is wrong.\n… is wrong.\n```\n\n```console\n$ ls\n```\n"
    assert tool.documented(page) == ["One is wrong.", "… is wrong."]


def test_the_collection_says_many_things(tool: ModuleType) -> None:
    assert len(tool.messages(scripts.TOOLS.parent)) > 100


def test_the_page_has_every_message_and_no_other(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    tool.main(check=True)
    assert capsys.readouterr().out == ""


def test_what_the_page_lacks_or_has_in_vain_is_named(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "page.md").write_text("```text\nNobody says this.\nOne is wrong.\nOne is wrong.\n```\n")
    monkeypatch.setattr(tool, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(tool, "messages", lambda _: {"One is wrong.": ["a.py:1"], "Two is wrong.": ["b.py:2"]})
    assert tool.main(check=True) == 1
    assert capsys.readouterr().out.splitlines() == [
        "no entry in docs/messages.md: Two is wrong.   (b.py:2)",
        "docs/messages.md has what nothing says: Nobody says this.",
        "docs/messages.md has it twice: One is wrong.",
    ]
