# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with a life of its own: a hand-made service is taken over, and an app is removed beside another that serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Fleet
from tiny import load, write_project

APP: dict[str, Any] = {
    "forge_target": "shop.main:create_app()",
    "forge_migrations": [],
    "forge_schema_version": "",
    "forge_server": "uvicorn",
    "forge_environment": {},
    "forge_watch_seconds": 1,
}
UVICORN = "uvicorn shop.main:app --no-access-log"
TCP = f"{UVICORN} --host 0.0.0.0 --port 8240"
GUNICORN = "gunicorn -k uvicorn_worker.UvicornWorker shop.main:app --bind 0.0.0.0:8240 --bind unix:/run/shop-web/s.sock"
SERVICE = """[Unit]
{unit}
[Service]
User=www-data
RuntimeDirectory=shop-web
WorkingDirectory=/opt
ExecStart=/opt/venv/bin/python -m {command}
Restart=always

[Install]
WantedBy=multi-user.target
"""
SOCKET = """[Socket]
ListenStream=0.0.0.0:8240
[Install]
WantedBy=sockets.target
"""
ADDED = "[Service]\nUser=www-data\nEnvironment=ONE=1\n"
# Connects to an address, a port or a path, over and over; writes what became of it once it is told to stop.
CLIENT = """
import collections, signal, socket, sys, time
seen, going = collections.Counter(), []
signal.signal(signal.SIGTERM, lambda *_: going.append(1))
while not going:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(sys.argv[1])
            client.sendall(b"GET /version HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
            seen["ok" if client.makefile("rb").read().startswith(b"HTTP/1.1 200") else "cut"] += 1
    except OSError as error:
        seen[type(error).__name__] += 1
    time.sleep(0.01)
print(dict(seen), file=open("/opt/client.out", "w"))
"""
# A Python that runs where the kernel has no pidfd_getfd(2): a seccomp filter answers ENOSYS, as Linux before 5.6 does.
OLD_KERNEL = """#!/usr/bin/python3 -I
import ctypes, os, struct, sys
steps = (0x20, 0, 0, 0), (0x15, 0, 1, 438), (0x06, 0, 0, 0x00050026), (0x06, 0, 0, 0x7fff0000)
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(code))), 0, 0) == 0
os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv[1:]])
"""
FORGET = """
systemctl disable --quiet --now shop.socket shop.service 2>/dev/null
systemctl stop 'shop@*' 2>/dev/null; pkill -KILL -u www-data
rm -rf /srv/shop /var/lib/shop /etc/systemd/system/shop* /etc/systemd/system/*.wants/shop*
systemctl daemon-reload; systemctl reset-failed; userdel shop 2>/dev/null; true
"""


def named(app: str, source: Path, *listen: str) -> dict[str, Any]:
    return {**APP, "forge_source": str(source), "forge_app": app, "forge_user": app, "forge_group": app,
            "forge_listen": list(listen), "forge_state_directories": [app]}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("adopted") / "shop", "uvicorn", "gunicorn", "uvicorn-worker")


@pytest.fixture(scope="module")
def blog(box: Fleet, source: Path) -> dict[str, Any]:
    """An app of ours that has nothing to do with it, and the other one's program as a person had installed it."""
    settings = named("blog", source, "0.0.0.0:8241")
    box.play("site", **settings)
    box.on("box", "cp -r /srv/blog/layers/* /opt/venv; cp -r /srv/blog/releases/*/shop /opt/shop")
    return settings


@pytest.fixture
def shop(box: Fleet, blog: dict[str, Any]) -> Iterator[None]:
    yield
    box.on("box", FORGET)


def write(box: Fleet, path: str, text: str) -> None:
    box.on("box", f"mkdir -p $(dirname {path}); cat >{path} <<'E'\n{text}E")


def by_hand(box: Fleet, command: str, unit: str = "") -> str:
    """Start it, and return the text of its unit."""
    write(box, "/etc/systemd/system/shop.service", SERVICE.format(command=command, unit=unit))
    box.on("box", "systemctl daemon-reload; systemctl enable --quiet --now shop")
    box.until(lambda: serves(box))
    return box.on("box", "cat /etc/systemd/system/shop.service")


def serves(box: Fleet) -> str:
    """Generation that answers at the port; ``null`` is the hand-made one."""
    answer = box.on("box", "curl -s --max-time 5 http://127.0.0.1:8240/version", check=False)
    return str(json.loads(answer)["generation"] or "null") if answer else ""


def is_ours(box: Fleet) -> bool:
    return serves(box) == box.on("box", "basename $(readlink /srv/shop/current)")


def test_hand_made_service_is_taken_over_without_a_lost_connection(
    box: Fleet, source: Path, blog: dict[str, Any], shop: None
) -> None:
    unit = by_hand(box, TCP + " --timeout-keep-alive 60")
    settings = named("shop", source, "0.0.0.0:8240")
    url = f"http://{box.address('box')}:8240"
    with httpx.Client() as one, httpx.Client() as two:
        assert one.get(f"{url}/version").status_code == two.get(f"{url}/version").status_code == 200
        refused = box.play("check", check=False, **settings)
        assert refused.rc != 0
        told = box.play("check", **settings, forge_take_over=["unit"])
    cost = "No new connection is lost. Its open connections, now 2, end as at each restart of it."
    assert f"take it over with forge_take_over: [unit]. What that costs: {cost}" in refused.said()
    assert "was made by somebody else (shop.service serves at 0.0.0.0:8240): on box it is taken over" in told.said()
    assert cost in told.said()

    bad = {"forge_environment_plain": {"HEALTH": 503}, "forge_health_deadline": 4}
    with load(url, closing=8) as result:
        sick = box.play("site", check=False, **settings, **bad, forge_take_over=["unit"])
        assert sick.rc != 0
        assert box.on("box", "cat /etc/systemd/system/shop.service") == unit
        assert box.on("box", "systemctl is-active shop; systemctl is-enabled shop").split() == ["active", "enabled"]
        box.play("site", **settings, forge_take_over=["unit"])
    assert result["total"] > 300
    assert result["lost"] == {}
    assert box.on("box", "cat /srv/shop/taken-over/shop.service") == unit
    assert is_ours(box)
    assert box.on("box", "pgrep -u www-data || echo none") == "none"

    box.on("box", "systemctl restart shop")
    box.until(lambda: serves(box))
    with load(url, closing=4) as result:
        box.play("deploy", **settings, forge_keepalive=74)
    assert result["lost"] == {}, "and the next release is one like any other"

    box.play("remove", **settings, forge_remove="shop")
    assert sorted(box.on("box", "ls /srv/shop").split()) == ["ledger.jsonl", "taken-over"]
    box.play("site", **settings)
    assert is_ours(box), "it comes back to what a removal has left"

    box.on(
        "box",
        "echo mine > /var/lib/blog/data; echo note > /srv/shop/notes.txt; printf '[Service]\\n' > /etc/systemd/system/shop@x.service",
    )
    listed = box.play("remove", check=False, **settings)
    assert "say -e forge_remove=shop" in listed.said()
    with load(f"http://{box.address('box')}:8241", closing=4, keepalive=4) as result:
        box.play("remove", **settings, forge_remove="shop", forge_remove_data="shop")
        assert box.play("remove", **settings, forge_remove="shop", forge_remove_data="shop").changed("box") == 0
    assert result["total"] > 100
    assert result["lost"] == {}
    assert box.on("box", "cat /var/lib/blog/data") == "mine"
    assert box.on("box", "getent passwd shop; getent group shop; getent passwd blog | cut -d: -f1,5", check=False) == (
        "blog:Managed by thecodeforge.fastapi for app blog"
    ), "its account and group too"
    assert sorted(box.on("box", "ls /srv/shop").split()) == ["notes.txt", "taken-over"]
    assert (
        box.on("box", "ls -d /etc/systemd/system/shop* /var/lib/shop 2>/dev/null || :")
        == "/etc/systemd/system/shop@x.service"
    )


def test_unix_socket_changes_hands_and_the_next_boot_is_ours(
    box: Fleet, source: Path, blog: dict[str, Any], shop: None
) -> None:
    """Beside a port that is every address by then. Gunicorn removes the path of its socket as it stops."""
    by_hand(box, GUNICORN)
    write(box, "/opt/client.py", CLIENT)
    box.on("box", "systemd-run --quiet --unit=client python3 /opt/client.py /run/shop-web/s.sock")
    with load(f"http://{box.address('box')}:8240", closing=4) as result:
        box.play("site", **named("shop", source, "8240", "/run/shop-web/s.sock"), forge_take_over=["unit"])
    assert result["lost"] == {}
    box.on("box", "systemctl stop client")
    seen = json.loads(box.on("box", "cat /opt/client.out").replace("'", '"'))
    assert seen.pop("ok") > 100
    assert sum(seen.values()) <= 3, f"the path is away for some milliseconds: {seen}"
    assert box.on("box", "ls /run/shop-web") == "s.sock"
    box.lab("restart", "box")
    box.until(lambda: is_ours(box), seconds=60)
    assert box.on("box", "pgrep -u www-data || echo none") == "none"
    assert box.on("box", "curl -s --unix-socket /run/shop-web/s.sock http://shop/version | grep -c pid") == "1"


@pytest.mark.thorough
def test_socket_unit_and_what_was_added_go_along_and_come_back(
    box: Fleet, source: Path, blog: dict[str, Any], shop: None
) -> None:
    """The first try fails when the old one has ended already, since its other processes run only then."""
    write(box, "/etc/systemd/system/shop.socket", SOCKET)
    write(box, "/etc/systemd/system/shop.service.d/more.conf", ADDED)
    unit = by_hand(box, f"{UVICORN} --fd 3", "Requires=shop.socket")
    settings = named("shop", source, "0.0.0.0:8240")
    failed = box.play("site", check=False, **settings, forge_take_over=["unit"],
                      forge_processes={"worker": {"command": "false"}})  # fmt: skip
    assert failed.rc != 0
    assert "Process worker of" in failed.said()
    box.until(lambda: serves(box) == "null", seconds=5)
    assert box.on("box", "cat /etc/systemd/system/shop.service") == unit
    assert box.on("box", "cat /etc/systemd/system/shop.service.d/more.conf") == ADDED.strip()
    with load(f"http://{box.address('box')}:8240", closing=4) as result:
        box.play("site", **settings, forge_take_over=["unit"])
    assert result["total"] > 100
    assert sum(result["lost"].values()) <= 2, "both accept from one socket, until the old one closes it"
    assert is_ours(box)
    assert sorted(box.on("box", "ls /srv/shop/taken-over").split()) == ["shop.service", "shop.service.d", "shop.socket"]


@pytest.mark.thorough
def test_where_the_kernel_cannot_share_the_port_is_closed_for_a_moment(
    box: Fleet, source: Path, blog: dict[str, Any], shop: None
) -> None:
    write(box, "/opt/old-kernel", OLD_KERNEL)
    box.on("box", "chmod 755 /opt/old-kernel")
    by_hand(box, TCP)
    settings = {**named("shop", source, "0.0.0.0:8240"), "ansible_python_interpreter": "/opt/old-kernel"}
    with load(f"http://{box.address('box')}:8240", closing=4) as result:
        run = box.play("site", **settings, forge_take_over=["unit"])
    assert "New connections are refused for" in run.said()
    assert result["silence"] < 10
    assert is_ours(box)
