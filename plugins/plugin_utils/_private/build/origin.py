# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``forge_source`` names: a directory, a git repository, a wheel, a requirement, or an artifact."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from urllib.parse import urlsplit

from .packaging_library import InvalidRequirement, InvalidWheelFilename, Requirement, parse_wheel_filename
from .errors import BuildError
from .cache import digest, touch
from .source import Source, open_source
from .workspace import Workspace, without_secrets

GIT_NOISE = re.compile(r"Warning:|warning:|@|hint:|Cloning into|remote:\s*$", re.IGNORECASE)
GIT_CAUSE = re.compile(r"^(fatal|error): |^ssh: |Host key verification failed|Permission denied|Connection \w+ by|not found")
COMMIT = re.compile(r"[0-9a-f]{40}")
GIT = re.compile(r"git\+(https|http|ssh|file)://")


def kind_of(source: str) -> str:
    """``git``, ``artifact``, ``wheel``, ``directory`` or ``requirement``."""
    if GIT.match(source):
        return "git"
    address = urlsplit(source) if re.match(r"https?://", source) else None
    path = address.path if address else source
    if path.endswith(".tar"):
        return "artifact"
    if path.endswith(".whl"):
        return "wheel"
    if address or source.startswith("git@"):
        return "unknown"
    if source.startswith(("/", "./", "../", "~")) or os.path.isdir(source):
        return "directory"
    try:
        Requirement(source)
    except InvalidRequirement:
        return "directory"
    return "requirement"


def open_origin(source: str, sub: str, workspace: Workspace) -> Source:
    """The source that a value of ``forge_source`` names, an artifact left out.

    :raises BuildError: when it names nothing that is there, or is not understood.
    """
    if not source:
        raise BuildError("forge_source is not set: name a directory, a git URL, a wheel, a requirement or an artifact.")
    kind = kind_of(source)
    if sub and kind not in ("git", "directory"):
        raise BuildError(f"forge_source_directory is for a directory or a git URL, but forge_source is a {kind}.")
    if kind == "git":
        checkout, commit = fetch_git(source, workspace)
        return open_source(str(checkout), sub, commit)
    if kind == "wheel":
        return open_wheel(source)
    if kind == "requirement":
        requirement = Requirement(source)
        if requirement.url:
            raise BuildError(
                f"forge_source: {without_secrets(source)!r} names an address: give the address alone "
                "(git+https://…@ref), or the path of a wheel."
            )
        return Source(Path("/nonexistent"), {}, "", False, requirement=str(requirement))
    if kind == "unknown":
        raise BuildError(
            f"forge_source: {without_secrets(source)!r} is not understood: a git URL is git+https://host/x.git@ref or "
            "git+ssh://git@host/x.git@ref, an artifact's address ends in .tar."
        )
    return open_source(source, sub)


def split_git(source: str) -> tuple[str, str]:
    """The address and the ref of ``git+https://host/x.git@ref``; the ref may be absent."""
    address = source.removeprefix("git+")
    # An "@" before the path belongs to the user's name; a ref may hold slashes.
    start = address.index("://") + 3
    path = address.find("/", start)
    at = address.find("@", path) if path >= 0 else -1
    return (address[:at], address[at + 1 :]) if at >= 0 else (address, "")


def git_cause(stderr: str) -> str:
    """Why git failed: what ssh says comes before git's own line, which says no more than that ssh has failed."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not GIT_NOISE.match(line)]
    cause = next((line for line in lines if GIT_CAUSE.search(line)), lines[0] if lines else "git failed")
    return re.sub(r"^(fatal|error|remote): ", "", cause)[:300].rstrip(".")


@dataclass(frozen=True)
class Repository:
    """A git repository that is mirrored in the cache."""

    url: str  # without credentials
    shown: str  # for people
    mirror: Path
    environment: dict[str, str]
    workspace: Workspace
    subject: str  # begins the sentence of an error

    def git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return self.workspace.run("git", "-C", str(self.mirror), *arguments, extra=self.environment)
        except FileNotFoundError:
            raise BuildError(f"{self.subject} is a git URL, but the controller has no git.") from None

    def commit_of(self, ref: str) -> str:
        """The commit of a tag, a branch or a commit; empty when the mirror has none."""
        names = [f"refs/tags/{ref}", f"refs/heads/{ref}", ref] if ref else ["refs/forge/HEAD"]
        for name in names:
            found = self.git("rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}")
            if found.returncode == 0:
                return found.stdout.strip()
        return ""

    def update(self) -> None:
        """:raises BuildError: with git's own reason, when the repository cannot be fetched."""
        done = self.git(
            "fetch", "--quiet", "--prune", "--force", self.url,
            "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/forge/HEAD",
        )  # fmt: skip
        if done.returncode != 0:
            raise BuildError(f"{self.subject}: {self.shown} cannot be fetched: {git_cause(done.stderr)}.")

    def ask_for(self, ref: str) -> str:
        """The commit of what no branch and no tag holds: one that the server gives by its hash, or a ref such as pull/12/head.

        :returns: empty when the server gives none.
        """
        asked = ref if COMMIT.fullmatch(ref) or ref.startswith("refs/") else f"refs/{ref}"
        kept = f"refs/forge/{asked}"  # else git may drop it
        done = self.git("fetch", "--quiet", "--force", "--no-tags", self.url, f"+{asked}:{kept}")
        return self.commit_of(kept) if done.returncode == 0 else ""

    def check_out(self, commit: str) -> Path:
        """A checkout of a commit, kept in the cache.

        :raises BuildError: with git's own reason.
        """
        checkout = self.workspace.cache / "checkouts" / f"{self.mirror.name[:-4]}-{commit[:16]}"
        if (checkout / ".git").is_dir():
            return touch(checkout)
        checkout.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=checkout.parent))
        try:
            # The mirror may go from the cache before the checkout does: nothing is shared.
            done = self.git("clone", "--quiet", "--no-checkout", "--no-hardlinks", str(self.mirror), str(staging))
            if done.returncode == 0:
                done = self.git("-C", str(staging), "checkout", "--quiet", "--detach", commit)
            if done.returncode != 0:
                raise BuildError(f"{self.subject}: {self.shown} cannot be checked out: {git_cause(done.stderr)}.")
            shutil.rmtree(checkout, ignore_errors=True)
            os.rename(staging, checkout)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return touch(checkout)


def fetch_git(source: str, workspace: Workspace, subject: str = "forge_source") -> tuple[Path, str]:
    """A checkout, in the cache, of the commit that a git URL names.

    :param subject: begins the sentence of an error.
    :returns: its directory, and the commit.
    :raises BuildError: when the repository or the ref is not there.
    """
    address, ref = split_git(source)
    if ref.startswith("-"):
        raise BuildError(f"{subject}: {ref!r} is not a ref.")
    url = re.sub(r"(?<=^https://)[^/@]+@|(?<=^http://)[^/@]+@", "", address)
    environment = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_LFS_SKIP_SMUDGE": "1"}
    if url != address:  # credentials travel in the environment
        environment |= {
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{address}.insteadOf", "GIT_CONFIG_VALUE_0": url,
        }  # fmt: skip
    mirror = workspace.cache / "git" / f"{digest(url.encode())[:16]}.git"
    repository = Repository(url, without_secrets(address), mirror, environment, workspace, subject)
    if not (mirror / "HEAD").is_file():
        mirror.mkdir(parents=True, exist_ok=True)
        repository.git("init", "--quiet", "--bare")
    commit = repository.commit_of(ref) if COMMIT.fullmatch(ref) else ""
    if not commit:
        repository.update()
        commit = repository.commit_of(ref) or (repository.ask_for(ref) if ref else "")
    if not commit and COMMIT.fullmatch(ref):
        raise BuildError(
            f"{subject}: {repository.shown} has no commit {ref}, or does not give one that no branch or tag holds: push one with it."
        )
    if not commit:
        raise BuildError(f"{subject}: {repository.shown} has no branch, tag or commit {ref or 'HEAD'}.")
    touch(mirror)
    return repository.check_out(commit), commit


def open_wheel(source: str) -> Source:
    """A wheel that lies on the controller.

    :raises BuildError: when it is not there, or no wheel.
    """
    path = Path(source).expanduser().resolve()
    if not path.is_file():
        raise BuildError(f"forge_source: there is no wheel {path}.")
    try:
        name, version = parse_wheel_filename(path.name)[:2]
        with zipfile.ZipFile(path) as wheel:
            metadata = next(each for each in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each))
            headers = HeaderParser().parsestr(wheel.read(metadata).decode("utf-8", "replace"))
    except (InvalidWheelFilename, zipfile.BadZipFile, StopIteration, OSError) as error:
        raise BuildError(f"forge_source: {path} is not a wheel: {error or 'it has no metadata'}.") from None
    project = {"project": {"requires-python": headers.get("Requires-Python", "")}}
    return Source(Path("/nonexistent"), project, "", False, requirement=f"{name}=={version}", wheel=path)
