# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents that a host keeps, with all their keys: docs/files.md says what they mean.

They are written by this version of the collection and read by any. So reading is tolerant: a key that is not known, or
whose value has another type, is left out, and a key that is absent has its default.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

D = TypeVar("D", bound="Document")


@dataclass(frozen=True)
class Document:
    """A JSON object with fixed keys: the names of the fields.

    ``metadata`` of a field may have another ``key`` (Python reserves some words), or the ``older`` key of earlier versions.
    """

    @classmethod
    def from_dict(cls: type[D], document: object) -> D:
        """The document in what was parsed from JSON, which may be anything."""
        found = document if isinstance(document, dict) else {}
        known = {}
        for each, default in cls().items():
            value = found.get(key_of(each), found.get(each.metadata.get("older")))
            if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
                with suppress(OverflowError):
                    value = float(value)
            if is_like(value, default):
                known[each.name] = value
        return cls(**known)

    def items(self) -> list[tuple[dataclasses.Field[Any], Any]]:
        """Fields and their values."""
        return [(each, getattr(self, each.name)) for each in dataclasses.fields(self)]

    def to_dict(self) -> dict[str, Any]:
        """The document for JSON, with every key."""
        return {key_of(each): value for each, value in self.items()}


def is_like(value: Any, default: Any) -> bool:
    """Whether a value has the type of a default, and of a list all items are texts."""
    same = value.__class__ is default.__class__  # a bool is no int here
    return same and (not isinstance(value, list) or all(isinstance(item, str) for item in value))


def key_of(field_: dataclasses.Field[Any]) -> str:
    return str(field_.metadata.get("key", field_.name))


@dataclass(frozen=True)
class GenerationRecord(Document):
    """``release.json``: what is known of one generation. Without a ``state`` there is no such generation."""

    # From the controller, and compared with what it wants.
    generation: str = ""
    release: str = ""
    layer: str = ""
    commit: str = ""
    builder: str = ""
    target: str = ""
    server: str = ""
    worker_class: str = ""
    python: str = ""
    listen: list[str] = field(default_factory=list)
    workers: int = 1
    workers_reason: str = ""
    release_commands: list[str] = field(default_factory=list)
    release_paths: list[str] = field(default_factory=list)
    # Found out on the host.
    state: str = ""
    reason: str = ""
    drains: bool = True
    drop_warning: str = field(default="", metadata={"older": "loses"})
    schema: str = ""
    migrated_with: str = ""
    way_back: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, document: object) -> GenerationRecord:
        record = super().from_dict(document)
        exists = bool(document) and isinstance(document, dict)
        return dataclasses.replace(record, state="staged") if exists and not record.state else record


@dataclass(frozen=True)
class LedgerEvent(Document):
    """A line of ``ledger.jsonl``: what happened on a host."""

    time: str = ""
    action: str = ""
    by: str = ""
    previous: str = field(default="", metadata={"key": "from"})
    generation: str = field(default="", metadata={"key": "to"})
    result: str = ""
    reason: str = ""
    seconds: float = 0.0
    schema_before: str = ""
    schema: str = ""
    way_back: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LockHolder(Document):
    """``lock.json``: who deploys. ``token``, ``machine`` and ``pid`` tell one process of a controller from any other.

    It holds for ``seconds`` after it was ``refreshed``, which counts from the ``boot`` of the host; ``expires`` is the same
    by the wall clock, for earlier versions. ``project`` is a :class:`ProjectRecord`.
    """

    token: str = ""
    user: str = ""
    host: str = ""
    machine: str = ""
    pid: int = 0
    reason: str = ""
    since: str = ""
    expires: float = 0.0
    seconds: float = 0.0
    boot: str = ""
    refreshed: float = 0.0
    project: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProjectRecord(Document):
    """``project.json``: which project an installation is of, as far as the controller could tell."""

    id: str = ""  # forge_project
    origin: str = ""
    root: str = ""
    path: str = ""
    name: str = ""
    source: str = ""
    inventory: str = ""

    def owner(self) -> str:
        """What tells people which project it is."""
        return self.id or self.origin or self.name or self.source or self.inventory
