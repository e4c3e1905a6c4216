# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Source in, artifact out: once, on the controller, cached by content."""

from __future__ import annotations

import gzip
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from .packaging_library import InvalidSpecifier, SpecifierSet
from .artifact import open_artifact, write_artifact
from .build_commands import prepared
from .cache import digest, evict, file_digest, put, touch
from .errors import BuildError
from .interpreter import Interpreter, choices, installed_in, runs_here
from .layer import ID_LENGTH, Layer, build_layer, requirement_of
from .lockfile import REQUIREMENTS_SUFFIXES, Lock, Wanted, add_server, directs_for, lock_of, pins_for
from .origin import kind_of, open_origin
from .poetry import groups_of, in_standard_tables
from .project_wheel import INSTALLED, complete
from .records import BuildRecord, result_of, write_record
from .source import Source, check_target, git, list_files, make_archive
from .target_platform import Platform, too_old
from .wheel_builder import CompileJob, NeedsCompiling, oldest_first, together
from .wheels import is_path_of, wheel_of_direct
from .workspace import Workspace


def build(options: Mapping[str, Any], platforms: list[Platform], workspace: Workspace, builder: str) -> dict[str, Any]:
    """Make, or find in the cache, the artifact of a source for each platform.

    :param options: arguments of the module ``build``.
    :param platforms: what the hosts are; one layer is made for each.
    :param builder: who builds, and where.
    :returns: what the module ``build`` documents.
    :raises NeedsCompiling: for what has to be compiled on hosts first.
    :raises BuildError: for a source, a lock, a package or a target that will not do.
    """
    started = time.time()
    kind = kind_of(options["source"])
    if options["commands"] and kind in ("wheel", "requirement"):
        raise BuildError(
            f"forge_build_commands is for a directory or a git URL, but forge_source is of another kind ({kind}): leave it out, as with "
            "-e '{\"forge_build_commands\": []}'."
        )
    if kind == "artifact":
        if options["artifact"]:
            raise BuildError("forge_artifact: forge_source is an artifact already.")
        record, created = open_artifact(options["source"], options["sha256"], workspace)
        return result_of(record, platforms, created)
    source = in_standard_tables(open_origin(options["source"], options["directory"], workspace), workspace)
    check_source(source, options["dirty"])
    refused: NeedsCompiling | None = None
    for chosen, pythons in choices(source.requires_python, platforms, workspace):
        check_pythons(source, chosen)
        try:
            return build_for(source, chosen, pythons, options, workspace, builder, started)
        except NeedsCompiling as needed:
            if not any(job.platform.interpreter for job in needed.jobs):
                raise
            refused = refused or needed
    if refused:
        raise BuildError(
            f"{', '.join(job.requirement for job in refused.jobs)} has no wheel for {refused.jobs[0].platform}, and a standalone Python "
            "compiles nothing: choose an older one in forge_python, or one that the hosts' own packages have."
        )
    raise BuildError("There are no hosts to build for.")


def build_for(
    source: Source,
    platforms: list[Platform],
    pythons: dict[str, Interpreter],
    options: Mapping[str, Any],
    workspace: Workspace,
    builder: str,
    started: float,
) -> dict[str, Any]:
    """As :func:`build`, when it is known which Python each platform has.

    :param pythons: standalone ones, by id.
    :param started: when the build began, in seconds since 1970.
    """
    if any(runs_here(each, workspace) for each in pythons.values()):
        workspace = replace(workspace, pythons=str(installed_in(workspace)))
    named = source.directory / (options["lock"] or "requirements.txt")
    requirements = named if named.suffix in REQUIREMENTS_SUFFIXES and named.is_file() else source.find("requirements.txt")
    workspace = workspace.with_project(
        source.project, requirements.read_text(encoding="utf-8", errors="replace") if requirements else ""
    )
    names = [] if source.requirement else list_files(source, options["exclude"], options["include"])
    wanted = Wanted(tuple(options["extras"]), tuple(options["groups"]), options["lock"])
    lock = lock_of(source, wanted, platforms, workspace)
    server = add_server(lock.text, options["server"], options["server_requirements"], platforms, workspace)
    (archive, import_paths), (layers, extra_wheels, new_layers) = together(
        lambda: pack_prepared(source, names, options, platforms, workspace),
        lambda: build_layers(source, lock, server, platforms, workspace),
    )
    release = digest(archive, lock.text.encode())[:ID_LENGTH]
    code = workspace.cache / "releases" / f"{release}.tar.gz"
    created = [] if code.is_file() else [code.name]
    if created:
        put(code, gzip.compress(archive, mtime=0))
    record = BuildRecord(
        release=release,
        commit=source.commit,
        dirty=source.dirty,
        builder=builder,
        code=str(touch(code)),
        code_sha256=file_digest(code),
        import_paths=import_paths,
        requires_python=source.requires_python,
        locks=[str(each.path) for each in (lock, server) if each],
        base=str(lock.base),
        project=str(source.directory),
        extra_wheels=extra_wheels,
        layers=layers,
        pythons=pythons,
        time=commit_time(source),
    )
    write_record(workspace.cache, record)
    if options["artifact"]:
        write_artifact(Path(options["artifact"]).expanduser(), record, workspace)
    created += new_layers
    if created and options["cache_mb"]:
        evict(workspace.cache, options["cache_mb"] << 20, started)
    notes = [lock.note] if lock.note else []
    if not wanted.groups and groups_of(source) and not any(pins_for(lock.text, each) for each in platforms):
        notes.append(
            f"forge_source: {source.directory} depends on nothing by itself, but has dependency groups: name those that the app "
            f"needs in forge_source_groups ({', '.join(sorted(groups_of(source)))})."
        )
    return result_of(record, platforms, created, notes)


def check_source(source: Source, dirty: bool) -> None:
    """Check what can be known before anything is built.

    :param dirty: may the source have changes that are not committed?
    :raises BuildError: when it has such changes, or says in no known way which Pythons it accepts.
    """
    if source.dirty and not dirty:
        raise BuildError(
            f"forge_source: {source.directory} has changes that are not committed: commit them, or set "
            "forge_source_dirty to true."
        )
    try:
        SpecifierSet(source.requires_python)
    except InvalidSpecifier:
        raise BuildError(
            f"{source.directory}: requires-python {source.requires_python!r} is not a version range."
        ) from None


def check_pythons(source: Source, platforms: list[Platform]) -> None:
    """:raises BuildError: when a host's Python does not meet ``requires-python``."""
    hosts = too_old(source.requires_python, platforms)
    if hosts:
        raise BuildError(
            f"The app needs Python {source.requires_python}, but {', '.join(hosts)}: "
            "set forge_python to a version that it accepts, such as 3.14, or leave it out (of an image: another forge_image_base)."
        )


def commit_time(source: Source) -> str:
    """When the source was committed (ISO 8601); empty outside of git."""
    if not source.commit:
        return ""
    return git(source.directory, "show", "--no-patch", "--format=%cI", source.commit).strip()


def pack_prepared(
    source: Source, names: list[str], options: Mapping[str, Any], platforms: Sequence[Platform], workspace: Workspace
) -> tuple[bytes, list[str]]:
    """As :func:`pack`, with what the commands of the build make.

    :raises BuildError: also when one of them fails.
    """
    with prepared(source, names, options, workspace) as (tree, files):
        return pack(tree, files, options["exclude"], options["target"], platforms, workspace)


def pack(
    source: Source, names: list[str], exclude: list[str], target: str, platforms: Sequence[Platform], workspace: Workspace
) -> tuple[bytes, list[str]]:
    """The code of a release, uncompressed, and the directories of it that belong on ``sys.path``.

    :raises NeedsCompiling: for compiled parts of the project that have to be made on hosts first.
    :raises BuildError: when the project does not build, or lacks the target.
    """
    if source.requirement:
        check_target(source, [], ["."], target)
        return make_archive(source, [], {"requirement.txt": source.requirement_entry()}), ["."]
    archive = make_archive(source, names)
    kept, added = complete(source, names, exclude, archive, platforms, workspace)
    installed = any(name.startswith(f"{INSTALLED}/") for name in added)
    import_paths = [*source.import_paths, *([INSTALLED] if installed else [])]
    check_target(source, [*kept, *added], import_paths, target)
    return (make_archive(source, kept, added) if added else archive), import_paths


def build_layers(
    source: Source, lock: Lock, server: Lock | None, platforms: Sequence[Platform], workspace: Workspace
) -> tuple[dict[str, Layer], list[str], list[str]]:
    """A layer for each platform, side by side.

    :returns: layers by key of the platform; names and versions of wheels that no index has; what was made now.
    :raises NeedsCompiling: for what has to be compiled on hosts first, of all platforms.
    :raises BuildError: for a package that cannot be had.
    """

    def layer_for(platform: Platform) -> tuple[Layer, bool, list[Path]] | NeedsCompiling:
        pins = pins_for(lock.text, platform)
        present = {pin.name for pin in pins}
        pins += [pin for pin in pins_for(server.text if server else "", platform) if pin.name not in present]
        try:
            extra_wheels = wheels_without_index(source, lock, platform, workspace)
            return *build_layer(pins, extra_wheels, platform, workspace, lock.written), extra_wheels
        except NeedsCompiling as needed:
            return needed

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(layer_for, platforms))
    jobs = [job for each in found if isinstance(each, NeedsCompiling) for job in each.jobs]
    if jobs:
        raise NeedsCompiling(oldest_first(jobs))
    built = [each for each in found if not isinstance(each, NeedsCompiling)]
    layers = {platform.key: layer for platform, (layer, _created, _wheels) in zip(platforms, built, strict=True)}
    extra = {str(requirement_of(wheel).requirement) for _layer, _created, wheels in built for wheel in wheels}
    return layers, sorted(extra), sorted({layer.layer for layer, created, _wheels in built if created})


def wheels_without_index(source: Source, lock: Lock, platform: Platform, workspace: Workspace) -> list[Path]:
    """Wheels that no index has: the app itself, when that is the source, and what the lock takes from elsewhere.

    :raises NeedsCompiling: for those that have to be compiled on a host of the platform, all of them.
    :raises BuildError: for one that is not there, or does not run on the platform.
    """
    if source.wheel and not platform.takes(source.wheel.name):
        raise BuildError(f"forge_source: {source.wheel.name} does not run on {platform}.")
    found, jobs = [source.wheel] if source.wheel else [], list[CompileJob]()
    for direct in directs_for(lock.text, platform):
        if is_path_of(direct.address, lock.base, source.directory):
            continue  # the app itself: its code is the release
        try:
            found.append(wheel_of_direct(direct, lock.base, platform, workspace))
        except NeedsCompiling as needed:
            jobs += needed.jobs
    if jobs:
        raise NeedsCompiling(jobs)
    return found
