# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two edges in front of two hosts: TLS, nothing lost by releases, drains, reloads and certificates, and nobody around them."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import SET, Fleet
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tiny import MAIN, PLAIN, load, write_project

pytestmark = pytest.mark.fleet
EDGES, HOSTS = ("e1", "e2"), ("w1", "w2")
NODES = ("e1=debian12:forge_edge", "e2=debian13:forge_edge", "w1=debian12:forge_app", "w2=debian13:forge_app")
NAME = "tiny.example.org"
SETTINGS: dict[str, Any] = {
    **PLAIN,
    "forge_app": "tiny",
    "forge_project": "edges",
    "forge_listen": ["8000"],
    "forge_workers": 1,
    "forge_watch_seconds": 1,
    "forge_drain_seconds": 20,
    "forge_edge_names": [NAME],
}
# What a request looks like to the app; an answer that takes its time.
ROUTES = """

async def app(scope, receive, send, app=app):
    if scope["type"] == "http" and scope["path"] == "/slow":
        await asyncio.sleep(6)
        scope = {**scope, "path": "/version"}
    if scope["type"] == "http" and scope["path"] == "/who":
        seen = {"client": scope["client"][0], "scheme": scope["scheme"]}
        seen.update({name.decode(): value.decode() for name, value in scope["headers"]})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
        return
    await app(scope, receive, send)
"""
QUICK = {"keepalive": 1, "closing": 1, "post": 1, "pausing": 4}


def certificate(directory: Path, name: str = NAME, days: float = 30) -> dict[str, str]:
    """A certificate of its own, and its key; with ``days`` below zero one that has expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    built = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    built = built.not_valid_before(now - dt.timedelta(days=60)).not_valid_after(now + dt.timedelta(days=days))
    built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    pem, secret = directory / f"{name}-{time.time()}.pem", directory / f"{name}-{time.time()}.key"
    pem.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {"forge_edge_certificate": str(pem), "forge_edge_key": str(secret)}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def virgin(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Fleet]:
    source = write_project(tmp_path_factory.mktemp("edges") / "shop", "gunicorn", "uvicorn-worker", main=MAIN + ROUTES)
    given = {"forge_source": str(source), **certificate(certificates)}
    fleet = Fleet({**SETTINGS, **given}, lab_set=f"{SET}edge", without_database=True)
    with fleet.with_nodes(*NODES):
        yield fleet


@pytest.fixture(scope="module")
def edged(virgin: Fleet) -> Fleet:
    virgin.play("site")
    return virgin


def ask(fleet: Fleet, path: str, edge: str = "e1", name: str = NAME, **options: Any) -> httpx.Response:
    with httpx.Client(verify=False, http2=False, timeout=15) as client:
        extensions = {"sni_hostname": name}
        url = f"https://{fleet.address(edge)}{path}"
        return client.request(
            options.pop("method", "GET"), url, extensions=extensions, headers={"host": name, **options}
        )


def change(fleet: Fleet) -> None:
    Path(fleet.variables["forge_source"], "shop", "version.py").write_text(f"VERSION = {time.time()}\n")


def live(fleet: Fleet, host: str) -> str:
    return fleet.on(host, "basename $(readlink /srv/tiny/current)")


@contextmanager
def loaded(
    fleet: Fleet, edge: str = "e1", may_lose: int = 0, least: int = 50, **clients: int
) -> Iterator[dict[str, Any]]:
    """Requests through an edge while the block runs; none may be lost."""
    with load(f"https://{fleet.address(edge)}", NAME, **(clients or QUICK)) as result:
        time.sleep(1)
        yield result
        time.sleep(1)
    assert result["total_lost"] <= may_lose, result["lost"]
    assert result["total"] > least


def live_when_off(fleet: Fleet, host: str) -> str:
    return os.path.basename(
        os.readlink(Path(fleet._podman(["mount", f"forge-lab-{fleet.lab_set}-{host}"]), "srv/tiny/current"))
    )


@contextmanager
def starts_again(fleet: Fleet, host: str) -> Iterator[None]:
    """Power for a node that reboots: a container ends then."""
    container = f"forge-lab-{fleet.lab_set}-{host}"

    def start() -> None:
        fleet._podman(["wait", container], check=False)
        fleet._podman(["start", container])

    thread = threading.Thread(target=start)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive(), f"{host} was not rebooted"


def haproxy(fleet: Fleet, edge: str = "e1") -> str:
    """Number of the process that serves, which a reload changes."""
    return fleet.on(edge, "echo 'show info' | python3 -c 'import socket,sys; s=socket.socket(socket.AF_UNIX); "
                    "s.connect(\"/run/haproxy/admin.sock\"); s.sendall(sys.stdin.buffer.read()); "
                    "print(s.makefile().read())' | sed -n 's/^Pid: //p'")  # fmt: skip


def edge_files(fleet: Fleet) -> list[str]:
    return [fleet.on(edge, "find /etc/haproxy /etc/systemd/system -type f -exec md5sum {} + | sort") for edge in EDGES]


# -- bad input, while the nodes are virgin -------------------------------------------------------------


@pytest.mark.parametrize("mistake", ["key", "expired", "name"])
def test_certificate_that_cannot_be_used_is_said_first(virgin: Fleet, certificates: Path, mistake: str) -> None:
    given, sentence = {
        "key": ({"forge_edge_key": certificate(certificates)["forge_edge_key"]}, "forge_edge_key is not the key of"),
        "expired": (certificate(certificates, days=-2), "forge_edge_certificate has expired on"),
        "name": (certificate(certificates, "other.example.org"), f"forge_edge_certificate is not for {NAME}"),
    }[mistake]
    run = virgin.play("check", check=False, **given)
    assert run.rc
    assert sentence in run.said()
    assert "Nothing was changed." in run.said()


def test_what_is_somebody_elses_on_an_edge_is_refused_and_stays(virgin: Fleet) -> None:
    virgin.on("e1", "mkdir -p /etc/haproxy; echo '# by hand' > /etc/haproxy/haproxy.cfg")
    virgin.on("e2", "systemd-run --unit byhand python3 -m http.server 443")
    virgin.until(lambda: virgin.on("e2", "ss -Hltn sport = :443"), 10, "the other program")
    before = edge_files(virgin)
    run = virgin.play("site", check=False)
    assert run.rc
    assert "/etc/haproxy/haproxy.cfg on e1 is somebody else's: name another edge" in run.said()
    assert "forge_edge_https: 0.0.0.0:443 on e2 is taken by python3 (unit byhand.service)" in run.said()
    assert edge_files(virgin) == before
    assert not virgin.on("w1", "ls /srv")
    virgin.on("e1", "rm -r /etc/haproxy")
    virgin.on("e2", "systemctl stop byhand")


BY_HAND = """
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend byhand
  bind :8081
  http-request return status 200 content-type text/plain string byhand
"""


def test_haproxy_of_an_admin_is_taken_over_on_purpose(virgin: Fleet) -> None:
    virgin.on(
        "e1", "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y haproxy >/dev/null 2>&1"
    )
    virgin.on("e1", f"cat > /etc/haproxy/haproxy.cfg <<'E'\n{BY_HAND}\nE\nsystemctl restart haproxy")
    asks = "curl -sm 5 http://127.0.0.1:8081/"
    assert virgin.until(lambda: virgin.on("e1", asks, check=False), 20) == "byhand"
    refused = virgin.play("site", check=False)
    assert (
        "/etc/haproxy/haproxy.cfg on e1 is somebody else's: name another edge, or let the app take HAProxy over"
        in refused.said()
    )
    assert virgin.on("e1", asks) == "byhand"
    virgin.play("site", forge_take_over=["edge"])
    assert virgin.on("e1", "cat /etc/haproxy/haproxy.cfg.before").strip() == BY_HAND.strip()
    assert ask(virgin, "/who").status_code == 200
    assert virgin.on("e1", asks, check=False) == "", "what it routed has ended, as was said"
    run = virgin.play("site")
    assert [run.changed(node) for node in (*EDGES, "w1", "w2")] == [0] * 4


# -- what it does --------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", EDGES)
def test_edge_has_tls_and_tells_the_app_who_asks(edged: Fleet, edge: str) -> None:
    seen = ask(edged, "/who", edge, **{"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "http"})
    assert seen.status_code == 200
    who = seen.json()
    assert who["scheme"] == "https"
    assert who["client"] == who["x-forwarded-for"] != "203.0.113.9"
    assert who["host"] == NAME
    assert "x-forge-generation" not in seen.headers
    plain = httpx.get(f"http://{edged.address(edge)}/who?a=b", headers={"host": NAME})
    assert (plain.status_code, plain.headers["location"]) == (308, f"https://{NAME}/who?a=b")
    assert ask(edged, "/who", edge, "nobody.example.org").status_code == 421
    h2 = subprocess.run(
        ["curl", "-sk", "--connect-to", f"::{edged.address(edge)}", "-o", "/dev/null", "-w", "%{http_version}", f"https://{NAME}/who"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert h2.stdout == "2"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode, old.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_1
    with socket.create_connection((edged.address(edge), 443), 5) as sock, pytest.raises((ssl.SSLError, OSError)):
        old.wrap_socket(sock)
    said = edged.on(edge, "journalctl -u haproxy --no-pager -n 60")
    assert re.search(rf"tiny/w[12] .* 200 .*host={NAME} generation=[0-9a-f-]{{21}} \"GET .*/who", said)
    assert "haproxy_server_status" in edged.on(edge, "curl -s http://127.0.0.1:8404/metrics")


@pytest.mark.parametrize("edge", EDGES)
def test_tls_is_what_mozilla_calls_intermediate(edged: Fleet, edge: str) -> None:
    """By sslyze's verdict."""
    judged = subprocess.run(
        ["uvx", "sslyze==6.3.1", "--mozilla_config=intermediate", f"--sni={NAME}", f"{edged.address(edge)}:443"],
        capture_output=True, text=True,
    )  # fmt: skip
    found = re.findall(r"^ +\* (\w+): (.*)$", judged.stdout.partition("COMPLIANCE AGAINST")[2], re.MULTILINE)
    assert [name for name, _text in found] == ["certificate_path_validation"], (
        judged.stdout[-3000:] + judged.stderr[-1000:]
    )
    assert 'Mozilla\'s "intermediate" configuration' in judged.stdout


def test_nobody_but_the_edges_reaches_the_app(edged: Fleet) -> None:
    asked = f"curl -s -m 3 -o /dev/null -w '%{{http_code}}' http://{edged.address('w1')}:8000/version"
    assert [edged.on(node, asked, check=False) for node in ("e1", "e2", "w1", "w2")] == ["200", "200", "200", "000"]
    with pytest.raises(httpx.ConnectTimeout):
        httpx.get(edged.url("w1", "/version"), timeout=2)


def test_same_inputs_change_nothing(edged: Fleet) -> None:
    before = edge_files(edged)
    run = edged.play("site")
    assert [run.changed(node) for node in (*EDGES, *HOSTS)] == [0] * 4
    assert edge_files(edged) == before


def test_release_does_not_touch_the_edge_and_loses_nothing(edged: Fleet) -> None:
    """POST on kept connections with think times around the drain; and clients that do not wait."""
    before, processes = {host: live(edged, host) for host in HOSTS}, [haproxy(edged, edge) for edge in EDGES]
    with loaded(edged, **{**QUICK, "thinking": 80}):
        began = time.monotonic()
        for _release in range(2):
            change(edged)
            edged.play("deploy")
        time.sleep(max(0, 65 - (time.monotonic() - began)))
    assert all(live(edged, host) != before[host] for host in HOSTS)
    assert [haproxy(edged, edge) for edge in EDGES] == processes


def test_drained_host_gets_nothing_more_and_keeps_its_flag(edged: Fleet) -> None:
    with loaded(edged):
        slow = subprocess.Popen(
            ["curl", "-sk", "--connect-to", f"::{edged.address('e2')}", "-w", "%{http_code}", f"https://{NAME}/slow"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        edged.play("drain", forge_drain_hosts="w1")
        assert (
            edged.on("e1", f"curl -s -o /dev/null -w '%{{http_code}}' http://{edged.address('w1')}:8000/-/ready")
            == "503"
        )
        count = "journalctl -u haproxy --no-pager -o cat | grep -c 'tiny[a-z.]*/w1 '"
        was = [edged.on(edge, count) for edge in EDGES]
        time.sleep(2)
        assert [edged.on(edge, count) for edge in EDGES] == was
        refused = edged.play("drain", check=False, forge_drain_hosts="w2")
        assert refused.rc
        assert "No host would be left to serve, and forge_min_serving is 1; w1 is drained" in refused.said()
        change(edged)
        edged.play("deploy")
        assert edged.on("w1", "test -e /srv/tiny/drain && echo kept") == "kept"
        assert [edged.on(edge, count) for edge in EDGES] == was
        edged.play("undrain", forge_drain_hosts="w1")
        edged.until(lambda: edged.on("e1", count) != was[0], 10, "a request to w1")
    assert slow.communicate(timeout=20)[0].endswith("200")


def test_reload_and_new_certificate_lose_nothing(edged: Fleet, certificates: Path) -> None:
    def served() -> str:
        return ssl.get_server_certificate((edged.address("e1"), 443))

    first, processes = served(), [haproxy(edged, edge) for edge in EDGES]
    with loaded(edged, **{**QUICK, "thinking": 20}):
        edged.variables.update(certificate(certificates))
        edged.play("site")
        assert served() != first
        assert [haproxy(edged, edge) for edge in EDGES] == processes, "a certificate needs no reload"
        for _reload in range(3):
            edged.on("e1", "systemctl reload haproxy")
            time.sleep(2)
        edged.variables["forge_edge_hsts_seconds"] = 3600
        edged.play("site")
        assert haproxy(edged) != processes[0]
        assert ask(edged, "/version").headers["strict-transport-security"] == "max-age=3600"
        time.sleep(22)


def test_certificate_that_expires_while_it_serves(edged: Fleet, certificates: Path) -> None:
    seconds = 120
    ends, short = time.time() + seconds, certificate(certificates, days=seconds / 86400)
    edged.play("site", **short)
    assert time.time() < ends, "too slow a machine for this test"
    process = haproxy(edged)
    time.sleep(ends - time.time() + 2)
    run = edged.play("site", check=False, **short)
    assert run.rc
    assert "forge_edge_certificate has expired on" in run.said()
    assert ask(edged, "/who").status_code == 200, "for clients that do not mind"
    with loaded(edged):
        edged.play("site")
    assert haproxy(edged) == process
    pem = Path(edged.variables["forge_edge_certificate"]).read_text().strip()
    assert ssl.get_server_certificate((edged.address("e1"), 443)).strip() == pem


def test_configuration_that_haproxy_refuses_changes_nothing(edged: Fleet) -> None:
    before = edge_files(edged)
    run = edged.play("site", check=False, forge_health_path="/healthz{ bad")
    assert run.rc
    assert edge_files(edged) == before
    assert ask(edged, "/version").status_code == 200


def test_maintenance_shows_a_page_and_health_is_answered(edged: Fleet) -> None:
    process = haproxy(edged)
    edged.play("maintenance", state="on")
    shown = ask(edged, "/version", "e2")
    assert (shown.status_code, shown.headers["retry-after"]) == (503, "300")
    assert "We are back soon" in shown.text
    assert ask(edged, "/healthz").status_code == 200
    edged.on("e1", "systemctl reload haproxy")
    time.sleep(1)
    assert ask(edged, "/version").status_code == 503, "it outlasts a reload"
    edged.play("maintenance", state="off")
    assert [ask(edged, "/version", edge).status_code for edge in EDGES] == [200, 200]
    assert process != haproxy(edged)


def test_host_that_is_killed_costs_what_it_had_in_hand(edged: Fleet) -> None:
    with loaded(edged, may_lose=3) as result:
        edged.lab("kill", "w2")
        time.sleep(6)
    assert result["silence"] < 5
    edged.lab("start", "w2")
    edged.until(lambda: edged.on("e1", "curl -s 'http://127.0.0.1:8404/;csv' | grep -c '^tiny,w2,.*,UP,'"), 30, "w2")


def test_edge_that_is_killed_comes_back_and_the_other_one_notices_nothing(edged: Fleet) -> None:
    process = haproxy(edged)
    with loaded(edged, "e2"), loaded(edged, "e1", may_lose=500) as result:
        edged.on("e1", "systemctl kill --signal KILL haproxy")
        edged.until(lambda: haproxy(edged) not in ("", process), 20, "another HAProxy")
        time.sleep(2)
    assert result["silence"] < 5
    print(f"through the edge that was killed: {result['lost']} of {result['total']}")
    assert ask(edged, "/version").status_code == 200


def test_host_that_missed_a_release_gets_nothing_until_it_has_it(edged: Fleet) -> None:
    edged.lab("stop", "w2")
    change(edged)
    run = edged.play("deploy", forge_unreachable="go_on")
    assert "the run goes on, and what is there stays until the next run" in run.said()
    old, new = live_when_off(edged, "w2"), live(edged, "w1")
    process = haproxy(edged)
    edged.lab("start", "w2")
    edged.until(
        lambda: (
            edged.on("e1", f"curl -s http://{edged.address('w2')}:8000/-/ready -o /dev/null -w '%{{http_code}}'")
            == "200"
        )
    )
    assert live(edged, "w2") == old != new
    for _reload in range(2):
        time.sleep(3)  # of several checks that find it well
        assert [ask(edged, "/version", edge).json()["generation"] for edge in EDGES * 5] == [new] * 10
        edged.on("e2", "systemctl reload haproxy")
    assert haproxy(edged) == process
    with loaded(edged):
        edged.play("deploy")
        assert live(edged, "w2").partition("-")[0] == new.partition("-")[0]
        for edge in EDGES:
            edged.until(
                lambda edge=edge: edged.on(edge, "curl -s 'http://127.0.0.1:8404/;csv' | grep -c '^tiny,w2,.*,UP,'"),
                10,
                "w2",
            )
    run = edged.play("site")
    assert [run.changed(node) for node in (*EDGES, *HOSTS)] == [0] * 4


def test_edge_that_was_away_when_a_host_missed_a_release_holds_it_too(edged: Fleet) -> None:
    for node in ("w2", "e2"):
        edged.lab("stop", node)
    change(edged)
    edged.play("deploy", forge_unreachable="go_on")
    edged.lab("start", "e2")
    edged.until(lambda: edged.on("e2", "systemctl is-active haproxy", check=False) == "active", 60)
    edged.play("deploy", forge_unreachable="go_on")
    held = 'python3 -c \'import json; print(json.load(open("/etc/haproxy/forge/apps/tiny.json"))["held"])\''
    assert [edged.on(edge, held) for edge in EDGES] == ["['w2']"] * 2
    edged.lab("start", "w2")
    edged.until(lambda: edged.on("w2", "systemctl is-active tiny", check=False) == "active", 60)
    edged.play("deploy")
    assert [edged.on(edge, held) for edge in EDGES] == ["[]"] * 2


def test_hosts_are_patched_one_after_the_other(edged: Fleet) -> None:
    refused = edged.play("patch", check=False, forge_min_serving=2)
    assert refused.rc
    assert (
        "w2 would be left to serve, and forge_min_serving is 2: drain fewer hosts. Nothing was changed."
        in refused.said()
    )
    asked = "systemctl show --property UserspaceTimestampMonotonic --value"
    starts = {host: edged.on(host, asked) for host in HOSTS}
    edged.on("w1", "touch /run/reboot-required")
    with loaded(edged, least=200), starts_again(edged, "w1"):
        run = edged.play("patch")
    assert edged.on("w1", asked) != starts["w1"]
    assert edged.on("w2", asked) == starts["w2"]
    assert re.search(r"w1 .* the host +yes", run.output)
    assert re.search(r"w2 .* (the app|nothing) +yes", run.output)
    for host in HOSTS:
        assert edged.on(host, "ls /srv/tiny/drain /srv/tiny/lock.json 2>/dev/null; true") == ""
        for edge in EDGES:
            assert edged.on(edge, f"curl -s 'http://127.0.0.1:8404/;csv' | grep -c '^tiny,{host},.*,UP,'") == "1"


def test_refresh_behind_the_edge_loses_nothing(edged: Fleet) -> None:
    before = {host: live(edged, host) for host in HOSTS}
    with loaded(edged, **{**QUICK, "thinking": 20}):
        edged.play("refresh")
        time.sleep(22)
    for host in HOSTS:
        was = before[host]
        assert live(edged, host) == (was.removesuffix("-2") if was.endswith("-2") else f"{was}-2")


def test_apps_share_an_edge_by_their_names(edged: Fleet) -> None:
    mine = edged.on("e1", "md5sum /etc/haproxy/forge/apps/tiny.json")
    others = Fleet({**edged.variables, "forge_app": "other", "forge_listen": ["8001"], "forge_edge_tls": "none"},
                   edged.lab_set, True)  # fmt: skip
    taken = others.play("check", check=False)
    assert taken.rc
    assert f"forge_edge_names: {NAME} is served by the app tiny on e1" in taken.said()
    others.variables["forge_edge_names"] = ["other.example.org"]
    with loaded(edged):
        others.play("site")
        plain = httpx.get(f"http://{edged.address('e1')}/version", headers={"host": "other.example.org"}).json()
        assert plain["generation"] == others.on("w1", "basename $(readlink /srv/other/current)") or plain["generation"]
        assert edged.on("e1", "md5sum /etc/haproxy/forge/apps/tiny.json") == mine
        others.play("remove", forge_remove="other")
    gone = httpx.get(f"http://{edged.address('e1')}/version", headers={"host": "other.example.org"})
    assert gone.status_code == 421
    assert not edged.on("e1", "ls /etc/haproxy/forge/*/ | grep other", check=False)


def test_certificate_of_an_acme_authority_is_renewed_on_the_edge(edged: Fleet, certificates: Path) -> None:
    """Pebble of Debian is the authority. It asks the first edge alone, also for what the second one has asked for."""
    given = certificate(certificates, "pebble.example")
    pem, key = (Path(given[f"forge_edge_{what}"]).read_text() for what in ("certificate", "key"))
    settings = {"listenAddress": "0.0.0.0:14000", "managementListenAddress": "0.0.0.0:15000", "httpPort": 80, "tlsPort": 443,
                "certificate": "/root/pebble.pem", "privateKey": "/root/pebble.key"}  # fmt: skip
    files = {"/root/pebble.pem": pem, "/root/pebble.key": key, "/root/pebble.json": json.dumps({"pebble": settings})}
    for path, text in files.items():
        edged.on("w1", f"cat > {path} <<'EOF'\n{text}\nEOF")
    edged.on(
        "w1",
        "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y pebble >/dev/null 2>&1; "
        f"echo '{edged.address('e1')} {NAME}' >> /etc/hosts; "
        "systemctl is-active -q pebble || systemd-run --unit pebble -E PEBBLE_VA_NOSLEEP=1 "
        "-E PEBBLE_WFE_NONCEREJECT=0 pebble -config /root/pebble.json",
    )
    for edge in EDGES:
        edged.on(
            edge,
            f"echo '{edged.address('w1')} pebble.example' >> /etc/hosts; cat > /usr/local/share/ca-certificates/pebble.crt <<'EOF'\n"
            f"{pem}\nEOF\nupdate-ca-certificates >/dev/null 2>&1",
        )

    def issuers() -> list[str]:
        texts = [ssl.get_server_certificate((edged.address(edge), 443)) for edge in EDGES]
        return [x509.load_pem_x509_certificate(text.encode()).issuer.rfc4514_string() for text in texts]

    wanted = {"forge_edge_tls": "acme", "forge_edge_acme_server": "https://pebble.example:14000/dir"}
    refused = edged.play("site", check=False, **{**wanted, "forge_edge_names": [NAME, "nowhere.example"]})
    assert refused.rc
    assert re.search(
        rf"e\d got no certificate for {NAME}, nowhere.example from https://pebble.example:14000/dir: nowhere.example:",
        refused.said(),
    )
    edged.variables.update(wanted)
    with loaded(edged):
        edged.play("site")
        assert all("Pebble" in issuer for issuer in issuers())
        process, first = haproxy(edged), ssl.get_server_certificate((edged.address("e1"), 443))
        assert edged.on("e1", "systemctl is-enabled certbot.timer") == "enabled"
        edged.on("e1", "certbot renew --force-renewal --no-random-sleep-on-renew")
        assert ssl.get_server_certificate((edged.address("e1"), 443)) != first
        assert haproxy(edged) == process
    run = edged.play("site")
    assert [run.changed(node) for node in (*EDGES, *HOSTS)] == [0] * 4


def test_no_host_left_shows_a_page(edged: Fleet) -> None:
    for host in HOSTS:
        edged.on(host, "systemctl stop tiny")
    shown = edged.until(lambda: (got := ask(edged, "/version")).status_code == 503 and got, 30, "the page")
    assert shown.headers["retry-after"] == "300"
    assert "We cannot answer now" in shown.text
    for host in HOSTS:
        edged.on(host, "systemctl start tiny")
    edged.until(lambda: ask(edged, "/version").status_code == 200, 20, "an answer")
