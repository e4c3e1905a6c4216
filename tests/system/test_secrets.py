# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that are sealed to a host: in no file there, in no environment that /proc shows, and in the app's as ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Fleet
from tiny import PLAIN, load, write_project

TOKEN, ROTATED = "hunter22-hunter22", "correct-horse-battery"
ODD = 'a"b \\ $c `d` {"e": [1]}\nand a line é'
# Says what it has, and what everybody who may look at its process sees.
SAYS = """
import json, os, sys, time

def told():
    with open("/proc/self/environ", "rb") as begun:
        seen = os.environ["SEALED_TOKEN"].encode() in begun.read()
    return {"token": os.environ["SEALED_TOKEN"], "odd": os.environ["SEALED_ODD"], "seen": seen,
            "arenas": os.environ["MALLOC_ARENA_MAX"], "extra": os.environ.get("EXTRA", "")}

if __name__ == "__main__":
    with open("/var/lib/sealed/" + sys.argv[1], "w") as where:
        json.dump(told(), where)
    time.sleep(float(sys.argv[2]))
"""
SETTINGS: dict[str, Any] = {
    **PLAIN,
    "forge_app": "sealed",
    "forge_secrets": "credentials",
    "forge_listen": ["8300"],
    "forge_workers": 2,
    "forge_watch_seconds": 1,
    "forge_drain_seconds": 3,
    "forge_environment_prefix": "SEALED_",
    "forge_environment": {"TOKEN": TOKEN, "ODD": ODD},
    "forge_environment_plain": {"MALLOC_ARENA_MAX": 2},
    "forge_state_directories": ["sealed"],
    "forge_migrations": ["EXTRA=given python -m shop.says migration 0"],
    "forge_migrations_paths": [],
    "forge_smoke_command": "python -m shop.says smoke 0",
    "forge_processes": {
        "worker": {"command": "python -m shop.says worker 600", "stop_seconds": 1},
        "failing": {
            "command": "false",
            "schedule": "yearly",
            "on_failure": """sh -c 'printf "%s %s" "$SEALED_TOKEN" "$FORGE_FAILURE" >/var/lib/sealed/told'""",
        },
        "shell": {"command": """sh -c 'printf %s "$SEALED_TOKEN" >/var/lib/sealed/shell; exec sleep 600'"""},
    },
}


@pytest.fixture(scope="module")
def sealed(box: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """An app with other processes, on a node that gives services no credentials yet; it is stopped afterwards."""
    directory = tmp_path_factory.mktemp("sealed") / "shop"
    source = write_project(directory, "gunicorn", "uvicorn-worker", says=SAYS)
    fleet = Fleet({**SETTINGS, "forge_source": str(source)}, lab_set=box.lab_set, without_database=True)
    fleet.on("box", "mount --make-rprivate /")
    yield fleet
    fleet.on(
        "box",
        "mount --make-rprivate /; systemctl disable --now sealed.socket sealed.service; systemctl stop 'sealed@*' 'sealed.*'; true",
    )


def live(fleet: Fleet) -> str:
    return fleet.on("box", "basename $(readlink /srv/sealed/current)")


def says(fleet: Fleet, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.on("box", f"cat /var/lib/sealed/{name}"))
    return found


def web(fleet: Fleet) -> dict[str, str]:
    """The environment of what serves, as the app has it."""
    environment: dict[str, str] = fleet.until(
        lambda: json.loads(fleet.on("box", "curl -s -m 10 http://127.0.0.1:8300/place"))["environment"]
    )
    return environment


def seen(fleet: Fleet, secret: str) -> str:
    """Processes of what serves that began with a secret in their environment; and files of its generation that have it."""
    return fleet.on(
        "box",
        f"cd /srv/sealed/generations; grep -rl -- {secret} {live(fleet)};"
        " for pid in $(pgrep -u sealed -f 'gunicorn|shop.says worker'); do grep -lz -- {secret} /proc/$pid/environ; done; true".replace(
            "{secret}", secret
        ),
    )


def test_host_that_gives_no_credentials_has_a_file_and_says_so(sealed: Fleet) -> None:
    for playbook in ("check", "site"):
        said = sealed.play(playbook).said()
        assert "settings lie in a file on" in said
        assert "not sealed as forge_secrets wants them: its services are given none, as in some containers." in said
    assert "environment" in seen(sealed, TOKEN)
    assert web(sealed)["SEALED_TOKEN"] == TOKEN


def test_settings_are_sealed_and_everything_of_the_app_has_them(sealed: Fleet) -> None:
    sealed.on("box", "mount --make-rshared /")  # as systemd does where it is the machine's first
    before = live(sealed)
    with load(sealed.url("box", "").replace("8000", "8300")) as result:
        run = sealed.play("deploy")
    assert result["lost"] == {}
    assert "settings lie in a file on" not in run.output
    assert TOKEN not in run.output
    assert live(sealed) != before
    assert live(sealed)[:12] == before[:12], "the same release"
    assert seen(sealed, TOKEN) == ""
    environment = web(sealed)
    assert (environment["SEALED_TOKEN"], environment["SEALED_ODD"]) == (TOKEN, ODD)
    assert "FORGE_CREDENTIAL" not in environment
    expected = {"token": TOKEN, "odd": ODD, "seen": False, "arenas": "2", "extra": ""}
    assert says(sealed, "smoke") == expected
    assert sealed.until(lambda: says(sealed, "worker")) == expected
    assert says(sealed, "migration") == {**expected, "extra": "given"}
    assert sealed.on("box", "cat /var/lib/sealed/shell") == TOKEN
    assert sealed.on("box", f"systemctl start sealed.failing@{live(sealed)} || cat /var/lib/sealed/told").startswith(
        f"{TOKEN} failing of sealed failed on "
    )
    modes = sealed.on("box", "cd /srv/sealed/current && stat -c '%n %a %U %G' environment environment.cred")
    assert modes.splitlines() == ["environment 640 root sealed", "environment.cred 600 root root"]
    assert sealed.on("box", "cat /srv/sealed/current/environment") == 'MALLOC_ARENA_MAX="2"'


def test_same_settings_are_no_change(sealed: Fleet) -> None:
    before = sealed.on("box", "sha256sum /srv/sealed/current/environment.cred")
    assert sealed.play("deploy").changed("box") == 0
    assert sealed.on("box", "sha256sum /srv/sealed/current/environment.cred") == before


def test_a_command_has_them_and_shows_none(sealed: Fleet) -> None:
    command = "python -c \"import os; print(len(os.environ['SEALED_TOKEN']), os.environ['SEALED_TOKEN'])\""
    run = sealed.play("run", command=command)
    assert f"{len(TOKEN)} ********" in run.output
    assert TOKEN not in run.output


def test_rotation_rollback_and_refresh_lose_nothing(sealed: Fleet) -> None:
    first = live(sealed)
    rotated = {"forge_environment": {**SETTINGS["forge_environment"], "TOKEN": ROTATED}}
    with load(sealed.url("box", "").replace("8000", "8300")) as result:
        sealed.play("deploy", **rotated)
        assert web(sealed)["SEALED_TOKEN"] == ROTATED
        assert seen(sealed, ROTATED) == ""
        sealed.play("rollback")
        assert (live(sealed), web(sealed)["SEALED_TOKEN"]) == (first, TOKEN)
        sealed.play("refresh")
    assert result["lost"] == {}
    assert live(sealed) == f"{first}-2"
    assert web(sealed)["SEALED_TOKEN"] == TOKEN
    assert seen(sealed, TOKEN) == ""
    assert sealed.play("deploy").changed("box") == 0


def test_settings_that_another_host_has_sealed_are_sealed_anew(sealed: Fleet) -> None:
    """As after a restore of /srv alone: the app cannot start, says why, and a deploy mends it."""
    sealed.on("box", "rm /var/lib/systemd/credential.secret; systemctl restart sealed || true")
    run = sealed.play("deploy")
    assert run.changed("box") > 0
    assert sealed.until(lambda: web(sealed)["SEALED_TOKEN"]) == TOKEN
    assert sealed.play("deploy").changed("box") == 0
