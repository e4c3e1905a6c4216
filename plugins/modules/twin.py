#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: twin
short_description: Put a twin of what serves on a host beside it, for a refresh
version_added: 1.1.0
description:
  - A twin is the live generation once more, under another id, so that it can be a candidate, and take over from it as a release
    does. The new processes have the libraries and the Python that the host has now.
  - Once the twin serves, what it took over from is removed. The next refresh goes back to the first id.
author: The Code Forge (@thecodeforge)
extends_documentation_fragment:
  - thecodeforge.fastapi._app
  - thecodeforge.fastapi._attributes
"""

EXAMPLES = r"""
- name: Put a twin of what serves beside it
  thecodeforge.fastapi.twin:
    app: shop
    root: /srv
  register: twin
"""

RETURN = r"""
generation:
  description: Id of the twin.
  returned: always
  type: str
live:
  description: Id of the generation that serves.
  returned: always
  type: str
record:
  description: What is known of the two, keys of C(release.json).
  returned: always
  type: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.errors import StageError, tells_what_the_host_refuses
from ..module_utils._private.layout import Layout, twin_of
from ..module_utils._private.systemd import SystemdError
from ..module_utils._private.twin import make_twin, record_of_live

ARGUMENT_SPEC = {"app": {"type": "str", "required": True}, "root": {"type": "path", "required": True}}


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    os.umask(0o022)
    layout = Layout(module.params["root"], module.params["app"])
    try:
        live, record = record_of_live(layout)
        if not module.check_mode:
            make_twin(layout)
    except (StageError, SystemdError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, generation=twin_of(live), live=live, record=record.to_dict())


if __name__ == "__main__":
    main()
