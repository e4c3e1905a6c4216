# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells somebody: calls an address, or runs a command. Imports nothing of ours, as other programs on hosts have it, too."""

from __future__ import annotations

import json
import os
import re
import shlex
import string
import subprocess
import urllib.request

SECONDS = 30


def tell(whom: str, text: str, details: dict[str, str], name: str = "on_failure") -> str:
    """Call an address with a JSON object, ``text`` and the details; or run a command, to which FORGE_FAILURE says the text.

    :param whom: the address, or the command with its arguments; in either, ``$NAME`` is that variable of the environment.
    :param name: of the setting, for the sentence.
    :returns: why it could not be done, a sentence that does not show the address, which may be a secret; empty when it was.
    """
    address = string.Template(whom).safe_substitute(os.environ)
    try:
        if not re.match(r"https?://", address):
            argv = ["/usr/bin/env", "--", f"FORGE_FAILURE={text}", *shlex.split(whom)]
            code = subprocess.run(argv, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL).returncode
            return f"The command of {name} ended with exit code {code}." if code else ""
        headers = {"Content-Type": "application/json", "User-Agent": "thecodeforge.fastapi"}
        request = urllib.request.Request(address, json.dumps({"text": text, **details}).encode(), headers)  # noqa: S310 (http alone)
        with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310
            return ""
    except subprocess.TimeoutExpired:
        return f"The command of {name} did not end within {SECONDS} s."
    except Exception as error:  # whatever it is: not the address, which may be a secret
        return f"The address of {name} was not to be called: {getattr(error, 'reason', '') or type(error).__name__}."
