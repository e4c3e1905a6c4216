# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same content gives the same bytes, and no archive writes outside of its directory: with and without Python's own filter."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.archive import (
    ArchiveError,
    Entry,
    tar_bytes,
    unpack,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(params=["python's filter", "ours"], autouse=True)
def _filter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "ours":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    elif not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python has no filter of its own")


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        entry.size = len(content) if kind == tarfile.REGTYPE else 0
        entry.uid, entry.gid, entry.uname, entry.mode = 12345, 12345, "somebody", 0o4777
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_what_is_packed_is_unpacked(tmp_path: Path) -> None:
    entries = [Entry("a/b.txt", b"text"), Entry("bin/run", b"#!", 0o755), Entry("a/c", link="b.txt")]
    unpack(io.BytesIO(gzip.compress(tar_bytes(entries))), tmp_path)
    assert (tmp_path / "a/b.txt").read_bytes() == b"text"
    assert (tmp_path / "bin/run").stat().st_mode & 0o777 == 0o755
    assert os.readlink(tmp_path / "a/c") == "b.txt"


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True), st.binary(max_size=40)))
def test_same_content_same_bytes(files: dict[str, bytes]) -> None:
    assert tar_bytes(Entry(*each) for each in files.items()) == tar_bytes(Entry(*each) for each in files.items())


@pytest.mark.parametrize(
    "archive",
    [
        member("../out"),
        member("a/../../out"),
        member("link", tarfile.SYMTYPE, "../../etc/passwd"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "../out"),
        member("device", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
        b"this is no archive, and that is more than one block of it" * 20,
        gzip.compress(member("a" * 40, content=b"x" * 4000), mtime=0)[:-30],
    ],
)
def test_what_would_leave_its_directory_is_refused(archive: bytes, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(ArchiveError):
        unpack(io.BytesIO(archive), inside)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_a_file_below_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "door").symlink_to("..")
    with pytest.raises(ArchiveError):
        unpack(io.BytesIO(member("door/out")), inside)
    assert not (tmp_path / "out").exists()


def test_owners_and_special_bits_are_not_taken_over(tmp_path: Path) -> None:
    unpack(io.BytesIO(member("file")), tmp_path)
    found = (tmp_path / "file").stat()
    assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())
    assert found.st_mode & 0o7022 == 0
