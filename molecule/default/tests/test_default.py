# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user finds on the hosts after site.yml: asked over SSH, without the collection's own code."""

from __future__ import annotations

import json
import re

import pytest

HOME = "/srv/forge"


@pytest.fixture
def root(host):
    """The host, as root."""
    with host.sudo():
        yield host


@pytest.fixture
def live(root):
    target = root.check_output(f"readlink {HOME}/current")
    assert re.fullmatch(r"generations/[0-9a-f]{12}-[0-9a-f]{8}", target)
    return target.split("/")[1]


@pytest.fixture
def environment(root, live):
    """Environment of the running master."""
    pid = root.check_output(f"systemctl show -P MainPID forge@{live}.service")
    raw = root.check_output(f"cat /proc/{pid}/environ | base64 -w0")
    import base64

    pairs = base64.b64decode(raw).decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_service_account(root):
    user = root.user("forge")
    assert user.shell == "/usr/sbin/nologin"
    assert user.group == "forge"
    assert not root.file(user.home).exists
    assert root.check_output("getent shadow forge").split(":")[1].startswith("!")


def test_no_process_of_the_app_is_root(root, live):
    pids = root.check_output(f"systemctl show -P ControlGroup forge@{live}.service")
    users = root.check_output(
        f"ps -eo user:20,cgroup:200 | grep -F '{pids.rsplit('/', 1)[1]}' | awk '{{print $1}}' | sort -u"
    )
    assert users == "forge"


def test_files_belong_to_root(root):
    assert root.check_output(f"find {HOME} -not -user root | head") == ""
    assert root.check_output(f"find {HOME} -perm /022 -not -type l | head") == ""


def test_environment_file_is_secret(root, live):
    file = root.file(f"{HOME}/generations/{live}/environment")
    assert (file.mode, file.user, file.group) == (0o640, "root", "forge")
    assert root.run(f"runuser -u nobody -- cat {file.path}").rc != 0


def test_app_cannot_write_its_code(root, live):
    assert root.run(f"runuser -u forge -- touch {HOME}/generations/{live}/x").rc != 0
    properties = root.check_output(f"systemctl show forge@{live} -p NoNewPrivileges -p ProtectSystem -p ProtectHome")
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes"} <= set(properties.split())


def test_sockets(root, live):
    assert root.socket("tcp://0.0.0.0:8000").is_listening
    file = root.file(f"/run/forge/{live}.sock")
    assert file.is_socket
    assert (file.mode, file.user, file.group) == (0o660, "root", "forge")


@pytest.mark.parametrize("unit", ["forge.service", "forge.socket"])
def test_starts_at_boot(root, unit):
    assert root.check_output(f"systemctl is-enabled {unit}") == "enabled"
    assert root.check_output(f"systemctl is-active {unit}") == "active"


def test_one_generation_runs(root, live):
    shown = root.check_output("systemctl list-units --plain --no-legend --state=active 'forge@*.service'")
    assert [line.split()[0] for line in shown.splitlines()] == [f"forge@{live}.service"]


def test_nothing_failed(root):
    assert root.check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_settings_as_set(environment, live):
    assert environment["FORGE_POOL_SIZE"] == "2"
    assert environment["FORGE_GENERATION"] == live
    assert environment["FORGE_RELEASE"] == live.split("-")[0]
    assert len(environment["FORGE_SECRET_KEY"]) == 48


def test_workers_as_sized(root, live):
    cpus = int(root.check_output("nproc"))
    record = json.loads(root.check_output(f"cat {HOME}/generations/{live}/release.json"))
    wanted = 2 * cpus + 1 if cpus <= 4 else cpus + 5
    # Two hosts, two generations in a swap, four connections a worker, 90 connections.
    wanted = min(wanted, 90 // (2 * 2 * 4))
    assert record["workers"] == wanted, record["workers_reason"]
    master = root.check_output(f"systemctl show -P MainPID forge@{live}")
    assert len(root.check_output(f"pgrep -P {master}").split()) == wanted


def test_serves_and_keeps_what_is_written(root):
    serial = root.check_output("cat /proc/sys/kernel/random/uuid")
    body = json.dumps({"serial": serial, "name": "bolt"})
    made = json.loads(
        root.check_output(
            f"curl -sS --fail -H 'Content-Type: application/json' -d '{body}' http://127.0.0.1:8000/parts"
        )
    )
    found = json.loads(root.check_output(f"curl -sS --fail http://127.0.0.1:8000/parts/{made['id']}"))
    assert found["serial"] == serial
    assert json.loads(root.check_output("curl -sS --fail http://127.0.0.1:8000/readyz"))


def test_journal_has_the_access_log(root, live):
    mark = root.check_output("cat /proc/sys/kernel/random/uuid")
    root.check_output(f"curl -sS http://127.0.0.1:8000/healthz?mark={mark}")
    root.check_output(f"timeout 10 sh -c 'until journalctl -u forge@{live} | grep -q {mark}; do sleep 0.2; done'")


def test_layers_are_offline_and_hashed(root):
    listed = root.check_output(f"cat {HOME}/layers/*/requirements.txt")
    names = [line for line in listed.splitlines() if line and not line.startswith(" ")]
    assert len(names) > 10
    assert listed.count("--hash=sha256:") >= len(names)


def test_database_lets_only_the_apps_hosts_in(root):
    """From an app's host, with the right password but as another database: refused by the server's rules."""
    url = root.check_output(f"grep -h FORGE_DATABASE_URL {HOME}/current/environment").split('"')[1]
    server = url.split("@")[1].split("/")[0]
    python = root.check_output(f"ls {HOME}/layers/*/bin/python").split()[0]
    code = f"import psycopg; psycopg.connect('{url.rsplit('/', 1)[0]}/postgres', connect_timeout=5)"
    refused = root.run(f'{python} -c "{code}"')
    assert refused.rc != 0
    assert "no pg_hba.conf entry" in refused.stderr
    assert server.endswith(":5432")
