# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken over, what is refused, and that it can be undone. With a real service: tests/system."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import takeover as unit
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ownership import mark
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.takeover import TakeOver
from fake_host import NEW, Host

BY_HAND = "[Service]\nExecStart=/opt/forge\n"


@pytest.fixture
def foreign(host: Host) -> Host:
    """Somebody's service has the app's name, and nothing of ours serves."""
    host.nothing_was_released()
    Path(host.layout.units, "forge.service").write_text(BY_HAND)
    return host


def take_over(host: Host, tmp_path: Path) -> TakeOver:
    found = TakeOver(host.layout, NEW, host.processes().units())
    found.drop_ins = str(tmp_path)
    return found


def test_a_unit_without_the_mark_is_somebody_elses(foreign: Host, tmp_path: Path) -> None:
    assert take_over(foreign, tmp_path).foreign() == ["forge.service"]
    assert take_over(foreign, tmp_path).is_due()
    Path(foreign.layout.units, "forge.service").write_text(f"# {mark('forge')}\n{BY_HAND}")
    assert not take_over(foreign, tmp_path).is_due()


def test_once_the_app_serves_its_units_are_repaired(foreign: Host, tmp_path: Path) -> None:
    foreign.serve(NEW)
    assert take_over(foreign, tmp_path).foreign() == []


def test_a_socket_that_listens_elsewhere_is_refused(foreign: Host, tmp_path: Path) -> None:
    Path(foreign.layout.units, "forge.socket").write_text("[Socket]\nListenStream=9000\n")
    foreign.systemd.active = {"forge.socket"}
    foreign.systemd.listens = ["[::]:9000"]
    assert "listens elsewhere than forge_listen says" in take_over(foreign, tmp_path).old.problem()
    foreign.systemd.listens = ["0.0.0.0:8000"]
    assert take_over(foreign, tmp_path).old.problem() == ""


def test_the_old_file_is_kept_and_comes_back(foreign: Host, tmp_path: Path) -> None:
    added = Path(foreign.layout.units, "forge.service.d", "more.conf")
    added.parent.mkdir()
    added.write_text("[Service]\nUser=www-data\n")
    found = take_over(foreign, tmp_path)
    found.open_beside()
    assert Path(foreign.layout.home, "taken-over", "forge.service").read_text() == BY_HAND
    assert "ReusePort=yes" in Path(found.drop_in("forge.socket")).read_text()
    found.give_way()
    assert not added.exists(), "it was made for the other one's service"
    assert not os.path.exists(found.drop_in("forge.socket"))
    assert "SuccessExitStatus=1 2 3" in Path(found.drop_in("forge.service")).read_text()
    Path(foreign.layout.units, "forge.service").write_text(f"# {mark('forge')}\n")
    found.undo()
    assert Path(foreign.layout.units, "forge.service").read_text() == BY_HAND
    assert added.read_text() == "[Service]\nUser=www-data\n"
    assert not Path(foreign.layout.units, "forge.socket").exists(), "there was none"
    assert not os.path.exists(os.path.dirname(found.drop_in("forge.service")))
    assert not os.path.exists(os.path.join(foreign.layout.home, "taken-over"))


def test_a_link_comes_back_as_one(foreign: Host, tmp_path: Path) -> None:
    unit_file, elsewhere = Path(foreign.layout.units, "forge.service"), tmp_path / "forge.service"
    unit_file.rename(elsewhere)
    unit_file.symlink_to(elsewhere)
    found = take_over(foreign, tmp_path)
    found.back_up()
    unit_file.unlink()
    unit_file.write_text("ours")
    found.undo()
    assert os.readlink(unit_file) == str(elsewhere)
    assert elsewhere.read_text() == BY_HAND


def test_one_that_had_ended_is_started_again(foreign: Host, tmp_path: Path) -> None:
    foreign.systemd.active = {"forge.service"}
    found = take_over(foreign, tmp_path)
    found.open_beside()
    found.undo()
    found.revive()
    assert foreign.systemd.calls[-1] == ("restart", "forge.service")


def test_a_unix_socket_changes_hands_under_its_path(foreign: Host, tmp_path: Path) -> None:
    """Who connects reaches the one or the other at any time, also when the old one removes the path as it stops."""
    path = str(tmp_path / "s.sock")
    found = take_over(foreign, tmp_path)
    found.paths = [path]

    def listening(name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(name)
        listener.listen()
        return listener

    def reached() -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            for name, listener in (("old", old), ("ours", ours)):
                listener.settimeout(0.05)
                try:
                    listener.accept()[0].close()
                except TimeoutError:
                    continue
                return name
        return "nobody"

    old = listening(path)
    unit.link(path, path + unit.OLD)
    os.unlink(path)
    ours = listening(path)
    unit.link(path, path + unit.OURS)
    assert reached() == "ours"
    found.steer(to_ours=False)
    assert reached() == "old"
    found.steer(to_ours=True)
    assert reached() == "ours"
    os.unlink(path)
    found.keep_paths()
    assert reached() == "ours"
    found.forget_names()
    assert [name for name in os.listdir(tmp_path) if name.startswith("s.sock")] == ["s.sock"]
    old.close()
    ours.close()


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("0.0.0.0:8000", (socket.AF_INET, "0.0.0.0", 8000)),
        ("[::]:8000", (socket.AF_INET6, "::", 8000)),
        ("[0:0::1]:80", (socket.AF_INET6, "::1", 80)),
        ("/run/shop.sock", (socket.AF_INET, "", 0)),
    ],
)
def test_addresses_are_those_of_the_kernel(listen: str, address: tuple[int, str, int]) -> None:
    assert unit.address_of(listen) == address


def test_the_kernel_gives_new_connections_to_the_one_that_is_chosen() -> None:
    """Two sockets at one address, as the old one's and ours are."""
    answers: list[str] = []

    def serve(listener: socket.socket, name: str) -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            answers.append(name)  # before the client can know
            connection.close()

    def listening(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(16)
        return listener

    old = listening(0)
    port = old.getsockname()[1]
    ours = listening(port)
    threads = [threading.Thread(target=serve, args=pair, daemon=True) for pair in ((old, "old"), (ours, "ours"))]
    for thread in threads:
        thread.start()
    for index, name in ((0, "old"), (1, "ours")):
        unit.choose(old, index)
        answers.clear()
        for _number in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                client.recv(1)
        assert set(answers) == {name}
    assert unit.waiting(old) == 0
    for listener in (old, ours):
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
