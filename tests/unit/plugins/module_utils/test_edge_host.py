# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""An edge is changed as a whole or not at all, and what is somebody else's stays."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import edge_host as unit
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import haproxy, systemd
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.edge_config import (
    CONFIG,
    HOME,
    Part,
    certificate_file,
    maintenance_file,
)
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.edge_host import Edge, EdgeError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.edge_removal import EdgeRemoval
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.listening import Holder
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.records import ProjectRecord
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.removal import RemovalError

PAGES = {"maintenance.html": "<p>Soon.", "unavailable.http": "HTTP/1.1 503 x\r\n\r\n"}
PEM = "certificate\nkey\n"


class Host:
    """A host with HAProxy, in a directory of its own."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.calls: list[str] = []
        self.active, self.pid, self.refuses, self.takes = True, 1, "", True
        self.shipped, self.holders = "", {}
        monkeypatch.setattr(unit, "run", self.run)
        monkeypatch.setattr(unit, "process", lambda: str(self.pid))
        monkeypatch.setattr(unit, "RELOAD", 0.2)
        monkeypatch.setattr(unit, "why_taken", lambda address, _ours: self.holders.get(address, ""))
        monkeypatch.setattr(unit.platform, "node", lambda: "e1")
        monkeypatch.setattr(unit, "write_atomically", lambda path, text, mode: self.write(path, text, mode))
        monkeypatch.setattr(systemd, "systemctl", self.systemctl)
        monkeypatch.setattr(
            systemd, "properties", lambda *_names: {"ActiveState": "active" if self.active else "inactive"}
        )
        monkeypatch.setattr(
            systemd, "journal", lambda *_names: ["[ALERT]    (9) : Starting frontend x: cannot bind socket"]
        )
        monkeypatch.setattr(haproxy, "change_certificate", lambda file, _pem: self.calls.append(f"certificate {file}"))

    def write(self, path: str, text: bytes, mode: int) -> None:
        Path(path).write_bytes(text)
        Path(path).chmod(mode)

    def run(self, argv: list[str], **_options: Any) -> SimpleNamespace:
        self.calls.append(" ".join(argv[:2]))
        if argv[0] == "dpkg-query":
            return SimpleNamespace(stdout=self.shipped, returncode=0)
        if argv[0] == "haproxy":
            self.checked = Path(argv[-1]).read_text()
        return SimpleNamespace(stdout=PEM, stderr=self.refuses, returncode=bool(self.refuses))

    def systemctl(self, *arguments: str, **_options: Any) -> str:
        self.calls.append(" ".join(arguments))
        if arguments[0] == "reload" and self.takes:
            self.pid += 1
        return ""

    def read(self, path: str) -> str:
        return Path(f"{self.root}{path}").read_text()

    def put(self, app: str, certificate: str = PEM, **settings: Any) -> str:
        wanted = {
            "names": [f"{app}.example"],
            "http": ["0.0.0.0:80"],
            "https": ["443"],
            "tls": True,
            "backend": f"backend {app}\n",
        }
        edge, part = Edge(app, str(self.root)), Part.from_dict({"app": app, **wanted, **settings})
        found = edge.problems(part, settings.get("take_over", []))
        assert found == []
        return edge.apply(edge.files(part, PAGES, certificate), part)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_an_app_is_put_there_checked_and_reloaded_and_again_changes_nothing(host: Host) -> None:
    assert host.put("shop") == "reloaded"
    assert host.calls.index("haproxy -c") < host.calls.index("reload haproxy.service")
    assert f"{host.root}{HOME}/hosts.map" not in host.checked
    assert f"{HOME}.trial/hosts.map" in host.checked
    assert host.read(certificate_file("shop")) == PEM
    assert Path(f"{host.root}{certificate_file('shop')}").stat().st_mode & 0o777 == 0o600
    assert not Path(f"{host.root}{HOME}.trial").exists()
    host.calls.clear()
    assert host.put("shop") == "nothing"
    assert host.calls == []


def test_a_certificate_alone_needs_no_reload(host: Host) -> None:
    host.put("shop")
    host.calls.clear()
    assert host.put("shop", "another\n") == "certificate"
    assert "reload haproxy.service" not in host.calls
    assert f"certificate {certificate_file('shop')}" in host.calls
    assert host.read(certificate_file("shop")) == "another\n"


def test_the_parts_of_other_apps_stay_as_they_are(host: Host) -> None:
    host.put("shop")
    mine = host.read(f"{HOME}/apps/shop.json")
    assert host.put("blog") == "reloaded"
    assert host.read(f"{HOME}/apps/shop.json") == mine
    assert host.read(f"{HOME}/hosts.map") == "blog.example blog\nshop.example shop\n"
    Path(f"{host.root}{maintenance_file()}").write_text("blog\n")
    EdgeRemoval_of(host, "blog").take_away(EdgeRemoval_of(host, "blog").find())
    assert host.read(f"{HOME}/hosts.map") == "shop.example shop\n"
    assert sorted(path.name for path in Path(f"{host.root}{HOME}").rglob("blog*")) == []
    assert host.read(f"{HOME}/apps/shop.json") == mine


def EdgeRemoval_of(host: Host, app: str) -> EdgeRemoval:
    found = EdgeRemoval(app, None)
    found.edge = Edge(app, str(host.root))
    return found


def test_the_last_app_leaves_haproxy_without_an_address(host: Host) -> None:
    host.put("shop")
    removal = EdgeRemoval_of(host, "shop")
    removal.take_away(removal.find())
    assert "bind" not in host.read(CONFIG)
    assert host.read(CONFIG).startswith(unit.MARK)
    assert removal.find().things == []
    assert host.put("blog") == "reloaded", "and what is left is ours"


def test_what_haproxy_refuses_or_does_not_take_leaves_all_as_it_was(host: Host) -> None:
    host.put("shop")
    before = {path: path.read_text() for path in host.root.rglob("*") if path.is_file()}
    host.refuses = "[NOTICE] x\n[ALERT]    (7) : config : parsing [/x/haproxy.cfg:9] : unknown keyword 'nonsense'.\n"
    with pytest.raises(EdgeError, match="refuses the configuration: unknown keyword 'nonsense'. Nothing was changed."):
        host.put("shop", backend="nonsense")
    assert {path: path.read_text() for path in host.root.rglob("*") if path.is_file()} == before
    host.refuses, host.takes = "", False
    with pytest.raises(EdgeError, match="Starting frontend x: cannot bind socket. What it served it serves"):
        host.put("blog")
    assert {path: path.read_text() for path in host.root.rglob("*") if path.is_file()} == before


def test_haproxy_that_does_not_run_is_started(host: Host) -> None:
    host.active = False
    assert host.put("shop") == "started"
    assert host.calls[-2:] == ["enable --quiet haproxy.service", "restart haproxy.service"]


def test_a_certificate_stands_in_until_there_is_one(host: Host) -> None:
    assert host.put("shop", "") == "reloaded"
    assert "openssl req" in host.calls
    host.calls.clear()
    assert host.put("shop", "") == "nothing"


def found_by(host: Host, take_over: list[str], **settings: Any) -> str:
    part = Part.from_dict({"app": "shop", "http": ["0.0.0.0:80"], **settings})
    return " ".join(Edge("shop", str(host.root)).problems(part, take_over))


def test_a_configuration_of_somebody_else_is_refused_or_kept_aside(host: Host) -> None:
    file = Path(f"{host.root}{CONFIG}")
    file.parent.mkdir(parents=True)
    file.write_text("frontend theirs\n")
    assert found_by(host, []).startswith("/etc/haproxy/haproxy.cfg on e1 is somebody else's")
    assert found_by(host, ["edge"]) == ""
    edge = Edge("shop", str(host.root))
    edge.apply(edge.files(Part.from_dict({"app": "shop", "http": ["0.0.0.0:80"]}), PAGES, ""))
    assert host.read(f"{CONFIG}.before") == "frontend theirs\n"


def test_what_the_package_has_brought_is_nobodys(host: Host) -> None:
    file = Path(f"{host.root}{CONFIG}")
    file.parent.mkdir(parents=True)
    file.write_text("global\n")
    host.shipped = f" {CONFIG} {hashlib.md5(b'global' + bytes([10])).hexdigest()}\n"
    assert found_by(host, []) == ""


def test_another_file_that_haproxy_is_told_to_read_is_said(host: Host) -> None:
    file = Path(f"{host.root}/etc/default/haproxy")
    file.parent.mkdir(parents=True)
    file.write_text('#CONFIG="/x"\nCONFIG="/srv/theirs.cfg"\n')
    assert "told by /etc/default/haproxy to read /srv/theirs.cfg" in found_by(host, ["edge"])
    file.write_text('#CONFIG="/x"\n')
    assert found_by(host, []) == ""


def test_addresses_of_others_are_said_and_those_of_haproxy_are_not(host: Host) -> None:
    host.holders = {"0.0.0.0:80": Holder("nginx", "nginx.service")}
    assert "forge_edge_http: 0.0.0.0:80 on e1 is taken by nginx (unit nginx.service)" in found_by(host, [])
    host.holders = {"0.0.0.0:80": Holder("haproxy", "haproxy.service")}
    assert found_by(host, []) == ""
    host.holders = {"192.0.2.9:80": "is no address of this host"}
    assert "192.0.2.9:80 on e1 is no address of this host: name another one." in found_by(
        host, [], http=["192.0.2.9:80"]
    )


def test_the_app_of_another_project_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put("shop", project={"id": "one"})
    assert "is another project's, one" in found_by(host, [], project={"id": "two"})
    assert found_by(host, ["project"], project={"id": "two"}) == ""
    monkeypatch.setattr(
        unit.Edge, "__init__", lambda self, app, prefix="": vars(self).update(app=app, prefix=str(host.root))
    )
    with pytest.raises(RemovalError, match="is another project's, one"):
        EdgeRemoval("shop", ProjectRecord(id="two"))
    EdgeRemoval("shop", ProjectRecord(id="one"))


BACKENDS = """\
backend shop from shop.all
    server web1 192.0.2.1:8000
    server web10 192.0.2.10:8000
backend shop.writes from shop.all
    server web1 192.0.2.1:8000 track shop/web1
    server web10 192.0.2.10:8000 track shop/web10
"""


def test_a_host_that_lacks_a_release_gets_nothing_until_it_has_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(haproxy, "ask", lambda command: asked.append(command) or "")
    host.put("wiki")
    host.put("shop", backend=BACKENDS)
    plain, edge = host.read(CONFIG), Edge("shop", str(host.root))
    assert edge.hold(["web1", "db"], []) == ([], ["web1"])
    assert (
        host.read(CONFIG).replace("    server web1 192.0.2.1:8000 disabled\n", "    server web1 192.0.2.1:8000\n")
        == plain
    )
    assert host.read(CONFIG) != plain
    assert asked == ["set server shop/web1 state maint"]
    assert edge.hold(["web1"], []) == (["web1"], ["web1"])
    assert len(asked) == 1
    assert edge.hold([], ["web1", "web10"]) == (["web1"], [])
    assert asked[1:] == ["set server shop/web1 state ready"]
    assert host.read(CONFIG) == plain


def test_a_configuration_that_haproxy_refuses_holds_nobody(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "ask", lambda _command: "")
    host.put("shop", backend=BACKENDS)
    plain = host.read(CONFIG)
    host.refuses = "[ALERT] (9) : parsing [haproxy.cfg:1] : unknown keyword"
    with pytest.raises(EdgeError, match="HAProxy refuses the configuration"):
        Edge("shop", str(host.root)).hold(["web1"], [])
    assert host.read(CONFIG) == plain


def test_what_haproxy_says_of_a_host_that_is_held_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "ask", lambda _command: "No such server.")
    host.put("shop", backend=BACKENDS)
    with pytest.raises(haproxy.HAProxyError, match="No such server"):
        Edge("shop", str(host.root)).hold(["web1"], [])


def test_an_app_that_is_not_on_the_edge_has_no_host_to_hold(host: Host) -> None:
    assert Edge("shop", str(host.root)).hold(["web1"], []) == ([], [])
