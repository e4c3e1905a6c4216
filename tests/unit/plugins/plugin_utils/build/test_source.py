# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a source belongs to a release, and the archive that is made of it."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.cache import digest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.source import (
    Source,
    check_target,
    list_files,
    make_archive,
    open_source,
)
from hypothesis import given
from hypothesis import strategies as st


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with what people leave lying about in one."""
    root = tmp_path / "shop"
    write(
        root,
        {
            "pyproject.toml": '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n',
            "uv.lock": "",
            "shop/__init__.py": "",
            "shop/main.py": "app = None\n",
            "shop/__pycache__/main.cpython-311.pyc": "x",
            "tests/test_shop.py": "",
            "tests_of_taste.md": "",
            ".env": "FORGE_SECRET_KEY=dev\n",
            ".env.local": "FORGE_SECRET_KEY=dev\n",
            "deploy/.envrc": "export A=1\n",
            ".env.d/dev": "FORGE_SECRET_KEY=dev\n",
            ".venv/bin/python": "x",
            "node_modules/x/index.js": "x",
        },
    )
    return root


RELEASED = ["pyproject.toml", "shop/__init__.py", "shop/main.py", "tests_of_taste.md", "uv.lock"]


def test_without_git_everything_but_environments_and_caches_belongs(shop: Path) -> None:
    source = open_source(str(shop))
    assert list_files(source, ["tests"]) == RELEASED
    assert "tests/test_shop.py" in list_files(source, [])
    assert (source.commit, source.dirty) == ("", False)


def test_with_git_what_it_ignores_stays_out_and_what_is_new_goes_in(shop: Path) -> None:
    write(shop, {".gitignore": "*.log\n/data/\n", "app.log": "x", "data/dump.sql": "x"})
    git(shop, "init", "-q")
    git(shop, "add", "--force", "--all")  # even a tracked .env stays out
    git(shop, "rm", "-q", "--cached", "app.log", "data/dump.sql", "uv.lock")
    git(shop, "commit", "-q", "-m", "one")
    write(shop, {"shop/new.py": "", "gone.py": ""})
    git(shop, "add", "gone.py")
    (shop / "gone.py").unlink()
    source = open_source(str(shop))
    assert list_files(source, ["tests/"]) == sorted([".gitignore", *RELEASED, "shop/new.py"])
    assert source.commit == git(shop, "rev-parse", "HEAD").strip()
    assert source.dirty


def test_a_project_below_the_top_of_a_repository_is_taken_alone(shop: Path) -> None:
    write(shop.parent, {"README": "", "other/x.py": ""})
    git(shop.parent, "init", "-q")
    git(shop.parent, "add", "shop/pyproject.toml", "shop/shop/__init__.py", "README")
    git(shop.parent, "commit", "-q", "-m", "one", "--", "shop", "README")
    assert list_files(open_source(str(shop)), ["tests"]) == RELEASED


def test_changes_elsewhere_in_a_repository_do_not_make_a_source_dirty(shop: Path) -> None:
    git(shop.parent, "init", "-q")
    git(shop.parent, "add", "--all")
    git(shop.parent, "commit", "-q", "-m", "one")
    write(shop.parent, {"README": "new"})
    assert not open_source(str(shop)).dirty


def test_a_repository_that_git_does_not_trust_is_not_read_as_if_it_were_none(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without git's help, files that it ignores would be released."""
    git(shop, "init", "-q")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(BuildError, match=r"^forge_source: .* belongs to another user"):
        open_source(str(shop))


def test_file_names_of_any_bytes_are_packed(shop: Path) -> None:
    (shop / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    git(shop, "init", "-q")
    source = open_source(str(shop))
    names = list_files(source, [])
    assert os.fsdecode(b"caf\xe9.txt") in names
    assert os.fsdecode(b"caf\xe9.txt") in unpack(make_archive(source, names))


def unpack(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {entry.name: entry for entry in opened.getmembers()}


def test_archive_depends_on_names_and_contents_alone(shop: Path, tmp_path: Path) -> None:
    (shop / "run").write_text("#!/bin/sh\n")
    (shop / "run").chmod(0o755)
    (shop / "link").symlink_to("shop/main.py")
    first = make_archive(open_source(str(shop)), list_files(open_source(str(shop)), ["tests"]))
    other = tmp_path / "elsewhere"
    old = os.umask(0o077)
    try:
        for name in reversed([*RELEASED, "run"]):
            write(other, {name: (shop / name).read_text()})
            os.utime(other / name, (1, 1))
    finally:
        os.umask(old)
    (other / "run").chmod(0o700)
    (other / "link").symlink_to("shop/main.py")
    (other / ".git").mkdir()
    source = open_source(str(other))
    assert make_archive(source, list_files(source, [])) == first
    entries = unpack(first)
    assert sorted(entries) == sorted([*RELEASED, "run", "link"])
    assert (entries["run"].mode, entries["shop/main.py"].mode) == (0o755, 0o644)
    assert entries["link"].linkname == "shop/main.py"
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries.values()} == {(0, 0, 0)}


@pytest.mark.parametrize("change", ["content", "mode", "name", "link"])
def test_archive_sees_every_change_that_matters(shop: Path, change: str) -> None:
    (shop / "link").symlink_to("pyproject.toml")

    def archive() -> bytes:
        source = open_source(str(shop))
        return make_archive(source, list_files(source, []))

    before = archive()
    main = shop / "shop" / "main.py"
    if change == "content":
        main.write_text("app = True\n")
    elif change == "mode":
        main.chmod(0o755)
    elif change == "name":
        main.rename(shop / "shop" / "other.py")
    else:
        (shop / "link").unlink()
        (shop / "link").symlink_to("uv.lock")
    assert archive() != before


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "{shop}/pyproject.toml"])
@pytest.mark.parametrize("tracked", [True, False])
def test_a_link_that_would_not_hold_on_a_host_is_refused(shop: Path, target: str, tracked: bool) -> None:
    (shop / "shop" / "link").symlink_to(target.format(shop=shop))
    if tracked:
        git(shop, "init", "-q")
    source = open_source(str(shop))
    with pytest.raises(BuildError, match=r"shop/link is a link that leads out of the source"):
        make_archive(source, list_files(source, []))


def test_a_link_to_a_directory_is_a_link_in_the_archive(shop: Path) -> None:
    (shop / "also").symlink_to("shop")
    source = open_source(str(shop))
    entries = unpack(make_archive(source, list_files(source, [])))
    assert entries["also"].issym()
    assert "also/main.py" not in entries


def test_a_repository_within_is_refused(shop: Path) -> None:
    git(shop, "init", "-q")
    (shop / "vendor").mkdir()
    write(shop, {"vendor/x.py": ""})
    git(shop / "vendor", "init", "-q")
    git(shop / "vendor", "add", "x.py")
    git(shop / "vendor", "commit", "-q", "-m", "one")
    git(shop, "add", "vendor")
    source = open_source(str(shop))
    with pytest.raises(BuildError, match="vendor is a git submodule or nested repository"):
        make_archive(source, list_files(source, []))


def test_a_file_that_cannot_be_read_is_named(shop: Path) -> None:
    source = open_source(str(shop))
    with pytest.raises(BuildError, match=r"shop/nothing\.py cannot be read: No such file"):
        make_archive(source, ["shop/nothing.py"])


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (None, "there is no directory"),
        ({"pyproject.toml": "[project\n"}, "pyproject.toml cannot be read: "),
    ],
)
def test_what_is_no_project_is_said_in_a_sentence(tmp_path: Path, files: dict[str, str] | None, sentence: str) -> None:
    root = tmp_path / "source"
    if files is not None:
        root.mkdir()
        write(root, files)
    with pytest.raises(BuildError, match=f"^forge_source: .*{sentence}"):
        open_source(str(root))


def test_requires_python_and_import_paths_come_from_the_project(shop: Path) -> None:
    assert open_source(str(shop)).requires_python == ">=3.11"
    assert open_source(str(shop)).import_paths == ["."]
    (shop / "src").mkdir()
    assert open_source(str(shop)).import_paths == ["src", "."]


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("shop.main:app", ["shop/main.py"]),
        ("shop:create.app()", ["shop/__init__.py"]),
        ("shop.main:app", ["src/shop/main.py"]),
        ("main:app", ["src/main.py", "x.py"]),
        ("of_a_dependency.main:app", ["shop/main.py"]),
    ],
)
def test_target_that_stands_in_the_source_is_accepted(tmp_path: Path, target: str, names: list[str]) -> None:
    (tmp_path / "src").mkdir()
    check_target(Source(tmp_path, {}, "", False), names, ["src", "."], target)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("shop.mian:app", "has no module shop.mian, which 'shop.mian:app' names"),
        ("shop.main", "must have the form package.module:app"),
        ("shop.main:", "must have the form"),
        ("shop/main.py:app", "must have the form"),
        (":app", "must have the form"),
        ("shop.main.more:app", "has no module shop.main.more"),
    ],
)
def test_target_that_cannot_be_loaded_is_refused(tmp_path: Path, target: str, sentence: str) -> None:
    with pytest.raises(BuildError, match=f"^forge_target: .*{sentence}"):
        check_target(Source(tmp_path, {}, "", False), ["shop/main.py", "shop/__init__.py"], ["."], target)


parts = st.lists(st.binary(max_size=3), max_size=3)


@given(parts, parts)
def test_digest_tells_where_one_part_ends(one: list[bytes], other: list[bytes]) -> None:
    assert (digest(*one) == digest(*other)) == (one == other)
