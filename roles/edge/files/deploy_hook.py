# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
# Managed by thecodeforge.fastapi, for all apps of this edge: changes by hand are replaced
"""Gives HAProxy a certificate that certbot has renewed, without a reload. certbot says which in RENEWED_LINEAGE."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

HOME = Path(os.environ.get("FORGE_EDGE_HOME", "/etc/haproxy/forge"))
ADMIN_SOCKET = os.environ.get("FORGE_EDGE_SOCKET", "/run/haproxy/admin.sock")


def ask(command: str) -> str:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(ADMIN_SOCKET)
        peer.sendall(command.encode() + b"\n")
        answer = b""
        while part := peer.recv(65536):
            answer += part
    return answer.decode(errors="replace").strip()


def main() -> int:
    lineage = Path(os.environ["RENEWED_LINEAGE"])
    app = lineage.name.removeprefix("forge-")
    if app == lineage.name or not (HOME / "apps" / f"{app}.json").exists():
        return 0  # none of ours
    pem = "".join((lineage / name).read_text(encoding="ascii") for name in ("fullchain.pem", "privkey.pem"))
    file = HOME / "certificates" / f"{app}.pem"
    if file.exists() and file.read_text(encoding="ascii") == pem:
        return 0
    payload = "\n".join(line for line in pem.splitlines() if line.strip())  # an empty line would end it
    try:
        answers = [ask(f"set ssl cert {file} <<\n{payload}\n"), ask(f"commit ssl cert {file}")]
    except OSError:  # it does not run, and reads the file when it starts
        answers = ["", "Success"]
    if "Success" not in answers[1]:
        print(f"HAProxy did not take the certificate of {app}: {' '.join(answers)}", file=sys.stderr)
        return 1
    draft = file.with_suffix(".new")
    draft.touch(0o600)
    draft.write_text(pem, encoding="ascii")
    draft.replace(file)
    print("changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
