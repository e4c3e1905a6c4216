# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release's commands make on a host: once, whole or not at all, and read-only afterwards."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import layout as layout_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import release_commands as module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import STILL_SERVES, StageError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.release_commands import ReleaseCommands

ID = "0123456789ab-01234567"
RELEASE = "0123456789ab"
# systemd-run, without systemd: binds by a link, notes its options, then runs what comes after them where the unit says.
FAKE = """\
#!/usr/bin/env python3
import os, subprocess, sys
options, command = sys.argv[1:sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1:]
open(os.environ["NOTES"], "a").write("".join(option + "\\n" for option in options))
bound = [option.partition("=")[2].split(":") for option in options if option.startswith("BindPaths=")]
for source, place in bound:
    os.rename(place, place + ".below")
    os.symlink(source, place)
done = subprocess.run(command, cwd=os.environ["RELEASE"])
for source, place in bound:
    os.unlink(place)
    os.rename(place + ".below", place)
sys.exit(done.returncode)
"""


class Host:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = Layout(str(root / "srv"), "shop")
        self.release, self.home = Path(self.layout.release(RELEASE)), Path(self.layout.generation(ID))
        self.made, self.half_made = Path(self.layout.made(ID)), Path(self.layout.half_made(ID))
        self.incoming = self.half_made / str(os.getpid())
        self.notes, self.runs = root / "notes", root / "runs"
        self.owners: dict[str, tuple[int, int]] = {}
        self.release.mkdir(parents=True)
        (self.home / "units").mkdir(parents=True)
        (self.home / "environment").write_text('SHOP_SECRET_KEY="hunter22-hunter22"\n')
        program = root / "bin" / "systemd-run"
        program.parent.mkdir()
        program.write_text(FAKE)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("NOTES", str(self.notes))
        monkeypatch.setenv("RELEASE", str(self.release))
        monkeypatch.setattr(pwd, "getpwnam", {"shop-user": SimpleNamespace(pw_uid=901)}.__getitem__)
        monkeypatch.setattr(grp, "getgrnam", {"shop-group": SimpleNamespace(gr_gid=902)}.__getitem__)
        monkeypatch.setattr(module.os, "lchown", lambda path, uid, gid: self.owners.update({path: (uid, gid)}))
        monkeypatch.setattr(layout_module.os, "fchown", lambda *_arguments: None)

    def commands(self, *commands: str, paths: tuple[str, ...] = ("static",)) -> ReleaseCommands:
        unit = "[Service]\nUser=shop-user\nGroup=shop-group\nEnvironment=PATH=/x:/y A=b\n"
        unit += "".join(f"BindReadOnlyPaths={self.layout.made('%i')}/{path}:{self.release}/{path}\n" for path in paths)
        (self.home / "units" / self.layout.service(ID)).write_text(unit)
        made = ReleaseCommands(self.layout, ID, RELEASE, [*commands, f"sh -c 'echo x >> {self.runs}'"], list(paths))
        made.make_places()
        return made

    def times(self) -> int:
        return len(self.runs.read_text().splitlines()) if self.runs.exists() else 0

    def texts(self) -> dict[str, str]:
        files = (path for path in self.made.rglob("*") if path.is_file() and path.name != ".complete")
        return {str(path.relative_to(self.made)): path.read_text() for path in files}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_what_they_make_lies_in_the_generation_and_the_release_stays_as_it_is(host: Host) -> None:
    commands = host.commands("sh -c 'mkdir static/css && echo blue > static/css/a.css'", "touch frontend/dist/b")
    assert not commands.are_done()
    with pytest.raises(StageError, match=r"forge_release_commands: 'touch frontend/dist/b' failed"):
        commands.run()
    commands = host.commands(*commands.commands[:2], paths=("static", "frontend/dist"))
    commands.run()
    assert commands.are_done()
    assert host.texts() == {"static/css/a.css": "blue\n", "frontend/dist/b": ""}
    assert not host.half_made.exists()
    assert sorted(str(path.relative_to(host.release)) for path in host.release.rglob("*")) == [
        "frontend", "frontend/dist", "static",
    ]  # fmt: skip
    notes = host.notes.read_text().splitlines()
    assert f"BindPaths={host.incoming}/static:{host.release}/static" in notes
    assert {"User=shop-user", "Group=shop-group", "Environment=PATH=/x:/y A=b", "RuntimeMaxSec=900"} <= set(notes)
    assert not [note for note in notes if note.startswith("BindReadOnlyPaths")]


def test_the_service_owns_it_meanwhile_and_root_afterwards(host: Host) -> None:
    (host.release / "static").mkdir()
    (host.release / "static" / "kept").write_text("")
    script = "cd static && touch open hidden tool && chmod 666 open && chmod 600 hidden && chmod 4711 tool && ln -s open link && rm kept"
    host.commands(f"sh -c '{script}'").run()
    before = {host.owners[str(host.incoming / name)] for name in ("static/kept",)}
    assert before == {(901, 902)}
    after = {name: stat.S_IMODE((host.made / "static" / name).lstat().st_mode) for name in ("open", "hidden", "tool")}
    assert after == {"open": 0o644, "hidden": 0o640, "tool": 0o751}
    moved = ("static", "static/open", "static/hidden", "static/tool", "static/link")
    assert {host.owners[str(host.incoming / name)] for name in moved} == {(0, 902)}
    assert host.owners[str(host.made / "static")] == (0, 902)
    assert os.readlink(host.made / "static" / "link") == "open"


def test_what_the_release_has_there_is_there_first(host: Host) -> None:
    (host.release / "static" / "js").mkdir(parents=True)
    (host.release / "static" / "js" / "a.js").write_text("one")
    (host.release / "static" / "link").symlink_to("js/a.js")
    host.commands("sh -c 'echo two >> static/js/a.js'").run()
    assert host.texts()["static/js/a.js"] == "onetwo\n"
    assert os.readlink(host.made / "static" / "link") == "js/a.js"
    assert (host.release / "static" / "js" / "a.js").read_text() == "one"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            "sh -c 'echo start; echo \"ValueError: no key hunter22-hunter22\"; exit 3'",
            " failed with exit code 3: ValueError: no key ********. ",
        ),
        ("sh -c 'exit 4'", " failed with exit code 4. "),
        ("sh -c 'open", ": it cannot be read: no closing quotation. "),
    ],
)
def test_failing_command_is_said_and_nothing_counts(host: Host, command: str, sentence: str) -> None:
    commands = host.commands("touch static/a", command)
    with pytest.raises(StageError) as caught:
        commands.run()
    assert str(caught.value) == f"forge_release_commands: {command!r}{sentence}{STILL_SERVES}"
    assert (host.times(), commands.are_done(), host.texts(), host.half_made.exists()) == (0, False, {}, False)


def test_run_that_was_killed_is_made_anew(host: Host) -> None:
    """With its files half moved, and others where they were made."""
    for place in (host.half_made / "1" / "static", host.made / "static" / "half"):
        place.mkdir(parents=True)
        (place / "x").write_text("")
    commands = host.commands("touch static/a")
    assert not commands.are_done()
    commands.run()
    assert commands.are_done()
    assert host.texts() == {"static/a": ""}
    assert (host.times(), host.half_made.exists()) == (1, False)


def test_what_was_changed_by_hand_is_made_anew_in_the_directory_that_is_mounted(host: Host) -> None:
    commands = host.commands("touch static/a")
    commands.run()
    mounted = (host.made / "static").stat().st_ino
    (host.made / "static" / "a").write_text("by hand")
    (host.made / "static" / "more").mkdir()
    assert not commands.are_done()
    commands.run()
    assert commands.are_done()
    assert host.texts() == {"static/a": ""}
    assert (host.made / "static").stat().st_ino == mounted
    assert not (host.made / "static" / "more").exists()


def test_live_keeps_what_it_has_when_a_command_fails(host: Host) -> None:
    host.commands("touch static/a").run()
    with pytest.raises(StageError):
        host.commands("rm static/a", "false").run()
    assert host.texts() == {"static/a": ""}


def test_commands_that_make_nothing_for_the_release_run_once_too(host: Host) -> None:
    commands = host.commands(paths=())
    assert not commands.are_done()
    commands.run()
    assert (commands.are_done(), host.times()) == (True, 1)


def test_without_commands_there_is_nothing_to_do(host: Host) -> None:
    assert ReleaseCommands(host.layout, ID, RELEASE, [], []).are_done()


@pytest.mark.parametrize(("path", "found"), [("a", "file"), ("a/b", "file"), ("a", "link"), ("a/b", "link")])
def test_place_that_is_no_directory_is_said(host: Host, path: str, found: str) -> None:
    if found == "file":
        (host.release / "a").write_text("")
    else:
        (host.release / "other").mkdir()
        (host.release / "a").symlink_to("other")
    with pytest.raises(
        StageError, match=f"^forge_release_paths: {path} is a file or a link in the release, and not a directory"
    ):
        host.commands(paths=(path,))
