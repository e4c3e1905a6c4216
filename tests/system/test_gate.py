# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate on a host with a life of its own, under load: what is refused, what is said, and what of the host's state heals.

Writes what was lost to build/bench/gate.json.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import REPOSITORY, Fleet, Run
from tiny import MAIN, load, write_project

PORT, OTHER_PORT = 8200, 8201
STARTUP = '''
async def start(send):
    """What STARTS or DIES asks of each worker; /tmp is that of the service, and new with each start."""
    import signal
    import traceback

    if os.environ.get("DIES"):
        os.kill(os.getpid(), signal.SIGSEGV)
    try:
        for number in range(int(os.environ.get("STARTS", 99)) + 1):
            try:
                os.close(os.open(f"/tmp/worker-{number}", os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                pass
        if number == int(os.environ.get("STARTS", 99)):
            raise RuntimeError("FATAL: sorry, too many clients already, " + os.environ["TOKEN"])
    except RuntimeError:
        await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})
        return False
    return True
'''
CALL = """            message = await receive()
            if message["type"] == "lifespan.startup" and not await start(send):
                return
"""
TOKEN = "hunter22-hunter22"
LOST: dict[str, str] = {}


@pytest.fixture(scope="module")
def gate(box: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    source = tmp_path_factory.mktemp("gate") / "shop"
    main = MAIN.replace("            message = await receive()\n", CALL) + STARTUP
    write_project(source, "gunicorn", "uvicorn[standard]", "uvicorn-worker", main=main)
    gate = Gate(box, source)
    assert gate.play("site").rc == 0
    yield gate
    (REPOSITORY / "build" / "bench").mkdir(parents=True, exist_ok=True)
    (REPOSITORY / "build" / "bench" / "gate.json").write_text(json.dumps(LOST, indent=2) + "\n")


class Gate:
    """An app on the box, beside what other tests have there."""

    def __init__(self, box: Fleet, source: Path) -> None:
        self.box = box
        self.settings: dict[str, Any] = {
            "forge_app": "gate", "forge_user": "gate", "forge_group": "gate", "forge_listen": [f"0.0.0.0:{PORT}"],
            "forge_source": str(source), "forge_target": "shop.main:app", "forge_migrations": [],
            "forge_schema_version": "", "forge_environment_prefix": "GATE_", "forge_environment": {},
            "forge_environment_plain": {"TOKEN": TOKEN}, "forge_workers": 3, "forge_watch_seconds": 1,
            "forge_keepalive": 70,
        }  # fmt: skip

    def play(self, playbook: str = "deploy", **more: Any) -> Run:
        return self.box.play(playbook, check=False, **{**self.settings, **more})

    def release(self, **environment: str) -> Run:
        """Deploy a change: another setting; or variables with which the app fails, which is none to come back to."""
        if environment:
            return self.play(forge_environment_plain={"TOKEN": TOKEN, **environment})
        self.settings["forge_keepalive"] += 1
        return self.play()

    def on(self, script: str) -> str:
        return self.box.on("box", script)

    def url(self, port: int = PORT) -> str:
        return f"http://{self.box.address('box')}:{port}"

    def serving(self, port: int = PORT) -> str:
        """Id of the generation that answers."""
        return str(httpx.get(self.url(port) + "/version", timeout=10).json()["generation"])

    def linked(self) -> str:
        return self.on("basename $(readlink /srv/gate/current)")

    @contextmanager
    def nothing_lost(self, case: str) -> Iterator[None]:
        with load(self.url()) as result:
            yield
        LOST[case] = f"{result['total_lost']} of {result['total']}"
        assert result["total"] > 100
        assert result["lost"] == {}, case


def test_every_worker_must_start_and_the_cause_is_said(gate: Gate) -> None:
    before = gate.serving()
    with gate.nothing_lost("one of three workers cannot start"):
        run = gate.release(STARTS="2")
    assert run.rc != 0
    assert "exited (status 3): RuntimeError: FATAL: sorry, too many clients already, ********." in run.said()
    assert "forge_worker_connections" in run.said()
    assert "forge_postgresql_max_connections" in run.said()
    assert "What served before still serves." in run.said()
    assert TOKEN not in run.output
    shown = run.output.partition("Journal of ")[2]
    assert "Traceback (most recent call last)" in shown.split("\n")[1], "the journal begins with the cause"
    assert gate.serving() == gate.linked() == before


@pytest.mark.thorough
def test_workers_that_die_over_and_over_are_seen_soon(gate: Gate) -> None:
    before = gate.serving()
    with gate.nothing_lost("each worker dies by a signal"):
        run = gate.release(DIES="1")
    assert "is not healthy: its workers die, one after the other: Fatal Python error: Segmentation fault." in run.said()
    assert gate.serving() == gate.linked() == before


def test_taken_address_costs_nothing(gate: Gate) -> None:
    before = gate.serving()
    with gate.nothing_lost("forge_listen is taken by sshd"):
        run = gate.play(forge_listen=["0.0.0.0:22"])
    assert run.rc != 0
    assert "forge_listen: 0.0.0.0:22 is taken by sshd" in run.said()
    assert "ssh.service" in run.said()
    assert "Nothing was changed on " in run.said()
    assert "journalctl" not in run.said()
    assert gate.serving() == gate.linked() == before


class Clients(threading.Thread):
    """Ask at two ports until told to stop; each answer, or none, with its time."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__()
        self.urls, self.seen, self.ended = urls, list[tuple[float, int, bool]](), threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            for number, url in enumerate(self.urls):
                began = time.monotonic()
                try:
                    answered = httpx.get(url + "/version", timeout=5).status_code == 200
                except httpx.HTTPError:
                    answered = False
                self.seen.append((began, number, answered))


@pytest.mark.parametrize(("old", "new", "playbook"), [(PORT, OTHER_PORT, "deploy"), (OTHER_PORT, PORT, "rollback")])
def test_another_address_is_open_before_the_old_one_closes(gate: Gate, old: int, new: int, playbook: str) -> None:
    clients = Clients([gate.url(old), gate.url(new)])
    clients.start()
    try:
        run = gate.play(playbook, forge_listen=[f"0.0.0.0:{OTHER_PORT}"])
    finally:
        clients.ended.set()
        clients.join()
    assert run.rc == 0, run.output[-3000:]
    first = next(at for at, number, answered in clients.seen if number == 1 and answered)
    lost = [at for at, number, answered in clients.seen if not answered and (number == 1) is (at > first)]
    LOST[f"moved from port {old} to {new}"] = f"{len(lost)} of {len(clients.seen)}"
    assert lost == [], "the old port answers until the new one does, and that goes on"
    assert gate.serving(new) == gate.linked()
    assert gate.on("systemctl is-active gate.socket gate.service") == "active\nactive"
    with pytest.raises(httpx.ConnectError):
        gate.serving(old)


DAMAGE = {
    "current is missing": "rm /srv/gate/current",
    "current is a directory": "rm /srv/gate/current; mkdir -p /srv/gate/current/x",
    "current names what was removed": "ln -sfn generations/0123456789ab-00000000 /srv/gate/current",
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", DAMAGE)
def test_lost_link_costs_nothing_and_heals(gate: Gate, case: str) -> None:
    before = gate.serving()
    with gate.nothing_lost(f"{case}, then a sick and a good release"):
        gate.on(DAMAGE[case])
        if case == "current is missing":
            status = gate.play("status")
            assert f"{before} serves, and /srv/gate/current is no link to it" in status.said()
            sick = gate.release(STARTS="0")
            assert sick.rc != 0
            assert gate.serving() == gate.linked() == before
            gate.on(DAMAGE[case])
        good = gate.release()
        assert good.rc == 0, good.output[-3000:]
    assert f"while {before} serves: it names that again." in good.said()
    assert gate.serving() == gate.linked() != before
    assert gate.play("status").rc == 0


def test_files_that_somebody_removed_or_edited_are_made_anew(gate: Gate) -> None:
    live = gate.serving()
    with gate.nothing_lost("unit files, record and marks of what serves are gone or edited"):
        gate.on(
            f"""cd /srv/gate; echo '{{"state": "go' > generations/{live}/release.json; rm layers/*/.complete
            rm /etc/systemd/system/gate@{live}.service; systemctl disable -q gate.service gate.socket
            ln -sfn /dev/null /etc/systemd/system/gate.service; echo '# edited' >> /etc/systemd/system/gate.socket
            systemctl daemon-reload"""
        )
        assert "release.json cannot be read" in gate.play("status").said()
        same = gate.play()
        assert same.rc == 0, same.output[-3000:]
        assert gate.play("status").rc == 0
        assert gate.serving() == live
    assert gate.on("systemctl is-enabled gate.service gate.socket") == "enabled\nenabled"
    assert json.loads(gate.on("cat /srv/gate/current/release.json"))["state"] == "good"


# Of each document and lock another kind of damage; and all of it at once, as what a rescue from a backup may leave.
DAMAGED = """
cd /srv/gate; id=$(basename $(readlink current))
head -c 300 /dev/urandom > project.json; head -c 300 /dev/urandom >> ledger.jsonl; printf '{"to": "' >> ledger.jsonl
mkdir lock.json; mkdir current.tmp; touch current.tmp/x
mv generations/$id/release.json /tmp/kept; mkdir generations/$id/release.json
chown -R gate locks; chmod 777 locks; rm -rf locks/*; mkdir locks/stage; ln -s /etc/passwd locks/rollout; mkfifo locks/lock
head -c 300 /dev/urandom > /run/gate/$id/999999; mkdir /run/gate/$id/999998
chown gate:gate . generations generations/$id generations/$id/environment; chmod 777 .
"""


@pytest.mark.thorough
def test_damaged_documents_and_locks_heal(gate: Gate) -> None:
    live = gate.serving()
    with gate.nothing_lost("documents and locks are garbage, directories, pipes, links, or another user's"):
        gate.on(DAMAGED)
        assert "release.json cannot be read" in gate.play("status").said()
        same = gate.play()
        assert same.rc == 0, same.output[-3000:]
        assert gate.serving() == gate.linked() == live
        good = gate.release()
        assert good.rc == 0, good.output[-3000:]
        assert gate.play("rollback").rc == 0
    assert gate.serving() == gate.linked() == live
    assert "Traceback" not in same.output + good.output
    assert gate.on("find /srv/gate -maxdepth 3 ! -type l '(' ! -user root -o -perm /022 ')'") == ""


def test_full_disk_is_one_sentence(gate: Gate) -> None:
    live = gate.serving()
    gate.on("""set -e; cd /srv; size=$(du -sk gate | cut -f1); mkdir -p /mnt/small
        mount -t tmpfs -o size=$((size + 4096))k tmpfs /mnt/small; cp -a gate/. /mnt/small; mount --bind /mnt/small gate""")
    try:
        with gate.nothing_lost("the disk is full"):
            gate.on("dd if=/dev/zero of=/srv/gate/filling bs=4k 2>/dev/null || true")
            full = gate.release()
            gate.on("rm /srv/gate/filling")
            assert gate.play("status").rc == 0
        assert full.rc != 0
        sentence = "The host's files cannot be used (/srv/gate/lock.json: No space left on device): free some room there, and run again."
        assert sentence in full.said()
        assert "Traceback" not in full.output
        assert gate.serving() == gate.linked() == live
    finally:
        gate.on("cd /; rm -f /srv/gate/filling; umount -l /srv/gate; umount -l /mnt/small")
    again = gate.play()
    assert again.rc == 0, again.output[-3000:]
    assert gate.serving() == gate.linked() != live, "where there is room, the next run ends it"


@pytest.mark.thorough
def test_what_was_removed_below_run_is_said_and_heals_with_the_next_change(gate: Gate) -> None:
    assert gate.play().rc == 0  # what serves may be one that an earlier test went back to
    before = gate.serving()
    with gate.nothing_lost("/run of the app is removed"):
        gate.on("rm -r /run/gate")
        said = gate.play().said()
        assert f"{before} serves, but /run/gate/{before}.sock was removed: systemctl restart gate makes it anew" in said
        assert gate.serving() == before
        good = gate.release()
        assert good.rc == 0, good.output[-3000:]
    assert gate.serving() == gate.linked() != before
    assert gate.play("status").rc == 0


def test_app_that_was_stopped_with_its_socket_serves_after_the_next_run(gate: Gate) -> None:
    live = gate.serving()
    gate.on("systemctl stop gate.socket")
    assert f"{live} does not run" in gate.play("status").said()
    run = gate.play()
    assert run.rc == 0, run.output[-3000:]
    assert gate.serving() == live
