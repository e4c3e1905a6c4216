#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: edge
short_description: Put an app on an edge
version_added: 1.1.0
description:
  - Writes the configuration of HAProxy from what each app of the host wants. HAProxy itself checks it in a directory of its
    own before it takes the place of the one that is there, and then it is reloaded, which loses no request.
  - A certificate that alone has changed is given to HAProxy without a reload.
  - What somebody else has configured, an address that is taken, and a name that another app has are refused in a sentence.
author: The Code Forge (@thecodeforge)
options:
  app:
    description: Name of the app.
    type: str
    required: true
  part:
    description:
      - What the app wants, as a C(Part) of C(module_utils/_private/edge_config.py) has it. C(names), C(http), C(https),
        C(metrics) and C(challenges) are lists of text, C(tls) is a truth, C(longest) are seconds, C(backend) is text of HAProxy's
        and C(project) are keys of C(project.json).
    type: dict
    default: {}
  pages:
    description: Name to text of the app's pages, C(unavailable.http) with its head and C(maintenance.html).
    type: dict
    default: {}
  certificate:
    description: Certificate, chain and key as PEM. The one that is there when empty, and else one that stands in.
    type: str
    default: ""
  take_over:
    description: With V(edge) in it, a configuration of somebody else's is replaced; with V(project), the app of another project.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Put the app on the edge
  thecodeforge.fastapi.edge:
    app: shop
    part:
      names: [shop.example.org]
      http: ["0.0.0.0:80"]
      backend: "{{ lookup('ansible.builtin.template', 'backend.cfg.j2') }}"
"""

RETURN = r"""
how:
  description:
    - How HAProxy has got what it lacked, V(nothing) when it lacked nothing, V(certificate) when that was changed while it ran,
      V(reloaded) or V(started). In check mode V(nothing) or V(would change).
  returned: always
  type: str
installed:
  description: Whether the host has HAProxy.
  returned: always
  type: bool
certbot:
  description: Whether it has certbot.
  returned: always
  type: bool
held:
  description: Hosts of the app that the edge sends nothing, as they lack a release that the others have.
  returned: always
  type: list
  elements: str
lineage:
  description: Whether certbot has a certificate for the app.
  returned: always
  type: bool
"""

import os
import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.edge_config import Part
from ..module_utils._private.edge_host import UNIT, Edge, EdgeError, edge_lock
from ..module_utils._private.errors import tells_what_the_host_refuses
from ..module_utils._private.systemd import properties

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "app": {"type": "str", "required": True},
    "part": {"type": "dict", "default": {}},
    "pages": {"type": "dict", "default": {}},
    "certificate": {"type": "str", "default": "", "no_log": True},
    "take_over": {"type": "list", "elements": "str", "default": []},
}


def present(edge: Edge, params: dict[str, Any], check: bool) -> str:
    """Put the app on the edge, and return how.

    :raises EdgeError: saying why not.
    """
    part = Part.from_dict({**params["part"], "app": params["app"], "held": edge.mine().held})
    problems = edge.problems(part, params["take_over"])
    if problems:
        raise EdgeError(" ".join([*problems, "Nothing was changed."]))
    files = edge.files(part, params["pages"], params["certificate"])
    if check:
        is_active = properties(UNIT, "ActiveState")["ActiveState"] == "active"
        return "would change" if edge.differing(files) or not is_active else "nothing"
    if not edge.is_installed():
        raise EdgeError(f"{platform.node()} has no HAProxy: the role edge installs it. Nothing was changed.")
    return edge.apply(files, part)


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    edge = Edge(module.params["app"])
    try:
        with edge_lock():
            how = present(edge, module.params, module.check_mode)
    except EdgeError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=how != "nothing",
        how=how,
        held=edge.mine().held,
        installed=edge.is_installed(),
        certbot=os.path.exists("/usr/bin/certbot"),
        lineage=os.path.exists(f"/etc/letsencrypt/live/forge-{module.params['app']}/fullchain.pem"),
    )


if __name__ == "__main__":
    main()
