#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

DOCUMENTATION = r"""
module: run_in_service
short_description: Run a command as the service of a generation would
version_added: 1.0.0
description:
  - Runs a command in a transient unit with the user, sandbox, environment and working directory of a staged
    generation, such as a migration. The live generation is not touched.
  - Values of the generation's secrets are masked in what is shown.
author: The Code Forge (@thecodeforge)
options:
  app:
    description: Name of the app.
    type: str
    required: true
  root:
    description: Directory that holds the apps.
    type: path
    required: true
  generation:
    description: Id of a staged generation.
    type: str
    required: true
  command:
    description: Command and arguments; programs of the layer are found by name. No shell reads it.
    type: str
    required: true
  timeout:
    description: Seconds after which the command is stopped.
    type: int
    default: 900
attributes:
  check_mode:
    support: full
    details: Says that the command would run.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Runs the command each time.
"""

EXAMPLES = r"""
- name: Migrate
  thecodeforge.fastapi.run_in_service:
    app: forge
    root: /srv
    generation: 0123456789ab-01234567
    command: alembic upgrade head
  run_once: true
"""

RETURN = r"""
lines:
  description: What the command printed, secrets masked.
  returned: when it ran
  type: list
  elements: str
rc:
  description: Exit code of the command.
  returned: when it ran
  type: int
seconds:
  description: Seconds it took.
  returned: when it ran
  type: float
"""

import os
import shlex
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private import systemd
from ..module_utils._private.environment import read_environment
from ..module_utils._private.layout import Layout
from ..module_utils._private.masking import mask, secrets_of

# Directives that make a service of the sandbox: a command that ends has none of them.
NOT_FOR_A_COMMAND = (
    "Type", "NotifyAccess", "Sockets", "Exec", "Restart", "Timeout", "KillMode", "RuntimeDirectory", "WatchdogSec",
    "Standard", "SyslogIdentifier",
)  # fmt: skip


def sandbox(unit: str, generation: str) -> list[str]:
    """Directives of a service unit that shape where a process runs, as ``Name=value``.

    ``%i`` is the instance only in the service itself, so it is replaced.
    """
    directives, inside = [], False
    for line in unit.splitlines():
        line = line.strip()
        if line.startswith("["):
            inside = line == "[Service]"
        elif inside and "=" in line and not line.startswith(("#", ";")):
            if not line.startswith(NOT_FOR_A_COMMAND):
                directives.append(line.replace("%i", generation))
    return directives


def arguments_of(command: str) -> list[str]:
    """Words of a command; ``env`` finds its program on the PATH of the unit, where the layer's programs come first.

    :raises ValueError: when the quoting does not close, or there is no word.
    """
    words = shlex.split(command)
    if not words:
        raise ValueError("it is empty")
    return ["/usr/bin/env", "--", *words]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "generation": {"type": "str", "required": True},
            "command": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    given = module.params
    layout = Layout(given["root"], given["app"])
    home = layout.generation(given["generation"])
    if module.check_mode:
        module.exit_json(changed=True, lines=[f"would run: {given['command']}"], rc=0, seconds=0.0)
    try:
        with open(os.path.join(home, "units", layout.service(given["generation"])), encoding="utf-8") as handle:
            unit = handle.read()
        with open(os.path.join(home, "environment"), encoding="utf-8") as handle:
            secrets = secrets_of(read_environment(handle.read()))
    except OSError as error:
        module.fail_json(msg=f"Generation {given['generation']} is not staged on this host: {error.strerror}.")
    try:
        words = arguments_of(given["command"])
    except ValueError as error:
        module.fail_json(msg=f"The command {given['command']!r} cannot be run: {error}.")

    name = f"{given['app']}-run-{given['generation']}-{os.getpid()}"
    command = ["systemd-run", "--unit", name, "--wait", "--pipe", "--collect", "--quiet", "--service-type=exec"]
    for directive in sandbox(unit, given["generation"]):
        command += ["--property", directive]
    command += ["--property", f"RuntimeMaxSec={given['timeout']}", "--", *words]
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=given["timeout"] + 30, text=True, errors="replace", check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        systemd.systemctl("kill", "--signal=SIGKILL", f"{name}.service")
        module.fail_json(msg=f"{given['command']!r} did not end within {given['timeout']} s and was stopped.")
    seconds = round(time.monotonic() - started, 2)
    lines = mask(done.stdout, secrets).splitlines()
    result = {"changed": True, "lines": lines, "rc": done.returncode, "seconds": seconds}
    if done.returncode != 0:
        over = seconds >= given["timeout"]
        why = f"did not end within {given['timeout']} s and was stopped" if over else f"failed with exit code {done.returncode}"
        module.fail_json(msg=f"{given['command']!r} {why}; its output says why. What served before still serves.", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
