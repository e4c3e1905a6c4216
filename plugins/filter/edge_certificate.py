# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError

from ..plugin_utils._private.certificates import CertificateError, whole_pem

DOCUMENTATION = r"""
name: edge_certificate
short_description: A certificate and its key in one text, as HAProxy takes them
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - It fails in one sentence when they do not belong together, have expired, or are not for a name. Nothing of the key is in it.
options:
  _input:
    description: The certificate, with its chain, as PEM or as the path of a file on the controller.
    type: str
    required: true
  key:
    description: Its key, likewise.
    type: str
    required: true
  names:
    description: Names that it has to be for.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Put the certificate together
  ansible.builtin.set_fact:
    pem: "{{ 'shop.pem' | thecodeforge.fastapi.edge_certificate(key='shop.key', names=['shop.example.org']) }}"
"""

RETURN = r"""
_value:
  description: PEM.
  type: str
"""


def edge_certificate(certificate: str, key: str, names: list[str] | None = None) -> str:
    """
    :raises AnsibleFilterError: when they cannot be used.
    """
    try:
        return whole_pem(str(certificate), str(key), [str(name).lower() for name in names or []])
    except CertificateError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"edge_certificate": edge_certificate}
