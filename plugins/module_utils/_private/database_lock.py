# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock that the app's own database holds while it is migrated: controllers that share nothing else exclude each other by it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from . import database_session
from .database_url import postgresql_url
from .environment import read_environment
from .settings import read_settings
from .transient import Transient

CONNECT_SECONDS = 30  # until the script has begun, and has connected


class DatabaseLocked(Exception):
    """Raised when somebody else migrates the database; it says who."""


class Held(NamedTuple):
    """How the lock is held: why not, a sentence without its full stop, empty when it is or the app has no such database; and what
    PGOPTIONS lets a session give up waiting for a lock, empty when nothing does."""

    problem: str = ""
    options: str = ""


@contextmanager
def database_lock(transient: Transient, wait: int, seconds: int, lock_timeout: int = 0) -> Iterator[Held]:
    """Hold the lock while the block runs.

    :param wait: seconds to wait for another migration of the same database.
    :param seconds: that the block may take.
    :param lock_timeout: seconds after which a session gives up waiting for a lock; 0 for never.
    :raises DatabaseLocked: saying who migrates, when that lasts longer than the wait.
    """
    variable = variable_of_the_database(transient)
    if not variable:
        yield Held()
        return
    argv = ["python", "-c", inspect.getsource(database_session), variable, str(wait), str(lock_timeout)]
    with transient.running(argv, wait + seconds + CONNECT_SECONDS) as beside:
        try:
            answer = json.loads(beside.first)
        except ValueError:
            answer = {"problem": "its Python did not start"}
        if "holds" in answer:
            raise DatabaseLocked(answer["holds"])
        problem = f"No lock in the database of {variable}: {answer['problem']}" if "problem" in answer else ""
        yield Held(problem, answer.get("options", ""))


def variable_of_the_database(transient: Transient) -> str:
    """Return the first setting that is a URL of PostgreSQL; empty when none is."""
    text = read_settings(transient.layout.generation(transient.generation))
    return postgresql_url(read_environment(text))[0]
