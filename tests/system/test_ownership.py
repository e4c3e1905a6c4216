# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with a life of its own: what is somebody else's is said and stays; apps that share it keep to themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Fleet
from tiny import write_project

# A person with a password in a group of persons, a directory, a state directory, a unit made by hand, an app's leftover.
LIFE = """
useradd --create-home --shell /bin/bash alice && echo alice:wonderland | chpasswd
groupadd apps && gpasswd --add alice apps
mkdir -p /srv/shared/data /var/lib/letters && touch /var/lib/letters/one && chown -R alice /var/lib/letters
printf '[Service]\\nExecStart=/bin/sleep infinity\\n' >/etc/systemd/system/handmade.service
systemctl daemon-reload && systemctl start handmade
"""
LOOK = """
{ getent passwd; getent group; cat /etc/shadow; ls -lR --time-style=full-iso /srv /etc/systemd/system /var/lib/letters;
  systemctl is-active ssh handmade; } | md5sum
"""
# A deploy of the project shop is at work, from another controller.
HELD = """
printf '{"token":"t","user":"ann","host":"ci","since":"today","seconds":1e9,"boot":"%s","refreshed":%s,"project":{"id":"shop"}}' \
  $(cat /proc/sys/kernel/random/boot_id) 1 >/srv/two/lock.json
"""
OTHERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "units of a package": ({"forge_app": "ssh"}, ("ssh.service and ssh.socket are units of this host (package openssh-server)",)),
    "another name of a unit": ({"forge_app": "sshd"}, ("sshd.service is a unit of this host (another name of ssh.service",)),
    "template of the system": ({"forge_app": "getty"}, ("getty@.service is a unit of this host",)),
    "unit made by hand": (
        {"forge_app": "handmade"},
        ("/etc/systemd/system/handmade.service was made by somebody else", "forge_take_over: [unit]"),
    ),
    "everything at once": (
        {
            "forge_app": "shared", "forge_user": "alice", "forge_listen": ["0.0.0.0:22", "192.0.2.1:80"],
            "forge_state_directories": ["dpkg"],
        },
        (
            "/srv/shared is not the app's (it has data)",
            "the user alice is a person's or another service's (its shell is /bin/bash, it has a password, its uid is 100",
            "0.0.0.0:22 is taken by sshd (unit ssh.service)",
            "192.0.2.1:80 is no address of this host",
            "/var/lib/dpkg belongs to root, and would become alice's",
        ),
    ),
    "name of a person": ({"forge_app": "alice"}, ("the user alice is a person's",)),
    "name of an account of the system": ({"forge_app": "news"}, ("the user news is the system's (uid 9)",)),
    "group of persons": ({"forge_app": "apps"}, ("the group apps has other members (alice)",)),
    "state directory": (
        {"forge_app": "post", "forge_state_directories": ["letters/new"]},
        ("forge_state_directories: /var/lib/letters/new belongs to alice",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def host(box: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    shop = write_project(tmp_path_factory.mktemp("own") / "shop", "gunicorn", "uvicorn-worker")
    box.on("box", LIFE)
    box.variables = {
        "forge_project": "", "forge_source": str(shop), "forge_target": "shop.main:app", "forge_workers": 1, "forge_watch_seconds": 1,
        "forge_migrations": [], "forge_schema_version": "", "forge_environment": {"NAME": "{{ forge_app }}"},
    }  # fmt: skip
    return box


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_somebody_elses_is_said_and_stays(host: Fleet, case: str) -> None:
    variables, sentences = OTHERS[case]
    before = host.on("box", LOOK, check=False)
    run = host.play("check", check=False, **variables)
    assert run.rc != 0
    for sentence in sentences:
        assert sentence in run.said()
    assert "Nothing was changed on box." in run.said()
    assert host.on("box", LOOK, check=False) == before


INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y"
# Whoever keeps a hand-made server running. Each listens on the port that the test puts in, and ends with what ``end`` says.
KEEPERS = {
    "supervisor": (
        f"{INSTALL} supervisor && printf '[program:web]\ncommand=python3 -m http.server PORT\nstopasgroup=true\n' "
        ">/etc/supervisor/conf.d/web.conf && until supervisorctl update; do sleep 0.5; done",
        "python3 (unit supervisor.service)",
        "systemctl disable --now supervisor",
    ),
    "nginx": (
        f"{INSTALL} nginx-light && printf 'server {{ listen PORT; return 200; }}\n' >/etc/nginx/conf.d/web.conf && systemctl restart nginx",
        "nginx (unit nginx.service)",
        "systemctl disable --now nginx",
    ),
    "cron": (
        f"{INSTALL} cron && systemctl start cron && echo '* * * * * root exec python3 -m http.server PORT' >/etc/cron.d/web",
        "python3 (unit cron.service)",
        "rm /etc/cron.d/web; systemctl stop cron; pkill -f 'http.server PORT'",
    ),
    "screen": (
        f"{INSTALL} screen && runuser -u admin -- screen -dmS web python3 -m http.server PORT",
        "python3",
        "pkill -f 'http.server PORT'",
    ),
    "docker": (
        "cp $(readlink -f /usr/bin/python3) /usr/local/bin/docker-proxy && "
        "systemd-run --unit docker /usr/local/bin/docker-proxy -m http.server PORT",
        "docker-proxy (unit docker.service)",
        "systemctl stop docker; rm /usr/local/bin/docker-proxy",
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("keeper", KEEPERS)
def test_whoever_has_the_port_is_named_and_goes_on(host: Fleet, keeper: str) -> None:
    port = 8090 + list(KEEPERS).index(keeper)
    begin, name, end = (text.replace("PORT", str(port)) for text in KEEPERS[keeper])
    host.on("box", begin)
    try:
        answers = f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{port}/"
        host.until(lambda: host.on("box", answers, check=False) == "200", 70, keeper)
        before = host.on("box", f"ss -Hltnp sport = :{port}")
        for take_over in ([], ["unit"]):
            run = host.play("check", check=False, forge_app="late", forge_listen=[str(port)], forge_take_over=take_over)
            assert run.rc != 0
            assert f"forge_listen: {port} is taken by {name}" in run.said()
            assert "Nothing was changed on box." in run.said()
        assert host.on("box", f"ss -Hltnp sport = :{port}") == before
        assert host.on("box", answers) == "200"
    finally:
        host.on("box", end, check=False)


ONE, TWO = {"forge_app": "one", "forge_listen": ["8061"]}, {"forge_app": "two", "forge_listen": ["8062"]}


@pytest.fixture(scope="module")
def shared(host: Fleet) -> Fleet:
    """Two apps with defaults, and an earlier installation of one of them that ran as a user of another name."""
    add = "useradd --system --user-group --shell /usr/sbin/nologin --no-create-home earlier"
    host.on("box", f"id -u earlier >/dev/null 2>&1 || {add}")
    host.play("site", **ONE, forge_user="earlier", forge_group="earlier")
    host.on("box", "sed -i 's/Managed by .* for app one:/Written by thecodeforge.fastapi.service:/' "
            "/etc/systemd/system/one* /srv/one/generations/*/units/*; rm /srv/one/project.json")  # fmt: skip
    return host


def test_an_installation_keeps_its_user_and_a_new_app_has_its_own(shared: Fleet) -> None:
    shared.play("site", **ONE)
    shared.play("site", **TWO)
    users = "for app in one two; do ps -o user= $(systemctl show -P MainPID \"$app@*\" | grep -v '^0$'); done"
    assert shared.on("box", users).split() == ["earlier", "two"]
    assert shared.on("box", "stat -c %G /srv/two/generations/*/environment") == "two"
    reads = "setpriv --reuid earlier --regid earlier --clear-groups cat /srv/two/generations/*/environment"
    assert "Permission denied" in shared.on("box", f"{reads} 2>&1", check=False)
    assert shared.on("box", "getent passwd two | cut -d: -f5") == "Managed by thecodeforge.fastapi for app two"
    assert not shared.on("box", "getent passwd earlier | cut -d: -f5")
    assert shared.play("site", **TWO).changed("box") == 0


def test_addresses_and_accounts_of_another_app_are_its_own(shared: Fleet) -> None:
    run = shared.play("check", check=False, forge_app="three", forge_user="two", forge_listen=["127.0.0.1:8062"])
    assert "127.0.0.1:8062 is taken by the app two" in run.said()
    assert "the user two is the app two's" in run.said()


def test_another_project_of_the_same_name_is_refused(shared: Fleet, tmp_path: Path) -> None:
    """Also by a rollback; and status says so. Taken over on purpose, it is the next release."""
    blog = write_project(tmp_path / "blog", "gunicorn", "uvicorn-worker")
    (blog / "pyproject.toml").write_text((blog / "pyproject.toml").read_text().replace('"shop"', '"blog"'))
    subprocess.run(["uv", "lock", "--quiet"], cwd=blog, check=True)
    other = {**TWO, "forge_source": str(blog), "forge_project": "blog"}
    shared.play("deploy", **TWO, forge_project="shop", forge_environment={"NAME": "again"})
    live = shared.on("box", "readlink /srv/two/current")
    sentence = "/srv/two is another project's, shop (shop.main:app, of "
    for playbook in ("deploy", "rollback", "status"):
        run = shared.play(playbook, check=False, **other)
        assert run.rc != 0
        assert sentence in run.said(), playbook
        assert shared.on("box", "readlink /srv/two/current") == live
    shared.on("box", HELD)
    run = shared.play("unlock", check=False, **other)
    assert "The lock is held by ann on ci since today for another project, shop: name your own app" in run.said()
    assert shared.on("box", "cat /srv/two/lock.json")
    assert shared.play("unlock", **TWO, forge_project="shop").changed("box") == 1
    assert shared.on("box", "ls /srv/two | grep -c lock.json", check=False) == "0"
    assert httpx.get(f"http://{shared.address('box')}:8062/healthz").status_code == 200
    shared.play("deploy", **other, forge_take_over=["project"])
    assert shared.on("box", "readlink /srv/two/current") != live
    assert sentence.replace(", shop", ", blog") in shared.play("check", check=False, **TWO, forge_project="shop").said()


def test_status_shows_what_has_come_into_the_way(shared: Fleet) -> None:
    shared.on("box", "printf '[Timer]\\nOnCalendar=daily\\n' >/etc/systemd/system/one.timer")
    try:
        run = shared.play("status", check=False, **ONE)
    finally:
        shared.on("box", "rm /etc/systemd/system/one.timer")
    assert run.rc != 0
    assert "/etc/systemd/system/one.timer was made by somebody else" in run.said()
    assert shared.on("box", "basename $(readlink /srv/one/current)") in run.output
