# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of an environment do not get into what is shown."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.masking import (
    MASK,
    SHORTEST_SECRET,
    mask,
    secrets_below,
    secrets_of,
)
from hypothesis import given
from hypothesis import strategies as st

passwords = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=SHORTEST_SECRET, max_size=30)


@given(passwords)
def test_password_of_a_url_is_masked_as_written_and_as_meant(password: str) -> None:
    encoded = quote(password, safe="")
    secrets = secrets_of({"FORGE_DATABASE_URL": f"postgresql://user:{encoded}@db.example.org:5432/name"})
    for shown in (password, encoded, f"postgresql+asyncpg://user:{encoded}@other/name"):
        hidden = mask(f"<connecting with {shown} failed>", secrets)
        assert password not in hidden.replace(MASK, "")
        assert MASK in hidden


@pytest.mark.parametrize(
    "name",
    [
        "SECRET_KEY",
        "db_password",
        "Passwd",
        "API_TOKEN",
        "SENTRY_DSN",
        "AWS_CREDENTIALS",
        "PRIVATE_PEM",
        "SALT",
        "OAUTH",
    ],
)
def test_value_with_the_name_of_a_secret_is_masked(name: str) -> None:
    assert mask("is it hunter22?", secrets_of({name: "hunter22"})) == f"is it {MASK}?"


def test_value_with_another_name_is_shown() -> None:
    environment = {"LOG_LEVEL": "warning", "HOMEPAGE": "https://example.org/path", "BROKEN": "http://[::1"}
    assert secrets_of(environment) == []


@pytest.mark.parametrize("value", ["1", "true", "8000", "short"])
def test_short_value_is_left_alone(value: str) -> None:
    assert secrets_of({"SECRET_KEY": value}) == []


def test_secret_that_contains_another_is_masked_whole() -> None:
    secrets = secrets_of({"A_TOKEN": "abcdefgh", "B_TOKEN": "xx-abcdefgh-yy"})
    assert mask("xx-abcdefgh-yy, abcdefgh", secrets) == f"{MASK}, {MASK}"


def test_every_line_of_a_secret_is_masked_alone() -> None:
    key = "-----BEGIN KEY-----\n  bGluZS1vbmU=\n  bGluZS10d28=\n-----END KEY-----\n"
    shown = mask("bGluZS10d28= and " + key, secrets_of({"PRIVATE_KEY": key}))
    assert "bGluZS" not in shown


def test_secrets_inside_of_json_are_masked() -> None:
    text = """{"smtp": {"host": "mail.example.org", "password": "say \\"hunter2\\" now"},
               "replicas": ["postgresql://u:s3cret-one@a/d", "postgresql://u:s3cret%40two@b/d"],
               "auth": {"users": ["ann-ann-ann"]}}"""
    secrets = secrets_of({"FORGE_SERVICES": text})
    for shown in (text, 'say "hunter2" now', "s3cret-one", "s3cret@two", "ann-ann-ann"):
        hidden = mask(f"<{shown}>", secrets)
        assert MASK in hidden
        assert not [word for word in ("hunter2", "s3cret", "ann-ann") if word in hidden]
    assert "mail.example.org" in mask(text, secrets)


@pytest.mark.parametrize("value", ["{", "[1, 2", "{'single': 'quotes'}", "[" * 100_000, "[1, null]"])
def test_what_only_looks_like_json_is_text(value: str) -> None:
    assert secrets_of({"LIST": value}) == []


@given(
    st.dictionaries(st.sampled_from(["A_KEY", "B_TOKEN", "C_PASSWORD"]), passwords, max_size=3), st.text(max_size=20)
)
def test_no_secret_is_left_in_a_text(environment: dict[str, str], around: str) -> None:
    secrets = secrets_of(environment)
    shown = mask(around + " ".join(environment.values()) + around, secrets)
    assert not [secret for secret in environment.values() if secret in shown and secret not in MASK]


@pytest.mark.parametrize(
    "text",
    [
        '[mail]\npassword = "hush-hush-1"  # of the server\nport = 2525\nhost = "mail.example.org"\n',
        "mail:\n  port: 2525\n  host: mail.example.org\n  password: hush-hush-1\n",
        "mail:\n  tokens:\n    - hush-hush-1\n  host: mail.example.org\n",
        '{"mail": {"host": "mail.example.org", "secret": {"first": "hush-hush-1"}}}',
        "[secrets]\nfirst = hush-hush-1\n[mail]\nhost = mail.example.org\n",
        "url = 'smtp://me:hush-hush-1@mail.example.org'\nhost = 'mail.example.org'\n",
        'api_key = """\nhush-hush-1\n"""\n[mail]\nhost = "mail.example.org"\n',
    ],
)
def test_secrets_of_a_settings_file_are_masked_and_nothing_else(text: str, tmp_path: Path) -> None:
    (tmp_path / "files" / "deep").mkdir(parents=True)
    (tmp_path / "files" / "deep" / "settings").write_text(text)
    (tmp_path / "environment").write_text('FORGE_API_TOKEN="another-one"\n')
    shown = mask("hush-hush-1 and another-one at mail.example.org:2525", secrets_below(str(tmp_path)))
    assert shown == f"{MASK} and {MASK} at mail.example.org:2525"


@given(st.text())
def test_a_settings_file_of_any_text_is_read(text: str) -> None:
    secrets_of({}, [text])
