# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment file: what a user writes is what the app's settings class reads."""

from __future__ import annotations

import json
import math
import os
import subprocess
from typing import Any
from unittest.mock import patch

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.environment import (
    UnwritableError,
    as_text,
    read_environment,
    write_environment,
)
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_settings import BaseSettings, SettingsConfigDict

NONCHARACTERS = [
    *range(0xFDD0, 0xFDF0),
    *(plane | low for plane in range(0, 0x110000, 0x10000) for low in (0xFFFE, 0xFFFF)),
]
CONTROLS = [code for code in (*range(0x20), 0x7F) if code not in (0x09, 0x0A)]
REFUSED = [chr(code) for code in (*CONTROLS, *NONCHARACTERS, 0xD800, 0xDFFF)]

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)
# Anything that may stand in an environment, with what means something to systemd, shells and JSON more often than by chance.
passed_on = st.characters(exclude_categories=["Cs"], exclude_characters=REFUSED)
texts = st.text(st.one_of(st.sampled_from("\"'\\`$#;%=\n\t {}[]~!&|<>*?é€🦀\u2028\u0085"), passed_on), max_size=40)


def as_systemd_reads(text: str) -> dict[str, str]:
    """systemd's parser for EnvironmentFile (src/basic/env-file.c, parse_env_file_internal), state by state."""
    found: dict[str, str] = {}
    state, key, value = "pre_key", "", ""
    key_end = value_end = -1  # where trailing whitespace begins
    for c in [*text, "\n"]:
        newline, whitespace = c in "\n\r", c in " \t\n\r"
        if state == "pre_key":
            if c in "#;":
                state = "comment"
            elif not whitespace:
                state, key, key_end = "key", c, -1
        elif state == "key":
            if newline:
                state = "pre_key"
            elif c == "=":
                state, value, value_end = "pre_value", "", -1
                key = key if key_end < 0 else key[:key_end]
            else:
                key_end = (len(key) if key_end < 0 else key_end) if whitespace else -1
                key += c
        elif state in ("pre_value", "value"):
            if newline:
                found[key] = value if state == "pre_value" or value_end < 0 else value[:value_end]
                state = "pre_key"
            elif c == "\\":
                state, value_end = "escape", -1
            elif state == "pre_value" and c in "'\"":
                state = "single" if c == "'" else "double"
            elif state == "value" or not whitespace:
                value_end = (len(value) if value_end < 0 else value_end) if whitespace else -1
                state, value = "value", value + c
        elif state == "escape":
            state, value = "value", value if newline else value + c
        elif state == "single":
            state, value = ("pre_value", value) if c == "'" else (state, value + c)
        elif state == "double":
            if c == '"':
                state = "pre_value"
            elif c == "\\":
                state = "double_escape"
            else:
                value += c
        elif state == "double_escape":
            state = "double"
            value += c if c in '"\\`$' else "" if c == "\n" else "\\" + c
        elif state == "comment":
            state = "comment_escape" if c == "\\" else "pre_key" if newline else state
        else:
            state = "comment"
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=b c \n", {"A": "b c"}),
        ("  A = b\n", {"A": "b"}),
        ("#A=b\n;A=c\n", {}),
        ("A='$x\\y'\n", {"A": "$x\\y"}),
        ('A="\\n\\$"\n', {"A": "\\n$"}),
        ("A=x\\\ny\n", {"A": "xy"}),
        ('A="b\nc"\nB=\n', {"A": "b\nc", "B": ""}),
    ],
)
def test_model_of_systemd_knows_its_rules(text: str, expected: dict[str, str]) -> None:
    assert as_systemd_reads(text) == expected


@given(st.dictionaries(names, texts, max_size=5))
@example({"A": "\\"})
@example({"A": '"\nB="x'})
@example({"A": "a\\\nb", "B": "\n"})
@example({"A": "$(reboot) `id` ${HOME} %i %%"})
def test_any_text_arrives_as_it_was(variables: dict[str, str]) -> None:
    written = write_environment(variables)
    assert as_systemd_reads(written) == variables
    assert read_environment(written) == variables


@given(st.dictionaries(names, texts, max_size=5))
def test_order_of_the_inventory_does_not_matter(variables: dict[str, str]) -> None:
    backwards = dict(reversed(variables.items()))
    assert write_environment(variables, "X_") == write_environment(backwards, "X_")


@pytest.mark.parametrize("bad", REFUSED, ids=lambda character: f"U+{ord(character):04X}")
def test_characters_that_systemd_drops_are_refused_without_the_value(bad: str) -> None:
    value = "s3cret" + bad + "s3cret"
    escaped_in_json = bad < "\x20"
    for form in [value] if escaped_in_json else [value, {"nested": [value]}, [{bad: 1}]]:
        with pytest.raises(UnwritableError) as caught:
            write_environment({"KEY": form}, "FORGE_")
        assert (
            str(caught.value) == f"FORGE_KEY contains the character U+{ord(bad):04X}, which systemd does not pass on."
        )


def test_form_of_the_file() -> None:
    variables = {"TAGS": ["a", 'b"'], "DEBUG": True, "ABSENT": "", "TEXT": "two\nlines, é", "OFF": False, "N": 5}
    assert write_environment(variables, "FORGE_") == (
        'FORGE_ABSENT=""\n'
        'FORGE_DEBUG="true"\n'
        'FORGE_N="5"\n'
        'FORGE_OFF="false"\n'
        'FORGE_TAGS="[\\"a\\", \\"b\\\\\\"\\"]"\n'
        'FORGE_TEXT="two\nlines, é"\n'
    )


@given(st.dictionaries(st.text("\0\x1b\r\na", max_size=4), st.text("\0\x1b\r\na", max_size=4), max_size=3))
def test_control_characters_within_json_are_escaped_and_so_arrive(value: dict[str, str]) -> None:
    assert json.loads(as_systemd_reads(write_environment({"A": value}))["A"]) == value


@pytest.mark.parametrize("name", ["", "1A", "A B", "A-B", "A=B", "Ä", "A\n", "A\nB", "\nA", "A#"])
def test_names_that_no_environment_holds_are_refused(name: str) -> None:
    with pytest.raises(UnwritableError, match="is not a name for an environment variable") as caught:
        write_environment({name: "s3cret"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("value", "why"), [(None, "has no value"), (object(), "must be"), ({1, 2}, "must be")])
def test_values_that_are_no_setting_are_refused(value: Any, why: str) -> None:
    with pytest.raises(UnwritableError, match=f"^FORGE_A {why}"):
        write_environment({"A": value}, "FORGE_")


class Pool(BaseModel):
    size: int
    overflow: int | None = None


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FORGE_")

    debug: bool
    port: int
    ratio: float
    name: str
    tags: list[str]
    limits: dict[str, int]
    pool: Pool
    anything: dict[str, Any]


integers = st.integers(-(2**63), 2**63)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), integers, st.floats(allow_nan=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)


@given(
    st.fixed_dictionaries(
        {
            "DEBUG": st.booleans(),
            "PORT": integers,
            "RATIO": st.floats(allow_nan=False),
            "NAME": texts,
            "TAGS": st.lists(texts, max_size=4),
            "LIMITS": st.dictionaries(texts, integers, max_size=4),
            "POOL": st.builds(
                lambda size, overflow: {"size": size, "overflow": overflow}, integers, st.none() | integers
            ),
            "ANYTHING": st.dictionaries(texts, json_values, max_size=3),
        }
    )
)
def test_pydantic_settings_reads_what_was_written(variables: dict[str, Any]) -> None:
    arrives = as_systemd_reads(write_environment(variables, "FORGE_"))
    with patch.dict(os.environ, arrives):
        read = Settings()  # type: ignore[call-arg]
    assert read.model_dump() == {name.lower(): value for name, value in variables.items()}


@pytest.mark.parametrize("text", ["true", "1", "0x1f", "null", "[1]", '{"a": 1}', '"quoted"', " padded ", ""])
def test_a_string_that_looks_like_something_else_stays_a_string(text: str) -> None:
    class OneName(BaseSettings):
        model_config = SettingsConfigDict(env_prefix="FORGE_")
        name: str

    with patch.dict(os.environ, as_systemd_reads(write_environment({"NAME": text}, "FORGE_"))):
        assert OneName().name == text  # type: ignore[call-arg]


def test_not_a_number_is_passed_on() -> None:
    assert math.isnan(float(as_text("A", float("nan"))))


@pytest.mark.parametrize("name", [False, True, None, 8080, 1.5])
def test_a_name_that_yaml_reads_as_something_else_is_said(name: Any) -> None:
    with pytest.raises(UnwritableError, match=rf"^a name is {name}, which is how YAML reads .*: put it in quotes\.$"):
        write_environment({name: "x", "A": "1"}, "FORGE_")


def test_a_value_that_no_process_can_be_given_is_named_without_it() -> None:
    """The limit is Linux's own: asked here."""
    room = (128 << 10) - len("FORGE_KEY=") - 1
    fits = as_systemd_reads(write_environment({"KEY": "k" * room}, "FORGE_"))
    assert subprocess.run(["/bin/true"], env=fits, check=True).returncode == 0
    with pytest.raises(OSError, match="Argument list too long"):
        subprocess.run(["/bin/true"], env={"FORGE_KEY": "k" * (room + 1)}, check=True)
    with pytest.raises(UnwritableError, match=r"^FORGE_KEY has 131073 bytes, .* can have 131072: .*forge_files\.$"):
        write_environment({"KEY": "k" * (room + 1), "A": "1"}, "FORGE_")
    with pytest.raises(UnwritableError, match=r"^all variables together have \d+ bytes, .* FORGE_B, as a file"):
        write_environment({**{f"A{number}": "k" * 99_999 for number in range(20)}, "B": "k" * 100_009}, "FORGE_")
