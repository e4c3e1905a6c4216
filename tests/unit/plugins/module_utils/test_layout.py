# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths on a host, and files that are never half-written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import layout as layout_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import (
    GENERATION_ID,
    Layout,
    read_file,
    read_json,
    write_atomically,
)

ID = "0123456789ab-01234567"


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Whom files were given to; without root nobody may give a file away."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda descriptor, uid, gid: given.append((uid, gid)))
    return given


def test_file_is_replaced_with_mode_and_owner(tmp_path: Path, owners: list[tuple[int, int]]) -> None:
    path = tmp_path / "environment"
    path.write_text("old")
    write_atomically(str(path), b"new", 0o640, 0, 7)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert owners == [(0, 7)]
    assert os.listdir(tmp_path) == ["environment"]


@pytest.mark.parametrize("fails", ["fchown", "fsync", "rename"])
def test_file_is_old_or_new_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owners: list[tuple[int, int]], fails: str
) -> None:
    path = tmp_path / "environment"
    path.write_text("old")

    def fail(*_arguments: object) -> None:
        assert path.read_text() == "old"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(str(path), b"new", 0o640)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["environment"]


def test_nobody_reads_a_secret_before_its_mode_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owners: list[tuple[int, int]]
) -> None:
    seen = []
    chmod = os.fchmod

    def look(descriptor: int, mode: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        chmod(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", look)
    old = os.umask(0)
    try:
        write_atomically(str(tmp_path / "environment"), b"s3cret", 0o640)
    finally:
        os.umask(old)
    assert seen == [0o600]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path, owners: list[tuple[int, int]]) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path = tmp_path / "environment"
    (tmp_path / f"environment.{os.getpid()}.tmp").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        write_atomically(str(path), b"new", 0o640)
    assert victim.read_text() == "mine"


def test_live_is_what_current_names(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path), "forge")
    assert layout.live() == ""
    (tmp_path / "forge").mkdir()
    (tmp_path / "forge" / "current").symlink_to(f"generations/{ID}")
    assert layout.live() == ID


@pytest.mark.parametrize(
    ("text", "state"),
    [('{"release": "r"}', "staged"), ('{"a": ', ""), ("[]", ""), (None, ""), ("", ""), ("[" * 9999, "")],
)
def test_half_made_record_is_none(tmp_path: Path, text: str | None, state: str) -> None:
    layout = Layout(str(tmp_path), "forge")
    if text is not None:
        path = Path(layout.record(ID))
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert layout.read_record(ID).state == state


@pytest.mark.parametrize("kind", ["directory", "pipe", "nothing"])
def test_what_is_no_file_is_read_as_nothing_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "release.json"
    {"directory": path.mkdir, "pipe": lambda: os.mkfifo(path), "nothing": lambda: None}[kind]()
    assert read_json(str(path)) is None


def test_of_a_file_that_has_grown_without_bounds_the_end_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_module, "LARGEST", 4)
    (tmp_path / "ledger").write_text("0123456789")
    assert read_file(str(tmp_path / "ledger")) == b"6789"


@pytest.mark.parametrize("name", ["", "../../../etc", ID + "\n", ID.upper(), "0123456789ab", ID + "0", f" {ID}"])
def test_what_is_no_id_of_a_generation(name: str) -> None:
    assert GENERATION_ID.match(ID)
    assert not GENERATION_ID.match(name)


@pytest.mark.parametrize("found", ["directory", "pipe"])
def test_what_is_in_the_place_of_a_file_or_of_the_link_is_set_aside(tmp_path: Path, owners: object, found: str) -> None:
    home = tmp_path / "shop"
    home.mkdir()
    for name in ("release.json", "current.tmp"):
        (home / name).mkdir() if found == "directory" else os.mkfifo(home / name)
    write_atomically(str(home / "release.json"), b"new", 0o644)
    assert (home / "release.json").read_text() == "new"
    layout = Layout(str(tmp_path), "shop")
    layout.point_current(ID)
    assert layout.live() == ID
    assert len([name for name in os.listdir(home) if ".found-" in name]) == 2


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write or a sync does not say to which file, as an open does."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(os, "fchown", lambda *_arguments: None)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(str(tmp_path / "lock.json"), b"new", 0o644)
    assert caught.value.filename == str(tmp_path / "lock.json")
    assert os.listdir(tmp_path) == []
