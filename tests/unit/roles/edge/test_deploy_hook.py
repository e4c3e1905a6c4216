# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What certbot runs after a renewal gives HAProxy the certificate."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[4] / "roles" / "edge" / "files" / "deploy_hook.py"


def serve(listener: socket.socket, asked: list[str], answers: list[str]) -> None:
    for answer in answers:
        peer, _address = listener.accept()
        with peer:
            asked.append(peer.recv(65536).decode())
            peer.sendall(answer.encode())


def renew(directory: Path, lineage: str, *answers: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    live = directory / "live" / lineage
    live.mkdir(parents=True)
    (live / "fullchain.pem").write_text("chain\n\n")
    (live / "privkey.pem").write_text("key\n")
    for name in ("apps", "certificates"):
        (directory / name).mkdir()
    (directory / "apps" / "shop.json").touch()
    (directory / "certificates" / "shop.pem").write_text("old\n")
    asked: list[str] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "admin"))
        listener.listen()
        threading.Thread(target=serve, args=(listener, asked, answers), daemon=True).start()
        variables = {
            "RENEWED_LINEAGE": str(live),
            "FORGE_EDGE_HOME": str(directory),
            "FORGE_EDGE_SOCKET": str(directory / "admin"),
        }
        done = subprocess.run(
            [sys.executable, HOOK], env={**os.environ, **variables}, capture_output=True, text=True, timeout=20
        )
    return done, asked


def test_haproxy_gets_the_certificate_without_a_reload(tmp_path: Path) -> None:
    done, asked = renew(tmp_path, "forge-shop", "Transaction created", "Success!")
    file = tmp_path / "certificates" / "shop.pem"
    assert (done.returncode, file.read_text()) == (0, "chain\n\nkey\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert asked == [f"set ssl cert {file} <<\nchain\nkey\n\n", f"commit ssl cert {file}\n"]


def test_what_haproxy_refuses_is_said(tmp_path: Path) -> None:
    done, _asked = renew(tmp_path, "forge-shop", "unable to load", "No ongoing transaction!")
    assert done.returncode == 1
    assert "HAProxy did not take the certificate of shop: unable to load" in done.stderr
    assert (tmp_path / "certificates" / "shop.pem").read_text() == "old\n", "the next run tries again"


@pytest.mark.heavy
def test_what_it_has_is_not_given_again_and_who_does_not_run_reads_it_later(tmp_path: Path) -> None:
    file = tmp_path / "certificates" / "shop.pem"
    done, asked = renew(tmp_path, "forge-shop")  # nobody answers
    assert (done.returncode, asked, file.read_text()) == (0, [], "chain\n\nkey\n")
    variables = {"RENEWED_LINEAGE": str(tmp_path / "live" / "forge-shop"), "FORGE_EDGE_HOME": str(tmp_path)}
    again = subprocess.run([sys.executable, HOOK], env={**os.environ, **variables}, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (0, "")


@pytest.mark.parametrize("lineage", ["shop", "forge-blog"])
def test_certificates_of_others_are_left_alone(tmp_path: Path, lineage: str) -> None:
    done, asked = renew(tmp_path, lineage)
    assert (done.returncode, asked) == (0, [])
    assert (tmp_path / "certificates" / "shop.pem").read_text() == "old\n"
