# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the user that make what a release needs besides its source, such as the files of a frontend."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....module_utils._private.archive import trusting, unpack
from ....module_utils._private.cause import first_cause
from ....module_utils._private.transient import TransientError, argv_of
from .cache import digest, put, touch
from .errors import BuildError
from .project_wheel import copy_tree
from .source import Source, all_files, content_of, exists, files_below, git, is_bulk, is_left_out, make_archive
from .wheel_builder import CompileJob, NeedsCompiling
from .workspace import Workspace, without_secrets

COMMAND_SECONDS = 1800  # as the documentation of the module build says


@contextmanager
def prepared(
    source: Source, names: list[str], options: Mapping[str, Any], workspace: Workspace
) -> Iterator[tuple[Source, list[str]]]:
    """A source as the commands of a build leave it, for as long as the block runs, and the names of its files for a release.

    The commands run in a copy; without any, it is the source itself. What they make is cached by their words and all files of
    the source.

    :param names: files of the source that belong to a release.
    :param options: arguments of the module ``build``.
    :raises BuildError: when a command fails, and for what the block raises, about the source and not about its copy.
    :raises NeedsCompiling: as the block does.
    """
    if not options["commands"]:
        yield source, names
        return
    whole = with_what_is_beside(source)
    place = source.directory.relative_to(whole.directory)
    found = sorted({*all_files(whole), *(str(place / name) for name in all_files(source, options["include"]))})
    key = key_of(source, names, options, [whole.directory / name for name in found])
    with tempfile.TemporaryDirectory() as scratch:
        try:
            directory = copy_tree(whole, found, Path(scratch).resolve()) / place
        except OSError as error:
            raise BuildError(f"{error.filename or source.directory} cannot be copied: {error.strerror}.") from None
        tree = replace(source, directory=directory, top=directory)
        try:
            yield tree, complete_tree(tree, names, workspace.cache / "made" / f"{key}.tar.gz", options, workspace)
        except NeedsCompiling as needed:
            raise NeedsCompiling([kept(job) for job in needed.jobs]) from None
        except BuildError as error:
            raise BuildError(str(error).replace(str(directory), str(source.directory))) from None


def kept(job: CompileJob) -> CompileJob:
    """A job for a host whose source outlives the copy that it is taken from."""
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(job.source(Path(scratch)), "source")

    def put_below(scratch: Path) -> Path:
        packed.seek(0)
        with tarfile.open(fileobj=packed) as archive:
            archive.extractall(scratch, **trusting(archive))
        return scratch / "source"

    return replace(job, source=put_below)


def with_what_is_beside(source: Source) -> Source:
    """The source with all that commands reach by ``..``, such as a frontend beside its backend: its repository, or forge_source."""
    top = git(source.directory, "rev-parse", "--show-toplevel").rstrip("\n") if source.commit else ""
    return replace(source, directory=Path(top).resolve() if top else source.top or source.directory)


def key_of(source: Source, names: list[str], options: Mapping[str, Any], found: Sequence[Path]) -> str:
    """Hash of what decides what the commands make: all files that they find, also those that are not released, and their words.

    :raises BuildError: for files that no release can have, before anything runs.
    """
    released = {source.directory / name for name in names}
    texts = [repr((options["commands"], options["exclude"])).encode(), make_archive(source, names)]
    for path in found:
        if path not in released:
            texts += [os.fsencode(os.path.relpath(path, source.directory)), content_of(path)]
    return digest(*texts)[:16]


def complete_tree(
    tree: Source, names: list[str], cached: Path, options: Mapping[str, Any], workspace: Workspace
) -> list[str]:
    """Put what the commands make into a copy of the source: from the cache, or by running them.

    :param cached: archive of the files for a release.
    :returns: names of these.
    :raises BuildError: when a command fails, or makes what no release can have.
    """
    if cached.is_file():
        for name in names:
            (tree.directory / name).unlink(missing_ok=True)
        unpack(touch(cached), tree.directory)
        with tarfile.open(cached) as archive:
            return archive.getnames()

    def found() -> set[str]:
        exclude = options["exclude"]
        return set(files_below(tree.directory, lambda name: not is_left_out(name, exclude) and not is_bulk(name)))

    before = found()
    for command in options["commands"]:
        run_command(command, tree.directory, workspace)
    kept = {name for name in names if exists(tree.directory / name)}
    released = sorted(kept | (found() - before))
    put(cached, gzip.compress(make_archive(tree, released), mtime=0))
    return released


def run_command(command: str, directory: Path, workspace: Workspace) -> None:
    """Run one command, without a shell. It ends in time, and with it whatever it has started.

    :raises BuildError: when it cannot be run, fails, or does not end within :data:`COMMAND_SECONDS`.
    """
    environment = workspace.environment()
    try:
        argv = argv_of(command)
    except TransientError as error:
        raise BuildError(f"forge_build_commands: {command!r}: {error}") from None
    program = next((word for word in argv if "=" not in word), "env")
    if not shutil.which(str(directory / program) if "/" in program else program, path=environment.get("PATH")):
        raise BuildError(
            f"forge_build_commands: {command!r}: there is no program {program} on the controller: install it, or correct the command."
        )
    # As on hosts: env lets a command begin with variables.
    with subprocess.Popen(
        ["/usr/bin/env", "--", *argv], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _nothing = process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            raise BuildError(
                f"forge_build_commands: {command!r} did not end within {COMMAND_SECONDS} s and was stopped: does it wait for something, "
                "or watch files?"
            ) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        cause = without_secrets(cause_of(output.splitlines()))
        raise BuildError(
            f"forge_build_commands: {command!r} failed with exit code {process.returncode} in a copy of {directory}{cause}."
        )


def cause_of(lines: Sequence[str]) -> str:
    """The first cause in what a command has printed, as the end of a sentence."""
    _index, cause = first_cause(list(lines))
    return f": {cause}" if cause else "; it printed nothing"
