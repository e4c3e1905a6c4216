# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines for people, in the output of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible import constants as C
from ansible.utils.display import Display


def show(lines: Sequence[str]) -> dict[str, Any]:
    """Show lines, and return what the result of the task must have for that.

    Ansible's default callback would print a result with quotes and escapes, so there the lines are printed as they are.
    Every other callback prints the result by itself, in its own way: one that writes JSON writes JSON only.

    :return: ``msg``, the lines, and what tells the callback whether to print the result.
    """
    text = "\n".join(lines)
    if C.DEFAULT_STDOUT_CALLBACK not in ("default", "ansible.builtin.default"):
        return {"msg": text, "_ansible_verbose_always": True}
    Display().display(text)
    return {"msg": text, "_ansible_verbose_override": True}
