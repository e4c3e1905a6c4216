#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: compile
short_description: Compile a wheel on one host, for all hosts of its platform
version_added: 1.0.0
description:
  - Takes what M(thecodeforge.fastapi.build) could not build on the controller. The source, and a layer of what building
    needs, come from the controller; the wheel goes into the controller's cache, and nothing of it stays on the host.
  - Debian packages that compiling needs have to be there; the role build installs C(forge_build_packages).
  - Compiles as a user that exists only meanwhile, without network, in a directory that systemd removes however it ends.
author: The Code Forge (@thecodeforge)
options:
  requirement:
    description: What is compiled, for people, such as V(psycopg2==2.9.10).
    type: str
    required: true
  source:
    description: Archive on the controller, of the source and the layer of what building needs.
    type: path
    required: true
  python:
    description: Interpreter on the host.
    type: path
    required: true
  seconds:
    description: Seconds that compiling may take.
    type: int
    default: 3600
  platform:
    description: The C(python), C(machine) and C(glibc) of the host.
    type: dict
    required: true
  wheel_dir:
    description: Directory on the controller that the wheel goes to.
    type: path
    required: true
  advice:
    description: What to do instead when it does not compile, a sentence.
    type: str
    default: ""
  _sha256:
    description: For the action plugin, the hash of the archive.
    type: str
    default: ""
  _output:
    description: For the action plugin, where on the host the wheel goes.
    type: path
    default: ""
extends_documentation_fragment:
  - thecodeforge.fastapi._attributes
attributes:
  idempotent:
    support: none
    details: Compiles whenever it is asked to; M(thecodeforge.fastapi.build) asks only for what is not in its cache.
"""

EXAMPLES = r"""
- name: Compile what the build could not
  thecodeforge.fastapi.compile:
    requirement: "{{ item.requirement }}"
    source: "{{ item.source }}"
    python: "{{ item.python }}"
    platform: "{{ item.platform }}"
    wheel_dir: "{{ item.wheel_dir }}"
  delegate_to: "{{ item.host }}"
  loop: "{{ forge_build_result.to_compile }}"
  run_once: true
"""

RETURN = r"""
wheel:
  description: The wheel, on the controller.
  returned: success
  type: str
seconds:
  description: Seconds that compiling took.
  returned: success
  type: float
"""

import hashlib
import os
import re
import shutil
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._private.cause import tool_cause
from ..module_utils._private.command import run
from ..module_utils._private.exclusive import LockHeld, exclusive_lock
from ..module_utils._private.reproducible import EPOCH

ARGUMENT_SPEC = {
    "requirement": {"type": "str", "required": True},
    "source": {"type": "path", "required": True},
    "python": {"type": "path", "required": True},
    "seconds": {"type": "int", "default": 3600},
    "platform": {"type": "dict", "required": True},  # the controller's, as is wheel_dir
    "wheel_dir": {"type": "path", "required": True},
    "advice": {"type": "str", "default": ""},
    "_sha256": {"type": "str", "default": ""},
    "_output": {"type": "path", "default": ""},
}
UNIT = "forge-compile"
LOCK = f"/run/{UNIT}/lock"  # anybody may write to /run/lock
CACHES = ("/var/cache/private", "/var/cache")
# The bundle arrives on standard input: see plugin_utils/_private/build/compile_bundle.py. Its layer becomes an environment.
SCRIPT = """
set -e
tar -xf -
mkdir -p env/bin out
tar -xzf layer.tar.gz -C env
find env/bin -type f -exec sed -i "1s|^#!python\\$|#!$PWD/env/bin/python|" {} +
ln -s "$1" env/bin/python
ln -s python env/bin/python3
printf 'home = %s\\ninclude-system-site-packages = false\\n' "$(dirname "$1")" >env/pyvenv.cfg
PATH="$PWD/env/bin:$PATH" env/bin/python -c "$2" >&2
cd out
tar -cf - *.whl
"""
# PEP 517: the hook runs in the source, and finds its backend in the environment or where the project says.
BUILD = """
import importlib, json, os, sys
with open("backend.json") as handle:
    backend, paths = json.load(handle)
output = os.path.abspath("out")
os.chdir("source")
sys.path[:1] = [os.path.abspath(path) for path in paths]
module, _, rest = backend.partition(":")
found = importlib.import_module(module)
for name in filter(None, rest.split(".")):
    found = getattr(found, name)
found.build_wheel(output)
"""
SANDBOX = (
    "DynamicUser=yes", "PrivateNetwork=yes", "PrivateDevices=yes", "ProtectHome=yes", "ProtectProc=invisible",
    "ProtectKernelTunables=yes", "ProtectControlGroups=yes", "RestrictSUIDSGID=yes", "Nice=19",
    f"CacheDirectory={UNIT}", "CacheDirectoryMode=0700", f"WorkingDirectory=/var/cache/{UNIT}", "UMask=0022",
    # Also when this process has been killed.
    f"ExecStopPost=-/usr/bin/find /var/cache/{UNIT} -mindepth 1 -delete", "TimeoutStopSec=60",
)  # fmt: skip
# Fixed names and dates, so that the same source gives the same bytes as far as the compiler does.
ENVIRONMENT = {
    "HOME": f"/var/cache/{UNIT}", "TMPDIR": f"/var/cache/{UNIT}", "SOURCE_DATE_EPOCH": EPOCH, "PYTHONHASHSEED": "0",
    "LC_ALL": "C.UTF-8",
}  # fmt: skip
MISSING = re.compile(
    r"error: (?P<header>\S+\.h(?:pp)?): No such file"
    r"|command '(?P<command>[^']+)' failed: No such file"
    r"|No such file or directory: '(?P<program>[^'/]+)'"
    r"|(?P<tool>[\w.+-]+):? (?:executable not found|command not found|not found$)"
    r"|cannot find -l(?P<library>[\w.+-]+)",
    re.MULTILINE,
)
SHOWN = 600  # characters of what a compiler printed, from its first error on


class CompileError(Exception):
    """A wheel was not compiled. Its text is for the user: what is wrong, what to do."""


def build(source: str, output: str, python: str, requirement: str, seconds: int) -> float:
    """Compile, in a unit of its own.

    :param source: path of the bundle.
    :param output: where the archive with the wheel goes.
    :returns: seconds it took.
    :raises CompileError: with the end of what the build printed, or when it took too long.
    """
    # What a run that was killed has left: nobody else is here, see main.
    run(["systemctl", "stop", f"{UNIT}.service"])
    clear()
    command = ["systemd-run", "--unit", UNIT, "--wait", "--pipe", "--collect", "--quiet", "--service-type=exec"]
    for directive in (*SANDBOX, f"RuntimeMaxSec={seconds}"):
        command += ["--property", directive]
    command += [f"--setenv={name}={value}" for name, value in ENVIRONMENT.items()]
    command += ["--", "/bin/sh", "-c", SCRIPT, "sh", python, BUILD]
    started = time.monotonic()
    try:
        with open(source, "rb") as bundle, open(output, "wb") as result:
            os.fchmod(result.fileno(), 0o644)
            done = run(command, stdin=bundle, stdout=result, stderr=subprocess.PIPE)
    finally:
        clear()
    took = time.monotonic() - started
    if done.returncode != 0:
        if took >= seconds:
            raise CompileError(f"{requirement} was not compiled within {seconds} s, and was stopped.")
        raise CompileError(explain(done.stderr, requirement))
    return round(took, 2)


def clear() -> None:
    """Remove the directory: it is there already when the last run was killed."""
    for parent in CACHES:
        path = os.path.join(parent, UNIT)
        if os.path.islink(path):
            os.unlink(path)
        else:
            shutil.rmtree(path, ignore_errors=True)


def explain(stderr: str, requirement: str) -> str:
    """What a failed build printed, as a sentence."""
    found = MISSING.search(stderr)
    if found:
        kind, name = next((kind, name) for kind, name in found.groupdict().items() if name)
        missing = f"library {name}" if kind == "library" else name
        return (
            f"{requirement} does not compile, because there is no {missing}: "
            "add the Debian package that has it to forge_build_packages."
        )
    return f"{requirement} does not compile: {tool_cause(stderr, SHOWN)}"


def check_bundle(path: str, sha256: str) -> None:
    with open(path, "rb") as handle:
        if hashlib.sha256(handle.read()).hexdigest() != sha256:
            raise CompileError("The source arrived damaged (its sha256 differs): run again.")


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    if module.check_mode:
        module.exit_json(changed=True, msg=f"Would compile {params['requirement']} here.")
    try:
        check_bundle(params["source"], params["_sha256"])
        with exclusive_lock(LOCK, params["seconds"]):
            seconds = build(
                params["source"], params["_output"], params["python"], params["requirement"], params["seconds"]
            )
    except LockHeld:
        module.fail_json(msg="Another build compiles on this host: run again when it is done.")
    except CompileError as error:
        module.fail_json(msg=f"{error} {params['advice']}".rstrip())
    module.exit_json(changed=True, seconds=seconds)


if __name__ == "__main__":
    main()
