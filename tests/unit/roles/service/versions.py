# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs these tests with other versions: `python versions.py [PYTHON] GUNICORN UVICORN [REQUIREMENT ...]`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main(*arguments: str) -> int:
    python = arguments[0] if arguments[0].startswith(("3.", "/")) else sys.executable
    gunicorn, uvicorn, *others = [argument for argument in arguments if argument != python]
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["uv", "venv", "--quiet", "--python", python, directory], check=True)
        packages = [f"gunicorn=={gunicorn}", f"uvicorn=={uvicorn}", "uvloop", "httptools", "starlette", *others]
        install = ["uv", "pip", "install", "--quiet", "--python", f"{directory}/bin/python"]
        subprocess.run([*install, *packages], check=True)
        environment = {**os.environ, "FORGE_WORKER_PYTHON": f"{directory}/bin/python"}
        tests = [str(path) for path in HERE.glob("test_*.py") if path.name != "test_worker_units.py"]
        return subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
