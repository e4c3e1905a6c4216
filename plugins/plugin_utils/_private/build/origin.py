# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""What ``forge_source`` names: a directory, a git repository, a wheel, a requirement, or an artifact."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from .errors import BuildError
from .cache import digest, used
from .index import Index, without_secrets
from .source import Source, open_source

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


def open_origin(source: str, sub: str, cache: Path, index: Index) -> Source:
    """The source that a value of ``forge_source`` names, an artifact left out.

    :raises BuildError: one sentence.
    """
    if not source:
        raise BuildError("forge_source is not set: name a directory, a git URL, a wheel, a requirement or an artifact.")
    kind = kind_of(source)
    if sub and kind not in ("git", "directory"):
        raise BuildError(f"forge_source_directory is for a directory or a git URL, but forge_source is a {kind}.")
    if kind == "git":
        checkout, commit = fetch_git(source, cache, index)
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


def fetch_git(source: str, cache: Path, index: Index, what: str = "forge_source") -> tuple[Path, str]:
    """A checkout, in the cache, of the commit that a git URL names.

    :param what: begins the sentence of an error.
    :returns: its directory, and the commit.
    :raises BuildError: when the repository or the ref is not there.
    """
    address, ref = split_git(source)
    if ref.startswith("-"):
        raise BuildError(f"{what}: {ref!r} is not a ref.")
    shown = without_secrets(address)
    plain = re.sub(r"(?<=^https://)[^/@]+@|(?<=^http://)[^/@]+@", "", address)
    extra: dict[str, Any] = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    if plain != address:  # credentials travel in the environment
        extra |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{address}.insteadOf", "GIT_CONFIG_VALUE_0": plain}
    mirror = cache / "git" / f"{digest(plain.encode())[:16]}.git"

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            done = index.run("git", "-C", str(mirror), *arguments, **extra)
        except FileNotFoundError:
            raise BuildError(f"{what} is a git URL, but the controller has no git.") from None
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    def commit_of() -> str:
        names = [f"refs/tags/{ref}", f"refs/heads/{ref}", ref] if ref else ["refs/forge/HEAD"]
        for name in names:
            code, found, _words = run("rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}")
            if code == 0:
                return found
        return ""

    if not (mirror / "HEAD").is_file():
        mirror.mkdir(parents=True, exist_ok=True)
        run("init", "--quiet", "--bare")
    commit = commit_of() if re.fullmatch(r"[0-9a-f]{40}", ref) else ""
    if not commit:
        code, _found, words = run(
            "fetch", "--quiet", "--prune", "--force", plain,
            "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/forge/HEAD",
        )  # fmt: skip
        if code != 0:
            cause = next((line for line in words.splitlines() if line.startswith(("fatal:", "error:"))), words[-300:])
            raise BuildError(f"{what}: {shown} cannot be fetched: {cause.partition(': ')[2] or cause}.")
        commit = commit_of()
    if not commit:
        raise BuildError(f"{what}: {shown} has no branch, tag or commit {ref or 'HEAD'}.")
    used(mirror)
    checkout = cache / "checkouts" / f"{mirror.name[:-4]}-{commit[:16]}"
    if not (checkout / ".git").is_dir():
        checkout.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=checkout.parent))
        try:
            # The mirror may go from the cache before the checkout does: nothing is shared.
            code, _found, words = run("clone", "--quiet", "--no-checkout", "--no-hardlinks", str(mirror), str(staging))
            if code == 0:
                code, _found, words = run("-C", str(staging), "checkout", "--quiet", "--detach", commit)
            if code != 0:
                raise BuildError(f"{what}: {shown} cannot be checked out: {words[-300:]}")
            shutil.rmtree(checkout, ignore_errors=True)
            os.rename(staging, checkout)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return used(checkout), commit


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
