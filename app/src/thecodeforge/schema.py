"""Which schema this code needs, from its migrations.

Read without Alembic, whose import would cost every worker about half a second and some megabytes.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

# Key of the advisory lock around migrations: "forge" in ASCII. Locks belong to a database, so it need not be unique.
MIGRATION_LOCK = 0x666F726765

VERSIONS = Path(__file__).resolve().parents[2] / "migrations" / "versions"


@dataclass(frozen=True)
class Schema:
    """Revisions that this code has migrations for, and the newest of them (more than one: unmerged branches)."""

    known: frozenset[str]
    heads: frozenset[str]

    @classmethod
    def read(cls, versions: Path = VERSIONS) -> Self:
        """:raises RuntimeError: where there are no migrations."""
        known: set[str] = set()
        older: set[str] = set()
        for path in sorted(versions.glob("*.py")):
            names = assigned(path)
            if "revision" in names:
                known.add(names["revision"])
                older.update(several(names.get("down_revision")))
        if not known:
            raise RuntimeError(f"No migrations in {versions}: the app runs from its project, not from a wheel.")
        return cls(frozenset(known), frozenset(known - older))

    def serves(self, applied: Iterable[str]) -> bool:
        """Whether this code can work with a database at these revisions.

        It can when the database is ahead: migrations run before the new code replaces the old one on every host,
        and the old code must count as ready until then. That is why a migration must not break the code before it.
        """
        applied = set(applied)
        return self.heads <= applied or not applied <= self.known


def assigned(path: Path) -> dict[str, Any]:
    """Literals assigned to names at the top of a module, which is not executed."""
    values = {}
    for statement in ast.parse(path.read_bytes(), str(path)).body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value:
            targets, value = [statement.target], statement.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant | ast.Tuple | ast.List):
                values[target.id] = ast.literal_eval(value)
    return values


def several(revisions: str | Iterable[str] | None) -> Iterable[str]:
    """Alembic writes one parent as a string and those of a merge as a tuple."""
    return () if revisions is None else (revisions,) if isinstance(revisions, str) else revisions
