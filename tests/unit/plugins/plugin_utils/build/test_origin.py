# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What forge_source may name, and what it is taken for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace, without_secrets
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.origin import (
    git_cause,
    kind_of,
    open_origin,
    split_git,
)
from hypothesis import given
from hypothesis import strategies as st

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("/srv/shop", "directory"),
        ("./shop", "directory"),
        ("~/shop", "directory"),
        ("no such thing", "directory"),
        ("git+https://example.org/shop.git@v1", "git"),
        ("git+ssh://git@example.org/shop.git", "git"),
        ("git+file:///srv/shop.git", "git"),
        ("dist/shop-1-py3-none-any.whl", "wheel"),
        ("shop", "requirement"),
        ("shop==1.0", "requirement"),
        ("shop[postgres]>=1,<2", "requirement"),
        ("build/shop.tar", "artifact"),
        ("https://example.org/shop.tar?token=1", "artifact"),
        ("https://example.org/shop.git", "unknown"),
        ("git@example.org:shop.git", "unknown"),
    ],
)
def test_kind(source: str, kind: str) -> None:
    assert kind_of(source) == kind


def test_a_directory_wins_over_a_requirement_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path)
    assert kind_of("shop") == "directory"


@pytest.mark.parametrize(
    ("source", "address", "ref"),
    [
        ("git+https://example.org/shop.git@v1", "https://example.org/shop.git", "v1"),
        ("git+https://example.org/shop.git", "https://example.org/shop.git", ""),
        ("git+ssh://git@example.org/shop.git@feature/x@2", "ssh://git@example.org/shop.git", "feature/x@2"),
        ("git+ssh://git@example.org:2222/team/shop.git", "ssh://git@example.org:2222/team/shop.git", ""),
        ("git+file:///srv/shop.git@main", "file:///srv/shop.git", "main"),
    ],
)
def test_address_and_ref(source: str, address: str, ref: str) -> None:
    assert split_git(source) == (address, ref)


@given(st.text(min_size=1))
def test_whatever_is_given_is_taken_for_something_or_refused_in_a_sentence(source: str) -> None:
    kind = kind_of(source)
    assert kind in ("git", "artifact", "wheel", "directory", "requirement", "unknown")
    if kind in ("wheel", "unknown", "requirement"):
        try:
            open_origin(source, "", Workspace(Path("/nonexistent/cache")))
        except BuildError as error:
            assert str(error).startswith("forge_source")
        except ValueError as error:
            assert "null" in str(error)  # no path holds one


@pytest.mark.parametrize(
    "address",
    [
        f"https://u:{SECRET}@h/x",
        f"git+https://{SECRET}@h/x@main",
        f"a https://u:{SECRET}@h b",
        f"x @ https://h/x.whl?token={SECRET}&a=b#sha256=0",
        f"'https://h/x.tar?{SECRET}'",
    ],
)
def test_secrets_of_an_address_are_not_shown(address: str) -> None:
    assert SECRET not in without_secrets(address)
    assert "h" in without_secrets(address)
    assert without_secrets(address).count("'") == address.count("'")
    assert ("#sha256=0" in without_secrets(address)) == ("#" in address)


class Repository:
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.git("init", "-q", "-b", "main")
        (root / "backend").mkdir()
        (root / "backend" / "pyproject.toml").write_text('[project]\nname = "shop"\nversion = "1"\n')
        self.one = self.commit("one")
        self.git("tag", "v1")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *identity, "-C", self.root, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, words: str) -> str:
        (self.root / "backend" / "words").write_text(words)
        self.git("add", "--all")
        self.git("commit", "-q", "-m", words)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "shop.git")


def test_a_ref_is_a_commit_whose_checkout_is_kept(repository: Repository, tmp_path: Path) -> None:
    two = repository.commit("two")
    for ref, commit, words in (("@v1", repository.one, "one"), ("@main", two, "two"), ("", two, "two"),
                               (f"@{repository.one}", repository.one, "one"), (f"@{two[:9]}", two, "two")):  # fmt: skip
        source = open_origin(f"git+file://{repository.root}{ref}", "backend", Workspace(tmp_path / "cache"))
        assert (source.commit, source.dirty) == (commit, False)
        assert (source.directory / "words").read_text() == words
        assert source.directory.is_relative_to(tmp_path / "cache")


def test_a_branch_is_followed_and_a_known_commit_needs_no_repository(repository: Repository, tmp_path: Path) -> None:
    address = f"git+file://{repository.root}"
    assert open_origin(f"{address}@main", "", Workspace(tmp_path / "cache")).commit == repository.one
    two = repository.commit("two")
    assert open_origin(f"{address}@main", "", Workspace(tmp_path / "cache")).commit == two
    repository.root.rename(tmp_path / "gone")
    assert open_origin(f"{address}@{two}", "", Workspace(tmp_path / "cache")).commit == two


@pytest.fixture
def asked(repository: Repository) -> str:
    """A commit that only a pull request's ref holds, as on GitHub."""
    repository.git("checkout", "-q", "-b", "work")
    commit = repository.commit("of a pull request")
    repository.git("update-ref", "refs/pull/12/head", commit)
    repository.git("checkout", "-q", "main")
    repository.git("branch", "-q", "-D", "work")
    return commit


@pytest.mark.parametrize("protocol", ["0", "2"])
def test_a_commit_of_a_pull_request_is_fetched_by_its_hash(
    repository: Repository, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    speak(monkeypatch, tmp_path, protocol)
    repository.git("config", "uploadpack.allowReachableSHA1InWant", "true")
    address = f"git+file://{repository.root}"
    source = open_origin(f"{address}@{asked}", "backend", Workspace(tmp_path / "cache"))
    assert (source.commit, (source.directory / "words").read_text()) == (asked, "of a pull request")
    repository.root.rename(tmp_path / "gone")
    assert open_origin(f"{address}@{asked}", "", Workspace(tmp_path / "cache")).commit == asked


def test_a_commit_that_no_ref_holds_is_fetched_where_the_server_gives_it(
    repository: Repository, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(monkeypatch, tmp_path, "0")
    address = f"git+file://{repository.root}@{asked}"
    repository.git("update-ref", "-d", "refs/pull/12/head")
    refused = (
        rf"^forge_source: file://{repository.root} has no commit {asked}, or does not give one that no branch or tag holds: "
        r"push one with it\.$"
    )
    with pytest.raises(BuildError, match=refused):
        open_origin(address, "", Workspace(tmp_path / "cache"))
    repository.git("config", "uploadpack.allowAnySHA1InWant", "true")
    assert open_origin(address, "", Workspace(tmp_path / "cache")).commit == asked
    with pytest.raises(BuildError, match=refused.replace(asked, "0" * 40)):
        open_origin(address.replace(asked, "0" * 40), "", Workspace(tmp_path / "cache"))


@pytest.mark.parametrize("ref", ["refs/pull/12/head", "pull/12/head"])
def test_a_ref_of_a_pull_request_is_followed(repository: Repository, asked: str, tmp_path: Path, ref: str) -> None:
    address = f"git+file://{repository.root}@{ref}"
    assert open_origin(address, "", Workspace(tmp_path / "cache")).commit == asked
    repository.git("update-ref", "refs/pull/12/head", repository.one)
    assert open_origin(address, "", Workspace(tmp_path / "cache")).commit == repository.one
    repository.git("update-ref", "-d", "refs/pull/12/head")
    with pytest.raises(BuildError, match=f"has no branch, tag or commit {ref}\\.$"):
        open_origin(address, "", Workspace(tmp_path / "cache"))


def speak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protocol: str) -> None:
    """Let git speak a version of its protocol. Since version 2 a server gives any commit, whatever it is told."""
    (tmp_path / "gitconfig").write_text(f"[protocol]\nversion = {protocol}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))


@pytest.mark.parametrize(
    ("source", "sub", "sentence"),
    [
        ("git+file://{root}@nothing", "", r"has no branch, tag or commit nothing\.$"),
        ("git+file:///nowhere/x.git@v1", "", r"file:///nowhere/x\.git cannot be fetched: .*not appear to be a git rep"),
        ("git+file://{root}@--upload-pack=x", "", r"'--upload-pack=x' is not a ref"),
        ("git+file://{root}@v1", "frontend", r"^forge_source_directory: .* has no directory frontend"),
        ("git+file://{root}@v1", "../..", r"^forge_source_directory: "),
        ("shop==1", "backend", r"^forge_source_directory is for a directory or a git URL"),
        ("", "", "forge_source is not set"),
        ("nothing-1-py3-none-any.whl", "", "there is no wheel"),
        ("shop @ https://example.org/shop.zip", "", "names an address"),
        ("https://u:hunter2-hunter2@example.org/shop.git", "", "is not understood"),
    ],
)
def test_what_is_not_there_is_one_sentence(
    repository: Repository, tmp_path: Path, source: str, sub: str, sentence: str
) -> None:
    with pytest.raises(BuildError, match=sentence) as caught:
        open_origin(source.format(root=repository.root), sub, Workspace(tmp_path / "cache"))
    assert SECRET not in str(caught.value)


def test_a_file_that_is_no_wheel_is_said(tmp_path: Path) -> None:
    for name in ("shop.whl", "shop-1-py3-none-any.whl"):
        (tmp_path / name).write_text("x")
        with pytest.raises(BuildError, match="is not a wheel"):
            open_origin(str(tmp_path / name), "", Workspace(tmp_path))


@pytest.mark.parametrize(
    ("stderr", "cause"),
    [
        ("Host key verification failed.\nfatal: Could not read from remote repository.\n\nPlease make sure", "Host key verification failed"),
        (
            "Warning: Permanently added 'h' to the list of known hosts.\ngit@h: Permission denied (publickey).\nfatal: Could not read",
            "git@h: Permission denied (publickey)",
        ),
        ("ssh: Could not resolve hostname h: Name or service not known\nfatal: Could not read", "ssh: Could not resolve hostname h: Name or service not known"),
        ("@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\nfatal: Could", "Host key verification failed"),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", "could not read Username for 'https://h': terminal prompts disabled"),
        ("remote: \nremote: Repository not found.\nfatal: repository 'https://h/x/' not found", "Repository not found"),
        ("fatal: unable to access 'https://h/': Could not resolve host: h", "unable to access 'https://h/': Could not resolve host: h"),
        ("", "git failed"),
    ],
)  # fmt: skip
def test_gits_first_cause_is_what_ssh_said(stderr: str, cause: str) -> None:
    assert git_cause(stderr) == cause
