# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What commands make at the build and on a host is served, goes back with a rollback, and lets nothing through that fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import SET, Fleet
from tiny import PLAIN, SERVING, load, write_project

SECRET = "hunter22-hunter22"
MAIN = (
    SERVING
    + """

# As frameworks do: without the directory the app does not load.
STYLES = {name: open(f"staticfiles/{name}").read() for name in os.listdir("staticfiles")}


def tried(path):
    try:
        with open(path, "w"):
            return "written"
    except OSError as error:
        return error.strerror


def answer_to(path):
    if path != "/made":
        return 201 if path == "/parts" else 200, {}
    return 200, {
        "page": open("dist/page.txt").read(),
        "styles": STYLES,
        "now": sorted(os.listdir("staticfiles")),
        "write": tried("staticfiles/x"),
        "generation": os.environ["FORGE_WORKER_GENERATION"],
    }
"""
)
COLLECT = """
import os
import pathlib
import sys
import tempfile

assert sorted(os.listdir("staticfiles")) == ["kept.css"], os.listdir("staticfiles")
colour = os.environ["FORGE_COLOUR"]
if colour == "none":
    sys.exit("no such colour, said " + os.environ["FORGE_SECRET_KEY"])
pathlib.Path("staticfiles", "site.css").write_text(colour)
with pathlib.Path("staticfiles", "kept.css").open("a") as kept:
    kept.write(" and more")
# As many write: whole or not at all, and for nobody else.
descriptor, path = tempfile.mkstemp(dir="staticfiles")
os.write(descriptor, b"index of " + pathlib.Path("dist/page.txt").read_bytes())
os.rename(path, "staticfiles/index")
for place in ("shop", "."):
    try:
        pathlib.Path(place, "x").write_text("")
    except OSError as error:
        assert error.errno == 30, error
    else:
        sys.exit(f"{place} can be written to")
print("ran for", colour)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    source = tmp_path_factory.mktemp("commands") / "shop"
    write_project(source, "gunicorn", "uvicorn-worker", main=MAIN, collect=COLLECT)
    (source / "staticfiles").mkdir()
    (source / "staticfiles" / "kept.css").write_text("kept")
    (source / "page.txt").write_text("one")
    variables: dict[str, Any] = {
        **PLAIN,
        "forge_app": "shop",
        "forge_project": "commands",
        "forge_listen": ["8000"],
        "forge_workers": 2,
        "forge_watch_seconds": 1,
        "forge_health_path": "/",
        "forge_source": str(source),
        "forge_build_commands": [
            "mkdir dist",
            f"sh -c 'cat page.txt > dist/page.txt; echo x >> {source.parent}/builds'",
        ],
        "forge_release_commands": ["python -m shop.collect"],
        "forge_release_paths": ["staticfiles"],
        "forge_environment": {"COLOUR": "blue", "SECRET_KEY": SECRET},
        "forge_processes": {
            "lister": {"command": "sh -c 'cat staticfiles/index; echo; sleep infinity'", "stop_seconds": 2}
        },
    }
    fleet = Fleet(variables, lab_set=f"{SET}commands", without_database=True)
    with fleet.with_nodes("one=debian13:forge_app"):
        run = fleet.play("site", flags=("--check",))
        assert "made" not in fleet.on("one", "ls -R /srv 2>/dev/null; true").split()
        assert run.failed("one") == 0
        fleet.play("site")
        yield fleet


def made(fleet: Fleet) -> dict[str, Any]:
    answer: dict[str, Any] = fleet.get("one", "/made").json()
    return answer


def live(fleet: Fleet) -> str:
    return fleet.on("one", "basename $(readlink /srv/shop/current)")


def builds(fleet: Fleet) -> int:
    return len((Path(fleet.variables["forge_source"]).parent / "builds").read_text().splitlines())


BLUE = {"site.css": "blue", "kept.css": "kept and more", "index": "index of one"}


def test_what_both_make_is_served_and_nobody_can_write_it(shop: Fleet) -> None:
    found = made(shop)
    assert (found["page"], found["styles"], found["write"]) == ("one", BLUE, "Read-only file system")
    assert found["now"] == sorted(BLUE)
    assert not (Path(shop.variables["forge_source"]) / "dist").exists()
    home = f"/srv/shop/generations/{live(shop)}"
    assert shop.on("one", f"cd {home}/made/staticfiles && stat -c '%n %U:%G %a' *").splitlines() == [
        "index root:shop 640", "kept.css root:shop 644", "site.css root:shop 640",
    ]  # fmt: skip
    assert shop.on("one", "cat /srv/shop/releases/*/staticfiles/kept.css") == "kept", "the release is as it was built"
    record = json.loads(shop.on("one", f"cat {home}/release.json"))
    assert (record["release_commands"], record["release_paths"]) == (["python -m shop.collect"], ["staticfiles"])


def test_other_processes_and_a_command_of_an_operator_have_it_too(shop: Fleet) -> None:
    log = f"journalctl -o cat -u shop.lister@{live(shop)}.service"
    assert "index of one" in shop.on("one", log)
    run = shop.play("run", check=False, command="sh -c 'cat staticfiles/site.css; echo; touch staticfiles/y'")
    assert "one: blue" in run.output
    assert "Read-only file system" in run.said()


def test_second_run_changes_nothing_and_runs_nothing(shop: Fleet) -> None:
    before, built = shop.fingerprint("one"), builds(shop)
    assert shop.play("site").changed("one") == 0
    assert (shop.fingerprint("one"), builds(shop)) == (before, built)
    assert shop.play("status").rc == 0


def test_release_and_rollback_bring_their_own(shop: Fleet) -> None:
    first = live(shop)
    with load(shop.url("one", ""), keepalive=2, closing=2, post=2) as result:
        run = shop.play("deploy", flags=("--diff",), forge_environment={"COLOUR": "red", "SECRET_KEY": SECRET})
        assert made(shop)["styles"] == {**BLUE, "site.css": "red"}
        assert live(shop)[:12] == first[:12], "the same code, with other settings"
        shop.play("rollback")
    assert result["lost"] == {}
    assert SECRET not in run.output
    assert (live(shop), made(shop)["styles"]) == (first, BLUE)


def test_other_commands_are_another_generation(shop: Fleet) -> None:
    first = live(shop)
    more = [*shop.variables["forge_release_commands"], "sh -c 'echo more > staticfiles/more'"]
    run = shop.play("deploy", flags=("--diff",), forge_release_commands=more)
    assert "release_commands: python -m shop.collect, sh -c" in run.output
    assert made(shop)["styles"]["more"] == "more\n"
    assert live(shop) != first
    shop.play("deploy")
    assert (live(shop), made(shop)["styles"]) == (first, BLUE)


def test_refresh_keeps_it(shop: Fleet) -> None:
    first = live(shop)
    shop.play("refresh")
    assert live(shop) == f"{first}-2"
    assert made(shop)["generation"] == f"{first}-2"
    assert (made(shop)["styles"], made(shop)["now"]) == (BLUE, sorted(BLUE))
    assert first not in shop.on("one", "ls /srv/shop/generations").split()
    assert shop.play("site").changed("one") == 0


def test_failing_command_leaves_what_serves_and_says_why(shop: Fleet) -> None:
    serving = live(shop)
    migrated = ["touch /tmp/migrated"]
    settings = {"COLOUR": "none", "SECRET_KEY": SECRET}
    with load(shop.url("one", ""), keepalive=2) as result:
        run = shop.play(
            "deploy", check=False, forge_environment=settings, forge_migrations=migrated, forge_migrations_paths=[]
        )
    assert run.rc != 0
    assert (
        "forge_release_commands: 'python -m shop.collect' failed with exit code 1: no such colour, said ********. "
        "What served before still serves." in run.said()
    )
    assert SECRET not in run.output
    assert "$ touch /tmp/migrated" not in run.output
    assert (live(shop), made(shop)["styles"], result["lost"]) == (serving, BLUE, {})
    # Commands that have run half-way are run again, also when they were killed.
    run = shop.play(
        "deploy",
        check=False,
        forge_environment=settings,
        forge_release_commands=["sh -c 'touch staticfiles/half; kill -9 $$'"],
    )
    assert "failed with exit code" in run.said()
    assert shop.on("one", "find /srv/shop/generations -name half") == ""


def test_run_that_was_killed_is_made_anew(shop: Fleet) -> None:
    serving = live(shop)
    waits = "sh -c 'test -e /var/lib/shop/go || { touch staticfiles/half; sleep 120; }'"
    more = {
        "forge_release_commands": [*shop.variables["forge_release_commands"], waits],
        "forge_state_directories": ["shop"],
    }
    with ThreadPoolExecutor(1) as pool:
        deploy = pool.submit(shop.play, "deploy", check=False, **more)
        shop.until(lambda: shop.on("one", "find /srv/shop/generations -name half"), 60, "the command")
        shop.on("one", "kill -9 $(ps -o ppid= -p $(pgrep -f '^systemd-run .*shop-run' | head -n 1))")
        assert deploy.result().rc != 0
    assert (live(shop), made(shop)["styles"]) == (serving, BLUE)
    shop.on("one", "touch /var/lib/shop/go")
    shop.play("deploy", **more)
    assert live(shop) != serving
    assert made(shop)["now"] == sorted(BLUE)
    assert shop.on("one", "find /srv/shop/generations -name half -o -name '.incoming*'") == ""
    shop.play("deploy")
    assert live(shop) == serving.removesuffix("-2"), "no twin any more"


def test_what_somebody_has_changed_is_made_anew_while_it_serves(shop: Fleet) -> None:
    serving = live(shop)
    shop.on(
        "one",
        f"echo green > /srv/shop/generations/{serving}/made/staticfiles/site.css; touch /srv/shop/current/made/staticfiles/x",
    )
    assert "incomplete" in shop.play("status").output
    shop.play("site")
    assert live(shop) == serving
    assert made(shop)["now"] == sorted(BLUE)
    assert shop.on("one", "cat /srv/shop/current/made/staticfiles/site.css") == "blue"


def test_source_that_changes_is_built_again_and_what_fails_is_said_before_a_host_is_touched(shop: Fleet) -> None:
    before, built = shop.fingerprint("one"), builds(shop)
    run = shop.play("deploy", check=False, forge_build_commands=["sh -c 'echo Error: no entry module; exit 2'"])
    assert "failed with exit code 2 in a copy of" in run.said()
    assert "Error: no entry module." in run.said()
    assert shop.fingerprint("one") == before
    (Path(shop.variables["forge_source"]) / "page.txt").write_text("two")
    shop.play("deploy")
    assert made(shop)["page"] == "two"
    assert builds(shop) == built + 1


def test_an_image_and_manifests_are_refused(shop: Fleet) -> None:
    run = shop.play("image", check=False, forge_image="shop:1")
    assert "forge_release_commands are run by hosts, and no host has a part in an image" in run.said()
    run = shop.play("kubernetes", check=False, forge_kubernetes_image="registry.example.org/shop:1")
    assert "forge_release_commands are run by hosts, and a pod has what its image has" in run.said()


def test_removal_takes_it_along(shop: Fleet) -> None:
    shop.play("remove", forge_remove="shop", forge_remove_data="shop")
    assert shop.on("one", "ls /srv/shop 2>/dev/null; true") == ""
