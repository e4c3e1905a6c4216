#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: migrate
short_description: Run migrations as the service of a generation would
version_added: 1.0.0
description:
  - Runs commands, in order, in transient units with the user, sandbox, environment and working directory of a
    staged generation. The live generation is not touched.
  - Values of the generation's secrets are masked in what is shown.
  - Where a setting of the app is a URL of PostgreSQL, the database holds a lock meanwhile (an advisory lock, taken with the
    app's own driver), so that controllers which share nothing but the database exclude each other.
  - With O(paths) it runs only when something differs from what the live generation was migrated with.
author: The Code Forge (@thecodeforge)
options:
  commands:
    description: Commands with their arguments; programs of the layer are found by name. No shell reads them.
    type: list
    elements: str
    default: []
  paths:
    description:
      - Files and directories of the release that migrations depend on. When they, the commands, the dependencies and
        the settings are those of the live generation, nothing is run. Without any it always is.
    type: list
    elements: str
    default: []
  version_command:
    description: A command whose first word says which version the schema has; not run when empty.
    type: str
    default: ""
  timeout:
    description: Seconds after which a command is stopped.
    type: int
    default: 900
  wait:
    description: Seconds to wait for another migration of the same database, by whatever host and controller.
    type: int
    default: 60
  lock_timeout:
    description:
      - Seconds that a statement of the commands waits for a lock, behind which the app's own statements would wait; V(0) for ever.
      - For drivers that use libpq, such as psycopg, where the database takes options for a session; a PgBouncer may not.
    type: int
    default: 0
extends_documentation_fragment:
  - thecodeforge.fastapi._app
  - thecodeforge.fastapi._app.generation
  - thecodeforge.fastapi._attributes
attributes:
  check_mode:
    support: full
    details: Says what would run; only the version is asked for.
  idempotent:
    support: none
    details: Runs the commands each time, unless O(paths) says that nothing can have changed.
"""

EXAMPLES = r"""
- name: Migrate
  thecodeforge.fastapi.migrate:
    app: forge
    root: /srv
    generation: 0123456789ab-01234567
    commands: [alembic upgrade head]
    version_command: alembic current
  run_once: true
"""

RETURN = r"""
lines:
  description:
    - The commands and what they printed, secrets masked.
    - When one fails, that one alone, from its first error on.
  returned: always
  type: list
  elements: str
version:
  description: Version of the schema after the commands; empty without a command that says it.
  returned: always
  type: str
seconds:
  description: Seconds it took.
  returned: always
  type: float
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.database_lock import DatabaseLocked, database_lock
from ..module_utils._private.errors import STILL_SERVES, tells_what_the_host_refuses
from ..module_utils._private.exclusive import LockHeld, exclusive_lock
from ..module_utils._private.generations import Generations
from ..module_utils._private.layout import Layout
from ..module_utils._private.migration import fingerprint, is_migrated, run, version_in
from ..module_utils._private.serving import serving_generation
from ..module_utils._private.transient import Transient, TransientError

# Seconds to wait for the migration of a controller that died.
WAIT = 60
SLACK = 30  # seconds that a command may take longer than its timeout, until it has ended

ARGUMENT_SPEC = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "generation": {"type": "str", "required": True},
    "commands": {"type": "list", "elements": "str", "default": []},
    "paths": {"type": "list", "elements": "str", "default": []},
    "version_command": {"type": "str", "default": ""},
    "timeout": {"type": "int", "default": 900},
    "wait": {"type": "int", "default": 60},
    "lock_timeout": {"type": "int", "default": 0},
}


def predict(layout: Layout, params: dict[str, Any], result: dict[str, Any]) -> None:
    """Say what would run; where the generation is not staged yet, that is all of it.

    :raises TransientError: when the release has no such path.
    """
    staged = bool(layout.read_record(params["generation"]).state)
    if staged and params["commands"] and params["paths"]:
        mark = fingerprint(layout, params["generation"], params["commands"], params["paths"])
        if is_migrated(layout, mark):
            result["changed"] = False
            return
    result["lines"] = [f"would run: {command}" for command in params["commands"]]


def migrate(layout: Layout, params: dict[str, Any], result: dict[str, Any]) -> None:
    """Run what has to run; ``result`` gets what it printed, also when it fails.

    :raises TransientError: naming the command that failed.
    :raises LockHeld: when another migration does not end in time.
    """
    generation, mark = params["generation"], ""
    transient = Transient(layout, generation)
    if params["commands"] and params["paths"]:
        mark = fingerprint(layout, generation, params["commands"], params["paths"])
    if is_migrated(layout, mark):
        live = serving_generation(layout)
        result.update(changed=False, version=layout.read_record(live).schema)
        result["lines"] = [f"Nothing to migrate: {live} was migrated with the same files and settings."]
    else:
        with exclusive_lock(layout.kernel_lock("migrate"), WAIT):
            if params["commands"]:
                run_all(transient, params, result)
            if params["version_command"]:
                result["version"] = version_in(run(transient, params["version_command"], params["timeout"], result))
    if mark:
        Generations(layout).update_record(generation, migrated_with=mark)


def run_all(transient: Transient, params: dict[str, Any], result: dict[str, Any]) -> None:
    """Run the commands, while nobody else migrates the database.

    :raises TransientError: naming the command that failed, or who migrates.
    """
    commands, timeout = params["commands"], params["timeout"]
    try:
        with database_lock(
            transient, params["wait"], len(commands) * (timeout + SLACK), params["lock_timeout"]
        ) as held:
            result["lines"] += [f"{held.problem}."] if held.problem else []
            for command in commands:
                run(transient, command, timeout, result, {"PGOPTIONS": held.options} if held.options else {})
    except DatabaseLocked as error:
        raise TransientError(
            f"Another migration of this database did not end within {params['wait']} s: {error}. Run again when it is done."
        ) from None


@tells_what_the_host_refuses
def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    result: dict[str, Any] = {"changed": bool(params["commands"]), "lines": [], "version": "", "seconds": 0.0}
    layout = Layout(params["root"], params["app"])
    try:
        if module.check_mode:
            predict(layout, params, result)
        else:
            migrate(layout, params, result)
    except LockHeld:
        module.fail_json(
            msg=f"A migration of {params['app']} that an earlier run started is still at work on this host: run again "
            f"when it is done. {STILL_SERVES}",
            **result,
        )
    except TransientError as error:
        module.fail_json(msg=f"{error} {STILL_SERVES}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
