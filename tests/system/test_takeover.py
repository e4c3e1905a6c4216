# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with a life of its own: a hand-made service is taken over, and an app is removed beside another that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
BY_HAND = """[Service]
User=www-data
WorkingDirectory=/opt
ExecStart=/opt/venv/bin/python -m uvicorn shop.main:app --host 0.0.0.0 --port 8240 --no-access-log
Restart=always

[Install]
WantedBy=multi-user.target
"""


def named(app: str, port: str, source: Path) -> dict[str, Any]:
    return {**APP, "forge_source": str(source), "forge_app": app, "forge_user": app, "forge_group": app,
            "forge_listen": [port], "forge_state_directories": [app]}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("adopted") / "shop", "uvicorn")


@pytest.fixture(scope="module")
def blog(box: Fleet, source: Path) -> dict[str, Any]:
    """An app of ours that has nothing to do with it, and the other one's program as a person had installed it."""
    settings = named("blog", "0.0.0.0:8241", source)
    box.play("site", **settings)
    box.on("box", "cp -r /srv/blog/layers/* /opt/venv; cp -r /srv/blog/releases/*/shop /opt/shop")
    return settings


def by_hand(box: Fleet) -> None:
    box.on("box", f"cat > /etc/systemd/system/shop.service <<'E'\n{BY_HAND}E\n"
                  "systemctl daemon-reload; systemctl enable --quiet --now shop")  # fmt: skip
    box.until(lambda: "pid" in box.on("box", "curl -s http://127.0.0.1:8240/version"))


@pytest.mark.parametrize("listen", ["0.0.0.0:8240", "8240"])
def test_hand_made_service_is_taken_over_without_a_lost_connection(
    box: Fleet, source: Path, blog: dict[str, Any], listen: str
) -> None:
    by_hand(box)
    settings = named("shop", listen, source)
    url = f"http://{box.address('box')}:8240"
    unit = box.on("box", "cat /etc/systemd/system/shop.service")

    refused = box.play("site", check=False, **settings)
    assert refused.rc != 0
    assert "forge_take_over" in refused.said()
    bad = {"forge_environment_plain": {"HEALTH": 503}, "forge_health_deadline": 4}
    with load(url, closing=8) as result:
        sick = box.play("site", check=False, **settings, **bad, forge_take_over=["unit"])
        assert sick.rc != 0
        assert box.on("box", "cat /etc/systemd/system/shop.service") == unit
        assert box.on("box", "systemctl is-active shop; systemctl is-enabled shop").split() == ["active", "enabled"]
        run = box.play("site", **settings, forge_take_over=["unit"])
    assert "shop.service was made by somebody else and serves at 0.0.0.0:8240" in run.said()
    assert result["total"] > 300
    assert result["lost"] == {}
    assert box.on("box", "cat /srv/shop/taken-over/shop.service") == unit
    assert (
        box.on("box", 'curl -s http://127.0.0.1:8240/version | grep -c "$(basename $(readlink /srv/shop/current))"')
        == "1"
    )
    assert box.on("box", "pgrep -u www-data || echo none") == "none"

    box.on("box", "systemctl restart shop")
    box.until(lambda: "pid" in box.on("box", "curl -s http://127.0.0.1:8240/version"))
    with load(url, closing=4) as result:
        assert box.play("deploy", **settings).changed("box") == 0
        box.play("deploy", **settings, forge_keepalive=74)
    assert result["lost"] == {}, "and the next release is one like any other"

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
    box.on(
        "box",
        "rm -r /srv/shop /etc/systemd/system/shop@x.service; systemctl daemon-reload",
    )
