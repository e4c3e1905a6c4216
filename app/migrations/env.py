"""Run by Alembic for every command that looks at the database.

One process at a time: the advisory lock makes a second one wait, and then find that there is nothing left to do.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psycopg
from alembic import context
from alembic.util import CommandError
from pydantic import ValidationError
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from thecodeforge.schema import MIGRATION_LOCK, Schema
from thecodeforge.settings import load_settings
from thecodeforge.tables import metadata

# How long to wait for another process that migrates. To change it: alembic -x lock_timeout=5s upgrade head
LOCK_TIMEOUT = "60s"
# How long a statement may wait for a table. Everybody else queues behind it, so it gives up before they notice.
TABLE_LOCK_TIMEOUT = "5s"


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """Say what an operator can act on; Alembic prints a CommandError without its traceback."""
    try:
        yield
    except ValidationError as error:
        raise CommandError(" ".join(error.__notes__)) from None
    except OperationalError as error:
        if isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise CommandError(
                "A table that a migration changes was in use for too long. That migration was undone; try again."
            ) from None
        raise CommandError(f"The database does not answer, or gave up: {error.orig}") from None


def take_lock(connection: Connection) -> None:
    """Wait for the lock. It belongs to the session, so the server gives it back even when this process is killed."""
    timeout = context.get_x_argument(as_dictionary=True).get("lock_timeout", LOCK_TIMEOUT)
    try:
        connection.execute(text("SELECT set_config('lock_timeout', :timeout, false)"), {"timeout": timeout})
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
    except OperationalError as error:
        if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise
        raise CommandError(f"Another process is migrating this database; waited {timeout} for it.") from None
    connection.execute(text("SELECT set_config('lock_timeout', :timeout, false)"), {"timeout": TABLE_LOCK_TIMEOUT})
    connection.commit()


def refuse_newer_schema(applied: Iterable[str]) -> None:
    """Alembic would say that it cannot locate a revision; say what happened."""
    unknown = set(applied) - Schema.read().known
    if unknown:
        raise CommandError(
            f"The database is ahead of this code, which has no migration {', '.join(sorted(unknown))}. "
            "Nothing was changed. Use the code that has it, also to downgrade."
        )


def run_online() -> None:
    settings = load_settings()
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(settings.conninfo),
        poolclass=NullPool,
        hide_parameters=True,
    )
    with engine.connect() as connection:
        take_lock(connection)
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        refuse_newer_schema(context.get_context().get_current_heads())
        connection.rollback()  # each migration has a transaction of its own
        with context.begin_transaction():
            context.run_migrations()


logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("alembic.runtime.migration").setLevel(logging.INFO)
logging.getLogger("alembic.util.messaging").setLevel(logging.CRITICAL)  # the command line prints its errors itself

if context.is_offline_mode():  # alembic upgrade head --sql: prints SQL, needs no database
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with in_one_sentence():
        run_online()
