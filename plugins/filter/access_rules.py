# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

import ipaddress
from typing import Any

DOCUMENTATION = r"""
name: access_rules
short_description: Rules of pg_hba.conf that let the app's hosts in and nobody else
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - The server's own host may connect as before; each client may connect to one database as one user, with a password.
options:
  _input:
    description: Addresses of the clients.
    type: list
    elements: str
    required: true
  database:
    description: Name of the database.
    type: str
    required: true
  user:
    description: The user that clients connect as.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the rules
  ansible.builtin.debug:
    msg: "{{ ['192.0.2.7'] | thecodeforge.fastapi.access_rules(database='forge', user='forge') }}"
"""

RETURN = r"""
_value:
  description: Rules as community.postgresql.postgresql_pg_hba takes them.
  type: list
  elements: dict
"""


def access_rules(clients: list[str], database: str, user: str) -> list[dict[str, str]]:
    scram = "scram-sha-256"
    rules = [
        {"contype": "local", "databases": "all", "users": "all", "method": "peer"},
        {"contype": "host", "databases": "all", "users": "all", "source": "127.0.0.1/32", "method": scram},
        {"contype": "host", "databases": "all", "users": "all", "source": "::1/128", "method": scram},
    ]
    networks = sorted({str(ipaddress.ip_network(client)) for client in clients})
    rules += [
        {"contype": "host", "databases": database, "users": user, "source": network, "method": scram}
        for network in networks
    ]
    return rules


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"access_rules": access_rules}
