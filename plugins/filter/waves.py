# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

DOCUMENTATION = r"""
name: waves
short_description: Divide hosts into waves, which switch one after the other
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - The order of the hosts stays; the first of them is the canary.
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  shares:
    description:
      - How many hosts have switched after each wave, as a number or as V(50%) of the hosts, which is rounded up. A wave to
        which no host is left is none; what the last one leaves is one more wave.
    type: list
    elements: str
    required: true
  batch:
    description: How many hosts each wave has, as a number or as V(50%), in place of O(shares); empty for these.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show the canary, and the others
  ansible.builtin.debug:
    msg: "{{ ['web1', 'web2', 'web3'] | thecodeforge.fastapi.waves([1, '100%']) }}"
"""

RETURN = r"""
_value:
  description: Waves, each a list of hosts.
  type: list
  elements: list
"""


def waves(hosts: Iterable[str], shares: Sequence[Any], batch: Any = "") -> list[list[str]]:
    """Divide hosts into waves; no wave is empty."""
    names = list(hosts)
    if str(batch):
        size = count_of(batch, len(names))
        ends = list(range(size, len(names), size))
    else:
        ends = [count_of(share, len(names)) for share in shares]
    divided, begin = [], 0
    for end in [*ends, len(names)]:
        end = min(end, len(names))
        if end > begin:
            divided.append(names[begin:end])
            begin = end
    return divided


def count_of(share: Any, total: int) -> int:
    """Return how many of ``total`` hosts a number or a percentage is; at least one."""
    number = str(share).removesuffix("%")
    return max(1, ceil(total * int(number) / 100) if number != str(share) else int(number))


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"waves": waves}
