# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of a build run in a copy of the source, once for each content, and what they make is released."""

from __future__ import annotations

import os
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.modules.build import ARGUMENT_SPEC
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build import build_commands as module
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.build_commands import prepared
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.project_wheel import copy_for_host
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.source import list_files, open_source
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.wheel_builder import CompileJob, NeedsCompiling
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace
from building import build

DEFAULTS = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
MAKE = "sh -c 'mkdir -p dist node_modules/x .venv && cat page.txt style/*.css > dist/page.html && touch node_modules/x/i.js .venv/p .env'"


class Shop:
    """A source below a directory, with a count of how often its commands have run."""

    def __init__(self, root: Path) -> None:
        self.root, self.directory, self.runs = root, root / "shop", root / "runs"
        self.write("page.txt", "one ")
        self.write("style/a.css", "blue")
        self.write("main.py", "app = None\n")

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, "-C", str(self.directory), *arguments], check=True, capture_output=True)

    def build(self, *commands: str, sub: str = "", **options: Any) -> dict[str, str]:
        """Files for a release, name to text.

        :param sub: directory within the source that holds the app.
        """
        source = open_source(str(self.directory), sub)
        given = {**DEFAULTS, "exclude": [], "include": [], **options}
        given["commands"] = [*commands, f"sh -c 'echo x >> {self.runs}'"] if commands else []
        names = list_files(source, given["exclude"], given["include"])
        with prepared(source, names, given, Workspace(self.root / "cache")) as (tree, released):
            return {name: (tree.directory / name).read_text() for name in released}

    def times(self) -> int:
        return len(self.runs.read_text().splitlines()) if self.runs.exists() else 0

    def untouched(self) -> list[str]:
        return sorted(str(path.relative_to(self.directory)) for path in self.directory.rglob("*") if ".git" not in path.parts)


@pytest.fixture(params=["git", "directory"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    made = Shop(tmp_path)
    if request.param == "git":
        made.git("init", "--quiet")
        made.write(".gitignore", "dist/\n")
        made.git("add", ".")
        made.git("commit", "--quiet", "--message", "x")
    return made


def test_what_they_make_is_released_and_the_source_stays_as_it_is(shop: Shop) -> None:
    before = shop.untouched()
    released = shop.build(MAKE, "sh -c 'echo changed > main.py; rm page.txt'")
    assert released["dist/page.html"] == "one blue"
    assert released["main.py"] == "changed\n"
    assert set(released) - {".gitignore"} == {"dist/page.html", "main.py", "style/a.css"}
    assert shop.untouched() == before
    assert (shop.directory / "main.py").read_text() == "app = None\n"


def test_second_build_runs_nothing_and_releases_the_same(shop: Shop) -> None:
    first = shop.build(MAKE, "rm page.txt")
    assert (shop.build(MAKE, "rm page.txt"), shop.times()) == (first, 1)
    assert "page.txt" not in first


def test_changed_source_or_command_makes_it_anew(shop: Shop) -> None:
    """Also a file that is not released, and one that is not committed."""
    shop.build(MAKE, exclude=["style"])
    shop.write("style/a.css", "red")
    assert shop.build(MAKE, exclude=["style"])["dist/page.html"] == "one red"
    assert "style/a.css" not in shop.build(MAKE, exclude=["style"])
    assert shop.times() == 2
    assert shop.build(f"{MAKE[:-1]} && cp main.py dist/copy.py'", exclude=["style"])["dist/copy.py"] == "app = None\n"
    assert shop.times() == 3
    shop.write("style/b.css", " and green")
    assert shop.build(MAKE)["dist/page.html"] == "one red and green"


def test_what_lies_beside_the_app_is_there_and_a_change_of_it_makes_it_anew(shop: Shop) -> None:
    """As a frontend beside its backend, also one that is not committed yet."""
    page = "sh -c 'mkdir -p dist && cat ../style/*.css > dist/page.html'"
    shop.write("backend/main.py", "app = None\n")
    assert shop.build(page, sub="backend") == {"dist/page.html": "blue", "main.py": "app = None\n"}
    shop.write("style/a.css", "red")
    shop.write("style/b.css", " and green")
    for _again in range(2):
        assert shop.build(page, sub="backend")["dist/page.html"] == "red and green"
    assert shop.times() == 2


def test_what_lies_beside_the_app_in_its_repository_counts_where_the_source_is_the_app_alone(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.write("backend/main.py", "app = None\n")
    shop.git("init", "--quiet")
    shop.git("add", ".")
    shop.git("commit", "--quiet", "--message", "x")
    shop.directory /= "backend"
    for text in ("two", "three"):  # neither is committed
        shop.write("../page.txt", text)
        assert shop.build("cp ../page.txt page.txt")["page.txt"] == text


def test_a_file_that_git_tracks_is_there_though_it_is_never_released(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.write(".env.production", "TITLE=old")
    shop.git("init", "--quiet")
    shop.git("add", ".")
    shop.git("commit", "--quiet", "--message", "x")
    shop.write(".env.production", "TITLE=shop")  # not committed
    shop.write(".env.local", "KEY=dev")  # not tracked
    released = shop.build("sh -c 'cat .env.* > title.txt'")
    assert released["title.txt"] == "TITLE=shop"
    assert not [name for name in released if name.startswith(".env")]


def test_without_commands_the_source_itself_is_released(shop: Shop) -> None:
    source = open_source(str(shop.directory))
    with prepared(source, ["main.py"], {**DEFAULTS, "commands": []}, Workspace(shop.root / "cache")) as (tree, names):
        assert (tree, names) == (source, ["main.py"])
    assert not (shop.root / "cache").exists()


def test_environment_is_the_callers_without_its_virtual_environment(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere")
    monkeypatch.setenv("COLOUR", "blue")
    released = shop.build("STYLE=bold sh -c 'echo $COLOUR $STYLE ${VIRTUAL_ENV-none} > said.txt'")
    assert released["said.txt"] == "blue bold none\n"


def test_words_are_split_and_no_shell_reads_them(shop: Shop) -> None:
    assert "a;b $HOME" in shop.build("touch 'a;b $HOME'")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            "sh -c 'echo start; echo \"Error: no entry module $PWD/x.js\" >&2; exit 3'",
            " failed with exit code 3 in a copy of {shop}: Error: no entry module {shop}/x.js.",
        ),
        ("sh -c 'exit 4'", " failed with exit code 4 in a copy of {shop}; it printed nothing."),
        (
            "sh -c 'echo Error: https://me:hunter22@registry.example.org is down; exit 1'",
            " failed with exit code 1 in a copy of {shop}: Error: https://***@registry.example.org is down.",
        ),
        (
            "no-such-tool ci",
            ": there is no program no-such-tool on the controller: install it, or correct the command.",
        ),
        ("A=b ./make", ": there is no program ./make on the controller: install it, or correct the command."),
        ("npm 'ci", ": it cannot be read: no closing quotation."),
    ],
)
def test_failing_command_is_said_with_its_cause(shop: Shop, command: str, sentence: str) -> None:
    with pytest.raises(BuildError) as caught:
        shop.build(command)
    assert str(caught.value) == f"forge_build_commands: {command!r}{sentence.format(shop=shop.directory)}"
    assert shop.times() == 0, "what follows does not run"
    assert not (shop.root / "cache" / "made").exists()
    assert shop.build(MAKE)["dist/page.html"] == "one blue"


def test_command_that_never_ends_is_stopped_with_what_it_started(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMAND_SECONDS", 1)
    began = time.monotonic()
    with pytest.raises(BuildError, match=r"did not end within 1 s and was stopped: does it wait for something"):
        shop.build(f"sh -c 'sleep 600 & echo $! > {shop.root}/pid; wait'")
    assert time.monotonic() - began < 20
    pid = int((shop.root / "pid").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)


def test_link_that_a_command_makes_out_of_the_source_is_said_with_its_place(shop: Shop) -> None:
    with pytest.raises(BuildError) as caught:
        shop.build("ln -s /etc/passwd users")
    assert str(caught.value) == f"{shop.directory}/users is a link that leads out of the source (/etc/passwd)."


def test_program_that_a_command_makes_keeps_its_mode(shop: Shop) -> None:
    source = open_source(str(shop.directory))
    options = {**DEFAULTS, "commands": ["sh -c 'echo > tool; chmod 700 tool; echo > text'"], "exclude": [], "include": []}
    for _time in range(2):
        with prepared(source, ["main.py"], options, Workspace(shop.root / "cache")) as (tree, names):
            assert names == ["main.py", "text", "tool"]
            assert [os.access(tree.directory / name, os.X_OK) for name in names] == [False, False, True]


def test_source_of_a_job_for_a_host_outlives_the_copy(shop: Shop) -> None:
    """A project with compiled parts is sent to a host after the build has ended."""
    source, options = open_source(str(shop.directory)), {**DEFAULTS, "commands": [MAKE], "exclude": [], "include": []}
    with (
        pytest.raises(NeedsCompiling) as caught,
        prepared(source, ["page.txt"], options, Workspace(shop.root / "cache")) as (tree, names),
    ):
        platform = Platform("3.11.2", "x86_64", "2.36", ("web1",))
        made = CompileJob("shop", platform, shop.root / "wheels", partial(copy_for_host, tree, names, b"Name: shop\n"))
        raise NeedsCompiling([made])
    (job,) = caught.value.jobs
    assert not tree.directory.exists()
    for place in ("one", "two"):
        below = job.source(shop.root / place)
        assert (below / "dist" / "page.html").read_text() == "one blue"
        assert (below / "PKG-INFO").read_text() == "Name: shop\n"


def test_project_of_poetry_without_a_build_system_is_released_as_it_is(shop: Shop) -> None:
    shop.write("pyproject.toml", "[tool.poetry]\nname = 'shop'\n")
    assert shop.build(MAKE)["pyproject.toml"] == "[tool.poetry]\nname = 'shop'\n"


@pytest.mark.parametrize("source", ["shop-1.0-py3-none-any.whl", "shop==1.0"])
def test_a_source_that_is_no_tree_of_files_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(BuildError, match=r"forge_build_commands is for a directory or a git URL, but forge_source is of another kind"):
        build(source, "shop.main:app", [], Workspace(tmp_path), commands=["make"])
