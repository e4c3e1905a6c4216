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
    git(shop, "add", "--all")
    git(shop, "add", "--force", ".env", "shop/__pycache__", "node_modules")  # even a tracked .env stays out
    git(shop, "rm", "-q", "-r", "--cached", "uv.lock", ".venv")
    git(shop, "commit", "-q", "-m", "one")
    write(shop, {"shop/new.py": "", "gone.py": ""})
    git(shop, "add", "gone.py")
    (shop / "gone.py").unlink()
    source = open_source(str(shop))
    expected = sorted([".gitignore", *RELEASED, "node_modules/x/index.js", "shop/new.py", "tests/test_shop.py"])
    assert list_files(source, []) == expected, "nothing that git tracks is left out"
    assert list_files(source, ["tests/"]) == [name for name in expected if not name.startswith("tests/")]
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
    with pytest.raises(BuildError, match="vendor is a git submodule or nested repository: name it in forge_source_include"):
        make_archive(source, list_files(source, []))
    assert "vendor/x.py" in unpack(make_archive(source, list_files(source, [], ["vendor"])))


@pytest.mark.parametrize("repository", ["with", "without"])
@pytest.mark.parametrize("there", ["empty", "absent"])
def test_a_submodule_that_is_not_checked_out_is_refused(shop: Path, repository: str, there: str) -> None:
    """Also in what a forge packs for a download, which has no repository."""
    write(shop, {".gitmodules": '[submodule "x"]\n\tpath = vendor/x\n\turl = https://example.org/x.git\n'})
    if repository == "with":
        git(shop, "init", "-q")
        git(shop, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendor/x")
    if there == "empty":
        (shop / "vendor" / "x").mkdir(parents=True)
    source = open_source(str(shop))
    with pytest.raises(BuildError, match=r"vendor/x is a git submodule that is not checked out: .*git submodule update"):
        list_files(source, [])
    assert "shop/main.py" in list_files(source, ["vendor"])


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n"


def test_a_pointer_of_git_lfs_is_refused_by_name(shop: Path) -> None:
    write(shop, {f"models/{number}.bin": POINTER.format("0" * 64) for number in range(5)})
    source = open_source(str(shop))
    with pytest.raises(BuildError, match=r"\(models/0.bin, models/1.bin, models/2.bin and 2 more\): .*'git lfs pull'"):
        make_archive(source, list_files(source, []))
    make_archive(source, list_files(source, ["models"]))


def test_a_file_that_a_sparse_checkout_leaves_out_is_missed(shop: Path) -> None:
    git(shop, "init", "-q")
    git(shop, "add", "--all")
    git(shop, "commit", "-q", "-m", "one")
    git(shop, "sparse-checkout", "set", "--no-cone", "/*", "!/tests/")
    with pytest.raises(BuildError, match=r"is a sparse checkout without tests/test_shop.py: run 'git sparse-checkout disable'"):
        list_files(open_source(str(shop)), [])
    assert "shop/main.py" in list_files(open_source(str(shop)), ["tests"])


@pytest.mark.parametrize("tracked", [True, False])
def test_pipes_and_sockets_do_not_hold_up_a_build(shop: Path, tracked: bool) -> None:
    os.mkfifo(shop / "shop" / "pipe")
    if tracked:
        git(shop, "init", "-q")
    source = open_source(str(shop))
    assert "shop/pipe" not in unpack(make_archive(source, list_files(source, [])))


def test_what_is_included_belongs_to_a_release_although_git_ignores_it(shop: Path) -> None:
    write(shop, {".gitignore": "dist/\n*.css\n.env*\n", "web/dist/app.js": "1", "web/dist/.env": "x", "a.css": "", "x/b.css": ""})
    git(shop, "init", "-q")
    source = open_source(str(shop))

    def packed(*include: str, exclude: tuple[str, ...] = ()) -> bytes:
        return make_archive(source, list_files(source, exclude, include))

    new = {"web/dist/app.js", "a.css", "x/b.css", ".env.local"}
    assert not new & set(unpack(packed()))
    assert new & set(unpack(packed("web/dist/", "*.css"))) == {"web/dist/app.js", "a.css"}
    assert new & set(unpack(packed("**/*.css", ".env.local"))) == {"a.css", "x/b.css", ".env.local"}
    assert new & set(unpack(packed("web", exclude=("web/dist",)))) == set()
    assert "web/dist/.env" not in unpack(packed("web/dist"))
    first = packed("web/dist")
    write(shop, {"web/dist/app.js": "2"})
    assert packed("web/dist") != first, "its content is part of the release's id"


@pytest.mark.parametrize("pattern", ["frontend/dist", "*.map", "empty"])
def test_what_is_included_and_not_there_is_said(shop: Path, pattern: str) -> None:
    (shop / "empty").mkdir()
    with pytest.raises(BuildError, match=r"^forge_source_include: there is no .* in .*: run what makes it before the build"):
        list_files(open_source(str(shop)), [], [pattern])


@pytest.mark.parametrize("pattern", ["/etc", "../other", "a/../../b", "", "/"])
def test_what_is_included_must_be_below_the_source(shop: Path, pattern: str) -> None:
    with pytest.raises(BuildError, match=r"^forge_source_include: .* must be a path or a pattern below the source"):
        list_files(open_source(str(shop)), [], [pattern])


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
