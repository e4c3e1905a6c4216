# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user can get wrong in an inventory, each in a sentence."""

from __future__ import annotations

import datetime
from typing import Any
from urllib.parse import quote

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.inventory.rules import (
    COMMANDS,
    RESULT,
    RULES,
    RULES_FOR_ENTRIES,
    TEXTS,
    database_url_problem,
    declared_options,
    wrong_names,
    wrong_settings,
    wrong_types,
    wrong_values,
)
from hypothesis import given
from hypothesis import strategies as st

SECRET = "hunter22-hunter22"


def test_every_roles_variables_are_declared() -> None:
    options = declared_options()
    assert {"forge_app", "forge_workers", "forge_environment", "forge_health_path", "forge_source"} <= set(options)
    assert all(name.startswith("forge_") for name in options)
    assert all("type" in option for option in options.values())


@pytest.mark.parametrize(
    "name",
    ["forge_host_facts", "forge_build_result", "forge_rollout_target", "forge_rollout_result", "forge_status_result"],
)
def test_results_of_roles_are_known_as_such(name: str) -> None:
    assert RESULT.match(name)


def test_what_a_user_sets_is_no_result() -> None:
    results = {name for name in declared_options() if RESULT.match(name)}
    assert all(declared_options()[name]["type"] == "dict" for name in results)
    assert not RESULT.match("forge_status_file")
    assert not RESULT.match("forge_environment")


WRONG: dict[str, Any] = {
    "nothing": None,
    "truth": True,
    "date": datetime.date(2026, 1, 1),
    "bytes": SECRET.encode(),
    "infinity": float("inf"),
    "a number that no machine has": 10**30,
    "line break": f"{SECRET}\nb",
    "no character": f"{SECRET}\0",
    "half a character": f"{SECRET}\ud800",
    "long": SECRET * 10_000,
    "text": SECRET + " 日本\u0301🦊",
    "list of nothing": [None],
    "list of an empty text": [""],
    "list of lists": [[SECRET]],
    "list of mappings": [{"name": [SECRET], "path": {"a": SECRET}, "status": SECRET}],
    "list of long": [SECRET * 10_000],
    "mapping": {"x y": {"command": [SECRET]}, "a": {"command": "x", "count": {}, "stop_seconds": None}},
    "mapping of nothing": {None: None, 1: {}},
}
# What a few kinds of variable take: any text, a truth, settings of the app, and what roles hand on.
RIGHT = {
    "truth": lambda spec, name: spec["type"] == "bool",
    "text": lambda spec, name: spec["type"] == "str",
    "line break": lambda spec, name: name in COMMANDS + TEXTS,
    "mapping": lambda spec, name: name.startswith("forge_environment"),
    "list of lists": lambda spec, name: name == "forge_rollout_waves",
}


def problems_of(values: dict[str, Any]) -> list[str]:
    """As preflight puts them together."""
    return wrong_types(values) or [
        *wrong_values(values),
        *wrong_settings(values.get("forge_environment", {}), "FORGE_"),
        *wrong_settings(values.get("forge_environment_plain", {}), "", "forge_environment_plain"),
        *wrong_names(values),
    ]


@pytest.mark.parametrize("kind", WRONG)
def test_whatever_a_variable_is_set_to_the_answer_is_a_sentence_that_names_it(kind: str) -> None:
    for name, spec in declared_options().items():
        if RESULT.match(name):
            continue
        problems = problems_of({name: WRONG[kind]})
        assert problems or RIGHT.get(kind, lambda *_: False)(spec, name), name
        for problem in problems:
            assert name in problem
            assert SECRET not in problem
            assert "\n" not in problem
            assert len(problem) < 300


def test_every_rule_is_for_a_variable_that_is_declared() -> None:
    named = {name for rule in (*RULES, *RULES_FOR_ENTRIES) for name in rule.names.split()}
    assert named <= set(declared_options())


def test_defaults_of_the_roles_are_right() -> None:
    defaults = {name: option["default"] for name, option in declared_options().items()}
    assert wrong_types(defaults) == []
    assert wrong_values(defaults) == []
    assert wrong_names(defaults) == []


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("forge_workers", SECRET, "int"),
        ("forge_workers", [SECRET], "int"),
        ("forge_workers", 1.5, "int"),
        ("forge_access_log", SECRET, "bool"),
        ("forge_environment", SECRET, "dict"),
        ("forge_environment", f"A={SECRET}", "dict"),
        ("forge_environment", [SECRET], "dict"),
        ("forge_listen", SECRET, "list of str"),
        ("forge_listen", 8000, "list of str"),
        ("forge_listen", {SECRET: 1}, "list of str"),
        ("forge_smoke", [SECRET], "list of dict"),
        ("forge_workers_policy", SECRET, "str, one of balanced, documented, per_cpu"),
        ("forge_workers", None, "int"),
        ("forge_source", None, "str"),
    ],
)
def test_wrong_type_is_said_without_the_value(name: str, value: Any, kind: str) -> None:
    assert wrong_types({name: value}) == [f"{name} must be of type {kind}."]


@pytest.mark.parametrize(
    "values",
    [
        {"forge_workers": 4, "forge_access_log": False, "forge_listen": ["8000"], "forge_environment": {"A": [1]}},
        {"forge_workers": "4", "forge_access_log": "false"},  # the command line: -e forge_workers=4
        {"forge_environment": {}, "forge_listen": [8000], "forge_source": "/x"},
    ],
)
def test_right_types_pass(values: dict[str, Any]) -> None:
    assert wrong_types(values) == []


@pytest.mark.parametrize(
    "address", ["8000", "127.0.0.1:80", "0.0.0.0:65535", "[::]:8000", "[2001:db8::7]:1", "/run/x.sock"]
)
def test_address_to_listen_on(address: str) -> None:
    assert wrong_values({"forge_listen": [address]}) == []


@pytest.mark.parametrize(
    "address",
    ["", "web1:8000", "0.0.0.0", "0", "65536", "127.0.0.1:0", ":8000", "::1:8000", "[::1]", "run/x.sock", "/run/a b", "80\n",
     "8000;", "/run/%x.sock", "unix:/run/x.sock", "http://0.0.0.0:80"],
)  # fmt: skip
def test_address_that_nobody_can_listen_on(address: str) -> None:
    problems = wrong_values({"forge_listen": ["8000", address]})
    assert problems == [f"forge_listen: {address!r} must be address:port, a port, or the path of a unix socket."]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"forge_listen": []}, "forge_listen must name at least one address."),
        ({"forge_root": "srv"}, "forge_root must be an absolute path"),
        ({"forge_root": "/srv/my apps"}, "forge_root must be an absolute path"),
        ({"forge_root": "/srv/50%"}, "forge_root must be an absolute path"),
        ({"forge_root": "/"}, "forge_root must be an absolute path"),
        ({"forge_timeout": 0}, "forge_timeout must be more than 0."),
        ({"forge_health_deadline": "-1"}, "forge_health_deadline must be more than 0."),
        ({"forge_workers": -1}, "forge_workers must not be negative."),
        ({"forge_waves": [1, "50%"]}, "forge_waves must end with 100%, or some hosts would never get the release."),
        ({"forge_waves": []}, "forge_waves must end with 100%, or some hosts would never get the release."),
        (
            {"forge_waves": ["some", "100%"]},
            "forge_waves: 'some' must be a number of hosts, or a percentage of them such as 50%.",
        ),
        (
            {"forge_waves": [0, "100%"]},
            "forge_waves: 0 must be a number of hosts, or a percentage of them such as 50%.",
        ),
        ({"forge_batch": "all"}, "forge_batch must be a number of hosts, or a percentage of them such as 50%."),
        ({"forge_wave_pause": -1}, "forge_wave_pause must not be negative."),
        ({"forge_wave_check": "'open"}, 'forge_wave_check: "\'open" is no command: no closing quotation.'),
        ({"forge_watch_seconds": -1}, "forge_watch_seconds must not be negative."),
        ({"forge_health_path": "healthz"}, "forge_health_path must start with a slash."),
        (
            {"forge_smoke": [{"path": "/"}, {"status": 200}]},
            "forge_smoke: each request must have a path that starts with",
        ),
        ({"forge_smoke": [{"path": "orders"}]}, "forge_smoke: each request must have a path that starts with a slash."),
        ({"forge_smoke_command": "check 'x"}, 'forge_smoke_command: "check \'x" is no command: no closing quotation.'),
        ({"forge_migrations": ["alembic upgrade head", ""]}, "forge_migrations: '' is no command: it is empty."),
    ],
)
def test_value_that_cannot_work(values: dict[str, Any], sentence: str) -> None:
    problems = wrong_values(values)
    assert len(problems) == 1
    assert problems[0].startswith(sentence)


@pytest.mark.parametrize("root", ["/srv", "/srv/", "/opt/my_apps-2/x.y"])
def test_root(root: str) -> None:
    assert wrong_values({"forge_root": root}) == []


@pytest.mark.parametrize("name", ["forge", "shop-2", "a", "a" * 31])
def test_name_of_an_app(name: str) -> None:
    assert wrong_values({"forge_app": name}) == []


@pytest.mark.parametrize("name", ["", "Forge", "2shop", "-a", "a_b", "a b", "../a", "a@b", "a" * 32, "forge\n", "ä"])
def test_name_that_no_unit_or_directory_can_have(name: str) -> None:
    assert wrong_values({"forge_app": name})[0].startswith("forge_app must be lower-case letters")


@pytest.mark.parametrize("variable", ["forge_user", "forge_group"])
@pytest.mark.parametrize("name", ["", "root", "For ge", "1a", "a" * 33, "forge\n", "a:b", "$(id)"])
def test_account_that_an_app_must_not_have(variable: str, name: str) -> None:
    assert wrong_values({variable: name}) == [f"{variable} must be the name of a system account, and not root."]


@pytest.mark.parametrize("target", ["main:app", "shop.main:app", "shop.main:create()", "a.b_c:d.e"])
def test_target(target: str) -> None:
    assert wrong_values({"forge_target": target}) == []


@pytest.mark.parametrize(
    "target", ["", "main", "main:", ":app", "main.py:app:x", "a/b:app", "a b:app", "main:app(1)", "main:app\n"]
)
def test_target_of_the_wrong_form(target: str) -> None:
    assert wrong_values({"forge_target": target}) == ["forge_target must have the form package.module:app."]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "is empty"),
        ("", "is empty"),
        (5432, "is empty"),
        ("db.example.org/shop", "it must start with a scheme"),
        ("postgresql:shop", "it must start with a scheme"),
        ("://host/shop", "it must start with a scheme"),
        ("postgresql://user:pass@db.example.org", "names no database"),
        ("postgresql://user:pass@db.example.org/", "names no database"),
        ("postgresql://user:p#ss@db.example.org/shop", "is not a URL"),
        ("postgresql://user:pass@db.example.org:port/shop", "is not a URL"),
        ("postgresql://user:pass@db.example.org:99999/shop", "is not a URL"),
        ("postgresql://user:pa[ss@db.example.org/shop", "is not a URL"),
    ],
)
def test_database_url_of_the_wrong_form(value: Any, problem: str) -> None:
    assert problem in database_url_problem(value)
    problems = wrong_settings({"DATABASE_URL": value}, "FORGE_")
    assert any(sentence.startswith("forge_environment: FORGE_DATABASE_URL ") for sentence in problems)
    assert not any("pass" in sentence.replace("password", "") for sentence in problems)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_database_url_with_any_escaped_password_is_right(password: str) -> None:
    assert database_url_problem(f"postgresql+asyncpg://user:{quote(password, safe='')}@[::1]:5432/shop") == ""


def test_database_in_a_file_needs_no_host() -> None:
    assert database_url_problem("sqlite:///shop.db") == ""
    assert database_url_problem("sqlite+aiosqlite://") == ""


def test_every_setting_that_cannot_be_written_is_named_without_its_value() -> None:
    settings = {"A KEY": SECRET, "NOTHING": None, "BELL": f"{SECRET}\a", "RIGHT": SECRET, "ODD": {"a", SECRET}}
    problems = wrong_settings(settings, "FORGE_")
    assert len(problems) == 4
    assert [name in sentence for name, sentence in zip(["A KEY", "NOTHING", "BELL", "ODD"], problems, strict=True)] == [
        True
    ] * 4
    assert all(sentence.startswith("forge_environment: ") for sentence in problems)
    assert SECRET not in " ".join(problems)


def made_in(*paths: str) -> dict[str, Any]:
    return {"forge_release_commands": ["make"], "forge_release_paths": list(paths)}


def process(**settings: Any) -> dict[str, Any]:
    return {"forge_processes": {"worker": {"command": "celery worker", **settings}}}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({False: "x"}, "forge_environment: a name is False, which is how YAML reads NO, ON"),
        ({"KEY": SECRET * 20_000}, "forge_environment: FORGE_KEY has "),
        ({f"A{number}": SECRET * 6_000 for number in range(30)}, "forge_environment: all variables together have "),
    ],
)
def test_settings_that_no_process_can_be_given_are_named(settings: dict[Any, Any], sentence: str) -> None:
    (problem,) = wrong_settings(settings, "FORGE_")
    assert problem.startswith(sentence)
    assert SECRET not in problem


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"forge_worker_class": "ShopWorker"}, "forge_worker_class must have the form package.module.Class."),
        (
            {"forge_worker_class": "shop.W", "forge_server": "uvicorn"},
            "forge_worker_class is for forge_server: gunicorn, not for uvicorn",
        ),
        ({"forge_server": "uvicorn", "forge_workers": 2}, "forge_server: uvicorn is one process"),
        (
            {"forge_listen": ["0.0.0.0:8000", "[::1]:80", "127.0.0.1:8000"]},
            "forge_listen: 0.0.0.0:8000 and 127.0.0.1:8000 are the same or overlap: leave out one of them.",
        ),
        ({"forge_listen": ["8000", "[::1]:8000"]}, "forge_listen: 8000 and [::1]:8000 are the same or overlap"),
        ({"forge_directory": "../other"}, "forge_directory must be a path inside the release"),
        ({"forge_directory": "/srv"}, "forge_directory must be a path inside the release"),
        ({"forge_directory": "a b"}, "forge_directory must be a path inside the release"),
        ({"forge_state_directories": ["/var/lib/x"]}, "'/var/lib/x' must be a path below /var/lib"),
        ({"forge_state_directories": ["."]}, "'.' must be a path below /var/lib"),
        ({"forge_cache_directories": ["a/../b"]}, "'a/../b' must be a path below /var/cache"),
        ({"forge_writable_paths": ["data"]}, "forge_writable_paths: 'data' must be an absolute path"),
        ({"forge_sandbox": {"User": "root"}}, "forge_sandbox: User is none of the directives that it may have"),
        ({"forge_sandbox": {"UMask": 23}}, "forge_sandbox: UMask must be true, false, a text in quotes"),
        ({"forge_sandbox": {"ProtectHome": "yes\nUser=root"}}, "forge_sandbox: ProtectHome must be true, false"),
        ({"forge_sandbox": {"InaccessiblePaths": ["/a", "/b\\"]}}, "InaccessiblePaths must be true, false"),
        ({"forge_processes": {"a.b": {"command": "x"}}}, "forge_processes: a.b: its name must be"),
        ({"forge_processes": {"worker": "celery"}}, "forge_processes: worker: it must have a command."),
        (process(command=""), "forge_processes: worker: it must have a command."),
        (process(command="a 'b"), "is no command: no closing quotation"),
        (process(command="a\nUser=root"), "is no command: it has a line break"),
        (process(schedule="daily\nUser=root"), "is no schedule"),
        (process(stop_seconds=0), "stop_seconds must be a number of at least 1"),
        (process(count="many"), "count must be a number of at least 1"),
        (process(count=2, schedule="daily"), "a command with a schedule runs once at a time"),
        (process(user="root"), "user is none of command, count, on_failure, once, schedule, stop_seconds"),
        (process(once="yes"), "once must be true or false"),
        (process(once=True, count=2), "once is for one process in the fleet: leave out count"),
        (process(on_failure="mail root"), "on_failure is for a command with a schedule"),
        (process(schedule="daily", on_failure=["x"]), "on_failure must be an address"),
        (process(schedule="daily", on_failure="a\nb"), "on_failure must be an address"),
        (process(schedule="daily", on_failure="ftp://x/y"), "on_failure is no address: it must look like https://"),
        (process(schedule="daily", on_failure="https://"), "on_failure is no address: it must look like https://"),
        (process(schedule="daily", on_failure="mail 'x"), "on_failure is no command: no closing quotation"),
        ({"forge_build_commands": ["npm 'ci"]}, 'forge_build_commands: "npm \'ci" is no command: no closing quotation'),
        ({"forge_release_commands": [" "]}, "forge_release_commands: ' ' is no command: it is empty."),
        (made_in("/srv/static"), "forge_release_paths: '/srv/static' must be the path of a directory in the release"),
        (made_in("a/../../b"), "forge_release_paths: 'a/../../b' must be the path of a directory in the release"),
        (made_in("."), "forge_release_paths: '.' must be the path of a directory in the release"),
        (made_in("static/."), "forge_release_paths: 'static/.' must be the path of a directory in the release"),
        (made_in(".installed"), "forge_release_paths: '.installed' must be the path of a directory in the release"),
        (made_in("a:b"), "forge_release_paths: 'a:b' must be the path of a directory in the release"),
        (made_in("static", "static"), "forge_release_paths: static and static are the same or one lies in the other"),
        (made_in("a/b", "a-b", "a"), "forge_release_paths: a and a/b are the same or one lies in the other"),
        (
            {"forge_release_paths": ["static"]},
            "forge_release_paths is what forge_release_commands write: give these too",
        ),
        ({"forge_seeds": [" "]}, "forge_seeds: ' ' is no command: it is empty."),
    ],
)
def test_what_cannot_run_is_said(values: dict[str, Any], sentence: str) -> None:
    assert sentence in " ".join(wrong_values(values))


def test_what_can_run_is_let_through() -> None:
    values = {
        "forge_server": "uvicorn",
        "forge_directory": "src/shop",
        **made_in("static", "static2", "frontend/dist/.vite"),
        "forge_state_directories": ["shop", "shop/uploads"],
        "forge_cache_directories": ["shop"],
        "forge_writable_paths": ["/mnt/data"],
        "forge_sandbox": {
            "PrivateUsers": False,
            "CapabilityBoundingSet": "",
            "SystemCallFilter": ["@system-service", "~@resources"],
        },
        "forge_processes": {
            "worker": {"command": "celery -A shop worker", "count": 3, "stop_seconds": 300},
            "nightly": {"command": "report --all", "schedule": "Mon..Fri *-*-* 02:30:00 Europe/Berlin"},
            "report": {
                "command": "report",
                "schedule": "daily",
                "once": True,
                "on_failure": "https://hooks.example.com/${SHOP_TOKEN}",
            },
            "beat": {"command": "celery beat", "once": True},
        },
        "forge_seeds": ["seed"],
    }
    assert wrong_values(values) == []
    assert wrong_values({"forge_worker_class": "shop.worker.ShopWorker"}) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"forge_environment": {"RELEASE": "1"}}, "forge_environment: FORGE_RELEASE is set by the service itself"),
        (
            {"forge_environment": {"GENERATION": "1"}, "forge_environment_prefix": ""},
            "forge_environment: GENERATION is set by the service itself",
        ),
        ({"forge_environment": {"WORKER_STATE": "1"}}, "FORGE_WORKER_STATE is set by the service itself"),
        ({"forge_environment_plain": {"PYTHONPATH": "1"}}, "forge_environment_plain: PYTHONPATH is set by"),
        (
            {"forge_environment": {"A": "1"}, "forge_environment_plain": {"FORGE_A": "2"}},
            "FORGE_A is given twice, in forge_environment and in forge_environment_plain: leave out one.",
        ),
        (
            {
                "forge_environment_plain": {"SHOP_CONFIG": "1"},
                "forge_files": [{"name": "a", "content": "", "variable": "SHOP_CONFIG"}],
            },
            "SHOP_CONFIG is given twice, in forge_environment_plain and in forge_files",
        ),
        ({"forge_files": [{"name": "../a", "content": ""}]}, "forge_files: '../a' must be the name of a file"),
        ({"forge_files": [{"name": "..", "content": ""}]}, "forge_files: '..' must be the name of a file"),
        ({"forge_files": [{"name": "..env", "content": ""}]}, "forge_files: '..env' must be the name of a file"),
        ({"forge_files": [{"content": ""}]}, "forge_files: '' must be the name of a file"),
        ({"forge_files": [{"name": "a", "content": ""}] * 2}, "forge_files: a is given twice"),
        ({"forge_files": [{"name": "a"}]}, "forge_files: the content of a has no value"),
        ({"forge_files": [{"name": "a", "content": "", "mode": 1}]}, "forge_files: a: mode is none of content"),
        ({"forge_files": [{"name": "a", "content": "", "variable": "A B"}]}, "variable must be letters"),
    ],
)
def test_names_that_meet_are_said(values: dict[str, Any], sentence: str) -> None:
    assert sentence in " ".join(wrong_names(values))


def test_names_that_do_not_meet_are_let_through() -> None:
    values = {
        "forge_environment": {"A": "1", "RELEASE_NOTES": "x"},
        "forge_environment_plain": {"A": "2", "HOME": "/tmp", "LOG_LEVEL": "info"},
        "forge_files": [
            {"name": "settings.toml", "content": "a = 1", "variable": "SHOP_CONFIG"},
            {"name": ".env", "content": "A=1", "variable": "SHOP_ENV_FILE"},
        ],
    }
    assert wrong_names(values) == []
