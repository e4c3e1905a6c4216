#!/usr/bin/python
# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
from __future__ import annotations

DOCUMENTATION = r"""
module: compile
short_description: Compile a wheel on one host, for all hosts of its platform
version_added: 1.0.0
description:
  - Takes what M(thecodeforge.fastapi.build) could not build on the controller. The source, and what building needs, comes
    from the controller; the wheel goes into the controller's cache, and nothing of it stays on the host.
  - Compiles as a user that exists only meanwhile, without network, in a directory that systemd removes however it ends.
author: The Code Forge (@thecodeforge)
options:
  requirement:
    description: What is compiled, for people, such as V(psycopg2==2.9.10).
    type: str
    required: true
  source:
    description: Archive on the controller, of the source and what building needs.
    type: path
    required: true
  python:
    description: Interpreter on the host.
    type: path
    required: true
  packages:
    description: Debian packages that compiling needs; installed where they are missing, and left there.
    type: list
    elements: str
    default: []
  seconds:
    description: Seconds that compiling may take.
    type: int
    default: 3600
  platform:
    description: The C(python), C(machine) and C(glibc) of the host.
    type: dict
    required: true
  shelf:
    description: Directory on the controller that the wheel goes to.
    type: path
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
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
    shelf: "{{ item.shelf }}"
    packages: [build-essential, python3-dev, libpq-dev]
  delegate_to: "{{ item.host }}"
  loop: "{{ built.to_compile.values() }}"
  run_once: true
"""

RETURN = r"""
wheel:
  description: The wheel, on the controller.
  returned: success
  type: str
installed:
  description: Debian packages that were installed.
  returned: always
  type: list
  elements: str
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

from ..module_utils._private.alone import Busy, alone
from ..module_utils._private.debian import AptError, install, missing_packages
from ..module_utils._private.reproducible import EPOCH

UNIT = "forge-compile"
CACHES = ("/var/cache/private", "/var/cache")
# Fixed names and dates, so that the same source gives the same bytes as far as the compiler does.
SCRIPT = """
set -e
tar -xf -
"$1" -m zipfile -e uv.whl uv
PATH="$PATH:$(echo "$PWD"/uv/*.data/scripts)"
chmod 755 uv/*.data/scripts/uv
uv build --wheel --offline --no-index --find-links wheels --no-config --no-sources --python "$1" --out-dir out source >&2
cd out
tar -cf - *.whl
"""
SANDBOX = (
    "DynamicUser=yes", "PrivateNetwork=yes", "PrivateDevices=yes", "ProtectHome=yes", "ProtectProc=invisible",
    "ProtectKernelTunables=yes", "ProtectControlGroups=yes", "RestrictSUIDSGID=yes", "Nice=19",
    f"CacheDirectory={UNIT}", "CacheDirectoryMode=0700", f"WorkingDirectory=/var/cache/{UNIT}", "UMask=0022",
    # Also when this process has been killed.
    f"ExecStopPost=-/usr/bin/find /var/cache/{UNIT} -mindepth 1 -delete", "TimeoutStopSec=60",
)  # fmt: skip
ENVIRONMENT = {
    "HOME": f"/var/cache/{UNIT}", "UV_CACHE_DIR": f"/var/cache/{UNIT}/cache", "TMPDIR": f"/var/cache/{UNIT}",
    "UV_PYTHON_DOWNLOADS": "never", "SOURCE_DATE_EPOCH": EPOCH, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8",
}  # fmt: skip
MISSING = re.compile(
    r"error: (?P<header>\S+\.h(?:pp)?): No such file"
    r"|command '(?P<command>[^']+)' failed: No such file"
    r"|No such file or directory: '(?P<program>[^'/]+)'"
    r"|(?P<tool>[\w.+-]+):? (?:executable not found|command not found|not found$)"
    r"|cannot find -l(?P<library>[\w.+-]+)",
    re.MULTILINE,
)
WORDS = 600


class CompileError(Exception):
    """Half a sentence: what is wrong, what to do."""


def build(source: str, made: str, python: str, requirement: str, seconds: int) -> float:
    """Compile, in a unit of its own.

    :param made: where the archive with the wheel goes.
    :returns: seconds it took.
    :raises CompileError: with the last words of what failed.
    """
    # What a run that was killed has left: nobody else is here, see main.
    subprocess.run(["systemctl", "stop", f"{UNIT}.service"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    clear()
    command = ["systemd-run", "--unit", UNIT, "--wait", "--pipe", "--collect", "--quiet", "--service-type=exec"]
    for directive in (*SANDBOX, f"RuntimeMaxSec={seconds}"):
        command += ["--property", directive]
    command += [f"--setenv={name}={value}" for name, value in ENVIRONMENT.items()]
    command += ["--", "/bin/sh", "-c", SCRIPT, "sh", python]
    began = time.monotonic()
    try:
        with open(source, "rb") as given, open(made, "wb") as result:
            os.fchmod(result.fileno(), 0o644)
            done = subprocess.run(command, stdin=given, stdout=result, stderr=subprocess.PIPE, check=False)
    finally:
        clear()
    took = time.monotonic() - began
    if done.returncode != 0:
        if took >= seconds:
            raise CompileError(f"{requirement} was not compiled within {seconds} s, and was stopped.")
        raise CompileError(explain(done.stderr.decode(errors="replace"), requirement))
    return round(took, 2)


def clear() -> None:
    """Remove the directory: it is there already when the last run was killed."""
    for parent in CACHES:
        path = os.path.join(parent, UNIT)
        if os.path.islink(path):
            os.unlink(path)
        else:
            shutil.rmtree(path, ignore_errors=True)


def explain(words: str, requirement: str) -> str:
    """What a failed build printed, as a sentence."""
    found = MISSING.search(words)
    if found:
        kind, name = next((kind, name) for kind, name in found.groupdict().items() if name)
        what = f"library {name}" if kind == "library" else name
        return (
            f"{requirement} does not compile, because there is no {what}: "
            "add the Debian package that has it to forge_build_packages."
        )
    words = re.split(r"\n\W*(?:error|hint)?:? ?Failed to build ", words)[0].strip() or words
    last = " ".join(words.split())
    return f"{requirement} does not compile: {last if len(last) <= WORDS else '…' + last[-WORDS:].partition(' ')[2]}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "requirement": {"type": "str", "required": True},
            "source": {"type": "path", "required": True},
            "python": {"type": "path", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "seconds": {"type": "int", "default": 3600},
            "platform": {"type": "dict", "required": True},  # the controller's, as is shelf
            "shelf": {"type": "path", "required": True},
            "_sha256": {"type": "str", "default": ""},
            "_made": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    python = given["python"]
    wanted = [*given["packages"], *([] if os.access(python, os.X_OK) else [os.path.basename(python)])]
    missing = missing_packages(wanted)
    if module.check_mode:
        module.exit_json(changed=True, installed=missing, msg=f"Would compile {given['requirement']} here.")
    try:
        with open(given["source"], "rb") as handle:
            if hashlib.sha256(handle.read()).hexdigest() != given["_sha256"]:
                raise CompileError("The source arrived damaged (its sha256 differs): run again.")
        with alone(f"/run/lock/{UNIT}", given["seconds"]):
            if missing:
                install(missing)
            seconds = build(given["source"], given["_made"], python, given["requirement"], given["seconds"])
    except Busy:
        module.fail_json(msg="Another build compiles on this host: run again when it is done.")
    except AptError as error:
        module.fail_json(msg=f"forge_build_packages: apt could not install {', '.join(missing)}: {error}")
    except CompileError as error:
        module.fail_json(msg=str(error), installed=missing)
    module.exit_json(changed=True, installed=missing, seconds=seconds)


if __name__ == "__main__":
    main()
