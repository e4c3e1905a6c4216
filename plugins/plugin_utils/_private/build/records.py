# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a build: its record in the cache, the manifest of an artifact, and the result for the roles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .cache import put
from .errors import BuildError
from .interpreter import Interpreter
from .layer import Layer
from .target_platform import Platform, version_tuple


@dataclass(frozen=True)
class BuildRecord:
    """Everything that is known of a build. Paths are the controller's; in a manifest they are names in the artifact."""

    release: str  # id
    commit: str  # empty outside of git
    dirty: bool
    builder: str  # user@controller
    code: str  # path of the archive
    code_sha256: str
    import_paths: list[str]  # below the release, for sys.path
    requires_python: str  # version specifier, or empty
    locks: list[str]  # paths
    base: str  # directory that paths in the first lock start from
    project: str  # directory of the app's project
    extra_wheels: list[str]  # name==version of wheels that no index has
    layers: dict[str, Layer]  # by key of the platform
    time: str  # of the commit, ISO 8601
    pythons: dict[str, Interpreter] = field(default_factory=dict)  # standalone ones, by id
    from_artifact: str = ""  # as people know it: without the source, and without an index
    files: dict[str, str] = field(default_factory=dict)  # of a manifest: name to sha256
    format: int = 0  # of a manifest

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, text: str) -> BuildRecord:
        """:raises ValueError, TypeError, KeyError: for what is no record."""
        content = json.loads(text)
        content["layers"] = {key: Layer(**layer) for key, layer in content["layers"].items()}
        content["pythons"] = {key: Interpreter(**python) for key, python in content.get("pythons", {}).items()}
        return cls(**content)


def write_record(cache: Path, record: BuildRecord) -> None:
    """Keep what a later task of the same run needs to know of a release."""
    put(cache / "records" / f"{record.release}.json", record.to_json())


def read_record(cache: Path, release: str) -> BuildRecord:
    """:raises BuildError: when the release is not in the cache."""
    try:
        return BuildRecord.from_json((cache / "records" / f"{release}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError):
        raise BuildError(f"Release {release} is not in the cache {cache}: build it again.") from None


def layer_for(record: BuildRecord, platform: Platform) -> Layer:
    """The layer that a platform takes: its own, or the one for the newest glibc that it runs.

    :raises BuildError: when there is none.
    """
    fitting = [layer for layer in record.layers.values() if platform.runs(layer.platform)]
    if not fitting:
        raise BuildError(
            f"forge_source: {record.from_artifact} was not built for {platform}, but for "
            f"{', '.join(sorted(record.layers))}: build it with those hosts in the inventory."
        )
    return record.layers.get(platform.key) or max(fitting, key=lambda layer: version_tuple(layer.glibc))


def for_host(record: BuildRecord, layer: Layer) -> dict[str, Any]:
    """A layer as the role release takes it, with its standalone Python, which is empty where it is the host's own."""
    python = record.pythons[layer.interpreter].for_host() if layer.interpreter else {}
    return {**layer.for_host(), "version": layer.python, "python": python}


def result_of(
    record: BuildRecord, platforms: Sequence[Platform], created: list[str], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """What the module ``build`` returns.

    :raises BuildError: when a host has no layer.
    """
    return {
        **{name: getattr(record, name) for name in ("release", "commit", "dirty", "builder", "import_paths", "locks")},
        "code": {"path": record.code, "sha256": record.code_sha256},
        "hosts": {host: for_host(record, layer_for(record, each)) for each in platforms for host in each.hosts},
        "created": created,
        "notes": list(notes),
    }
