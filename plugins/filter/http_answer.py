# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

DOCUMENTATION = r"""
name: http_answer
short_description: A page as a whole answer of HTTP with status 503, as HAProxy wants it in a file
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - The head says when to ask again.
options:
  _input:
    description: HTML.
    type: str
    required: true
  retry_after:
    description: Seconds after which to ask again.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Write the page
  ansible.builtin.copy:
    content: "{{ '<p>Later.' | thecodeforge.fastapi.http_answer(retry_after=60) }}"
    dest: /etc/haproxy/503.http
    mode: "0644"
"""

RETURN = r"""
_value:
  description: Head and body.
  type: str
"""


def http_answer(page: str, retry_after: int) -> str:
    head = [
        "HTTP/1.1 503 Service Unavailable",
        "content-type: text/html; charset=utf-8",
        "cache-control: no-store",
        f"retry-after: {int(retry_after)}",
        f"content-length: {len(page.encode())}",
    ]
    return "".join(f"{line}\r\n" for line in [*head, ""]) + page


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"http_answer": http_answer}
