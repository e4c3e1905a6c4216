# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A candidate does not accept from the public socket; a live generation does; boot failures."""

from __future__ import annotations

import os
import re
import signal
import socket
import time

import pytest
from worker_harness import LOOPS, ONE_PROCESS, OWN, eventually


def ask(address, timeout: float = 5) -> str:
    with socket.create_connection(address, timeout) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


@pytest.mark.parametrize("worker", [*LOOPS, *ONE_PROCESS, OWN])
def test_candidate_serves_private_only_until_the_switch(site, worker):
    site.switch_to("other")
    candidate = site.generation("new", worker=worker, workers=2)
    candidate.wait_for("standby")
    assert "200 OK" in candidate.private()
    with pytest.raises(TimeoutError):
        ask(site.address, timeout=0.5)
    site.switch_to("new")
    began = time.monotonic()
    candidate.wait_for("public")
    assert time.monotonic() - began < 1
    # The request that waited in the kernel's queue, as the public socket is never closed, is answered too.
    assert "new " in ask(site.address)
    site.switch_to("other")  # once public, it is public until it is told otherwise
    site.current.unlink()
    time.sleep(0.3)
    assert set(candidate.state.values()) == {"public"}
    assert "new " in ask(site.address)


def ask_again(client: socket.socket, path: str = "/") -> None:
    client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())


def answer_of(client: socket.socket) -> str:
    """The next answer on a connection, whole."""
    client.settimeout(5)
    text = b""
    while not (length := re.search(rb"content-length: (\d+).*\r\n\r\n(.*)", text, re.DOTALL)) or (
        len(length[2]) < int(length[1])
    ):
        text += client.recv(65536)
    return text.decode()


@pytest.mark.heavy
@pytest.mark.parametrize("worker", [*LOOPS, "uvicorn"])
def test_live_generation_stands_by_when_it_is_told_to_and_serves_again(site, worker):
    old = site.live("old", worker=worker, drain=4)
    for _ in range(2):
        with socket.create_connection(site.address, 5) as kept, socket.create_connection(site.address, 5) as pending:
            ask_again(kept)
            assert "connection: close" not in answer_of(kept)
            ask_again(pending, "/slow?seconds=1")
            time.sleep(0.2)
            old.stand_by.touch()
            old.wait_for("standby")
            with pytest.raises(TimeoutError):
                ask(site.address, timeout=0.3)
            assert "200 OK" in old.private()
            ask_again(kept)
            for client in (kept, pending):  # what was accepted is answered, with word that it was the last
                assert "connection: close" in answer_of(client)
        old.stand_by.unlink()
        old.wait_for("public")
        assert "old " in ask(site.address)
    with socket.create_connection(site.address, 5) as idle:
        ask_again(idle)
        assert "connection: close" not in answer_of(idle)
        told = time.monotonic()
        old.stand_by.touch()
        old.wait_for("standby")
        time.sleep(3)
        old.stop()
        assert old.ended() == 0
        assert 3.9 < time.monotonic() - told < 6  # the drain had begun when it was told; an idle client uses it up
    assert "Traceback" not in old.said


def test_two_generations_share_the_socket_and_only_the_live_one_answers(site):
    site.live("old")
    candidate = site.generation("new")
    candidate.wait_for("standby")
    assert {ask(site.address).split()[-2] for _ in range(50)} == {"old"}


def test_live_generation_opens_at_boot_after_its_lifespan(site):
    site.switch_to("only")
    generation = site.generation("only", environment={"APP_STARTUP": "0.5"})
    assert "200 OK" in ask(site.address)  # the app answers 500 before its lifespan is complete
    generation.wait_for("public")


def test_several_public_sockets(site):
    other = socket.create_server(("127.0.0.1", 0))
    site.switch_to("new")
    generation = site.generation("new", names="public:public", sockets=[site.public, other])
    generation.wait_for("public")
    assert "new " in ask(site.address)
    assert "new " in ask(other.getsockname())
    other.close()


def test_without_names_all_sockets_are_public(site):
    site.switch_to("other")
    generation = site.generation("new", names=None)
    generation.wait_for("public")
    assert "new " in ask(site.address)
    assert "200 OK" in generation.private()


def test_without_any_setting_it_is_a_uvicorn_worker(site):
    generation = site.generation("new", names=None, settings_of_worker=False)
    assert "none " in ask(site.address)
    assert generation.state == {}
    site.fault.write_text("import")
    os.kill(generation.pids()[0], signal.SIGKILL)
    assert generation.ended() in (3, 4)


@pytest.mark.parametrize("fault", ["import", "exit", "lifespan"])
def test_candidate_that_cannot_boot_stops_at_once(site, fault):
    site.switch_to("other")
    site.fault.write_text(fault)
    candidate = site.generation("new", workers=2)
    # 3 or 4; but 1, when Gunicorn meets the failure of the second worker while it halts because of the first.
    assert candidate.ended() in (1, 3, 4)
    assert candidate.state == {}
    assert "its generation is live" not in candidate.said


@pytest.mark.parametrize("fault", ["import", "lifespan"])
def test_one_process_that_cannot_boot_ends(site, fault):
    site.fault.write_text(fault)
    assert site.generation("new", worker="uvicorn").ended() in (1, 3)


def test_names_that_do_not_fit_stop_the_candidate(site):
    site.switch_to("other")
    candidate = site.generation("new", names="private:public:third")
    assert candidate.ended() == 3
    assert "LISTEN_FDNAMES has 3 names for 2 sockets" in candidate.said


@pytest.mark.parametrize("fault", ["import", "lifespan"])
def test_worker_that_cannot_boot_leaves_the_live_generation_alone(site, fault):
    generation = site.live("only", workers=2)
    victim, survivor = generation.pids()
    site.fault.write_text(fault)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: generation.said.count("failed to boot") >= 2)
    assert generation.master.poll() is None
    assert f"only {survivor}" in ask(site.address)
    assert generation.said.count("Booting worker") <= 2 + 4  # it does not spin
    site.fault.unlink()
    eventually(lambda: list(generation.state.values()) == ["public"] * 2)


def test_files_of_killed_workers_are_removed(site):
    generation = site.live("only")
    (worker,) = generation.wait_for("public")
    (generation.states / str(os.getpid())).write_text("public")  # runs, but is no worker of this master
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: set(generation.state) not in ({worker, os.getpid()}, {os.getpid()}, set()))
    assert len(generation.wait_for("public")) == 1
    assert worker not in generation.state
    generation.stop()
    assert generation.ended() == 0
    assert [path.name for path in generation.states.iterdir()] == ["ended"]
