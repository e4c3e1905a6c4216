# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any string survives the way from the inventory through systemd into the process, and into pydantic-settings."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Fleet
from pydantic_settings import BaseSettings, SettingsConfigDict

HOSTILE = [
    "", " ", "  leading and trailing  ", "\t", "\n", "line\nbreak\n", "ends with a newline\n", "'", '"', "''", '""',
    "it's", 'say "hi"', "$HOME", "${HOME}", "$$", "%i", "%%", "%h %n", "\\", "\\\\", "\\n", "ends with \\", "\\\n",
    "# no comment", "; neither", "a=b", "=", "`id`", "$(id)", "a;b", "a&b|c<d>e", "*", "?", "~", "!", "{{ braces }}",
    "{% raw %}", "ümläut", "日本語", "🦊", "\u2028", "\xa0", "e\u0301", "[1, 2]", "null", "true", "0", "-", "--flag",
    "postgresql://u:p%40ss@h/d?x=1&y=$2", "x" * 5000, "-----BEGIN KEY-----\nabc\n-----END KEY-----\n",
]  # fmt: skip
ALPHABET = "ab \t\n'\"\\$%#;=`{}[]()<>|&*?~!:,./@^-_äß€😀\x80"


def random_strings(count: int, seed: int) -> list[str]:
    source = random.Random(seed)
    return ["".join(source.choice(ALPHABET) for _ in range(source.randrange(1, 40))) for _ in range(count)]


class Typed(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FORGE_")
    flag: bool
    off: bool
    number: int
    ratio: float
    names: list[str]
    table: dict[str, Any]


def test_values_arrive_as_they_were(
    fleet: Fleet, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seed = int(os.environ.get("FORGE_TEST_SEED", random.randrange(10**6)))
    print(f"seed {seed}")  # shown when the test fails; FORGE_TEST_SEED repeats it
    strings = HOSTILE + random_strings(150, seed)
    typed = {
        "FLAG": True,
        "OFF": False,
        "NUMBER": -7,
        "RATIO": 0.25,
        "NAMES": ["a,b", 'c"d'],
        "TABLE": {"k": [1, None]},
    }
    settings = {f"T{index}": value for index, value in enumerate(strings)}
    base = {
        "DATABASE_URL": "{{ forge_database_url }}",
        "SECRET_KEY": "{{ lookup('ansible.builtin.password', inventory_dir ~ '/secrets/secret-key', length=48) }}",
    }
    request.addfinalizer(lambda: fleet.play("deploy", limit="app12"))
    variables = variables_file(tmp_path, {**base, **typed}, settings)
    run = fleet.play("deploy", limit="app12", flags=("--diff", "-v", "--extra-vars", f"@{variables}"))

    seen = fleet.get("app12", "/misbehave/environment").json()
    wrong = {value: seen.get(f"FORGE_T{i}") for i, value in enumerate(strings) if seen.get(f"FORGE_T{i}") != value}
    assert not wrong
    for name in typed:
        monkeypatch.setenv(f"FORGE_{name}", seen[f"FORGE_{name}"])
    read = Typed()  # type: ignore[call-arg]
    assert (read.flag, read.off, read.number, read.ratio) == (True, False, -7, 0.25)
    assert (read.names, read.table) == (["a,b", 'c"d'], {"k": [1, None]})
    assert "BEGIN KEY" not in run.output
    assert "日本語" not in run.output
    assert (
        fleet.on("app12", f"stat -c '%a %U %G' /srv/forge/generations/{fleet.live('app12')}/environment")
        == "640 root forge"
    )


class Unsafe(str):
    """A string that Ansible must not read as a template."""


class Dumper(yaml.SafeDumper):
    pass


Dumper.add_representer(Unsafe, lambda dumper, value: dumper.represent_scalar("!unsafe", str(value), style='"'))


def variables_file(directory: Path, plain: dict[str, Any], unsafe: dict[str, str]) -> Path:
    marks = ("{{", "{%", "{#")
    values = {
        **plain,
        **{name: Unsafe(text) if any(m in text for m in marks) else text for name, text in unsafe.items()},
    }
    path = directory / "variables.yml"
    path.write_text(yaml.dump({"forge_environment": values}, Dumper=Dumper, allow_unicode=False), encoding="utf-8")
    return path
