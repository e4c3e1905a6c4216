# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

DOCUMENTATION = r"""
name: certbot_cause
short_description: Why certbot has got no certificate
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - What the authority said of a name, or of the request, or else the last thing that certbot said itself.
options:
  _input:
    description: Result of the task that ran certbot.
    type: dict
    required: true
  log:
    description: What certbot has logged. Debian 12's says of an error of the authority's only there what it is.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show why
  ansible.builtin.debug:
    msg: "{{ {'stderr': 'Some challenges have failed.', 'stdout': ''} | thecodeforge.fastapi.certbot_cause }}"
"""

RETURN = r"""
_value:
  description: A sentence.
  type: str
"""


def certbot_cause(result: Mapping[str, Any], log: str = "") -> str:
    said = f"{result.get('stdout') or ''}\n{result.get('stderr') or result.get('msg') or ''}"
    details = re.findall(r"^\s*(?:Domain: (\S+)|Detail: (.+))$", said, re.MULTILINE)
    named = " ".join(f"{domain}:" if domain else f"{detail.strip().rstrip('.')}." for domain, detail in details)
    if named:
        return named
    refused = re.findall(r"^acme\.messages\.Error: (.+)$", log, re.MULTILINE)
    if refused:  # urn:ietf:params:acme:error:KIND :: its description :: what is wrong
        return f"{refused[-1].rpartition(' :: ')[2].strip().rstrip('.')}."
    passing = ("Ask for help", "Saving debug log", "See the logfile", "- - -")
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.strip().startswith(passing)]
    return f"{(lines or ['it does not say why'])[-1].rstrip('.')}."


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"certbot_cause": certbot_cause}
