# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a program on the host."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any


def run(argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program and wait for it. Its exit code is a result, not an error.

    :param options: of ``subprocess.run``. Without them it gets no input, and its output is captured as text.
    :raises subprocess.TimeoutExpired: after ``timeout`` seconds.
    """
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    if not options.keys() & {"stdout", "stderr"}:
        options.update(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    settings = {"text": True, "errors": "replace", "check": False, **options}
    # AnsibleModule.run_command has no timeout, and there is no AnsibleModule where most of this is called.
    return subprocess.run(argv, **settings)  # pylint: disable=ansible-bad-function,subprocess-run-check
