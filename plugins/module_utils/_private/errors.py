# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a host from a step, in sentences for the user: what is wrong, where, what to do."""

from __future__ import annotations

import errno
import functools
import json
import sys
from collections.abc import Callable

STILL_SERVES = "What served before still serves."


class StageError(Exception):
    """Raised when a generation cannot be put on the host, or its app does not load there."""


class RolloutError(Exception):
    """Raised when a candidate does not pass, the new live generation fails, or the host cannot take the step."""

    def __init__(self, message: str, journal: list[str] | None = None, unit: str = "") -> None:
        """
        :param journal: what the generation wrote, from the cause on, secrets masked.
        :param unit: the one that has ended; empty when it is another problem.
        """
        super().__init__(message)
        self.journal = journal or []
        self.unit = unit


class TakenBack(Exception):
    """Raised when a generation that is watched was taken back, because another host's failed."""


def text_of(error: Exception) -> str:
    """What an error says, for a person: an OSError without Python's number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return str(error)


def refusal(error: OSError) -> str:
    """The sentence for what the host's file system refused."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "free some room there" if full else "mend that on the host"
    return f"The host's files cannot be used ({text_of(error)}): {advice}, and run again. {STILL_SERVES}"


def tells_what_the_host_refuses(main: Callable[[], None]) -> Callable[[], None]:
    """Make a module fail with one sentence where the host's file system refuses something that nothing else answers for."""

    @functools.wraps(main)
    def told() -> None:
        try:
            main()
        except OSError as error:
            # As AnsibleModule.fail_json would, which is not at hand here.
            sys.stdout.write("\n" + json.dumps({"failed": True, "msg": refusal(error)}) + "\n")
            raise SystemExit(1) from None

    return told
