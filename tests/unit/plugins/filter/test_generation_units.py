# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of a generation's processes, and the files and names that its environment is made of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.thecodeforge.fastapi.plugins.filter.environment_file import environment_file
from ansible_collections.thecodeforge.fastapi.plugins.filter.generation_units import generation_units, quoted
from ansible_collections.thecodeforge.fastapi.plugins.filter.settings_files import settings_files
from ansible_collections.thecodeforge.fastapi.plugins.filter.workers import workers
from hypothesis import given
from hypothesis import strategies as st

WEB = """[Unit]
Description=web

[Service]
Type=notify
Sockets=shop.socket shop@%i.socket
NonBlocking=yes
User=shop
WorkingDirectory=/srv/shop/releases/1
ExecStart=/bin/web
Environment=A=%i
EnvironmentFile=/srv/shop/generations/%i/environment
RuntimeDirectory=shop/%i
Restart=always
TimeoutStopSec=35
ProtectSystem=strict
"""


def test_a_generation_without_processes_has_a_service_and_a_target() -> None:
    units = generation_units(WEB, "shop")
    assert sorted(units) == ["shop@.service", "shop@.target"]
    assert units["shop@.service"] == WEB
    assert "Wants=shop@%i.service\n" in units["shop@.target"]


def test_processes_run_as_the_web_process_does() -> None:
    processes = {
        "worker": {"command": "celery -A shop 'two words' 100% $HOME", "count": 2, "stop_seconds": 300},
        "nightly": {"command": "report", "schedule": "daily"},
    }
    units = generation_units(WEB, "shop", processes)
    assert sorted(units) == [
        "shop.nightly@.service",
        "shop.nightly@.timer",
        "shop.worker.1@.service",
        "shop.worker.2@.service",
        "shop@.service",
        "shop@.target",
    ]
    wants = "shop@%i.service shop.worker.1@%i.service shop.worker.2@%i.service shop.nightly@%i.timer"
    assert f"Wants={wants}\n" in units["shop@.target"]
    worker = units["shop.worker.1@.service"].splitlines()
    for line in ("User=shop", "WorkingDirectory=/srv/shop/releases/1", "Environment=A=%i", "ProtectSystem=strict",
                 "EnvironmentFile=/srv/shop/generations/%i/environment", "TimeoutStopSec=300", "Restart=always",
                 "PartOf=shop@%i.target", 'ExecStart=/usr/bin/env "--" "celery" "-A" "shop" "two words" "100%%" "$$HOME"',
                 ):  # fmt: skip
        assert worker.count(line) == 1, line
    assert not [line for line in worker if line.startswith(("Sockets=", "NonBlocking=", "RuntimeDirectory="))]
    nightly = units["shop.nightly@.service"]
    assert "Type=oneshot\nSuccessExitStatus=SIGTERM\n" in nightly
    assert "Restart=" not in nightly
    assert "TimeoutStopSec=60\n" in nightly
    assert "OnCalendar=daily\n" in units["shop.nightly@.timer"]


def test_a_process_that_runs_once_is_run_by_what_agrees_with_other_hosts() -> None:
    processes = {
        "nightly": {
            "command": "report 'two words'",
            "schedule": "*:0/5",
            "once": True,
            "on_failure": "https://x.example/${TOKEN}?a=1%20",
        },
        "beat": {"command": "beat", "once": True},
    }
    units = generation_units(WEB, "shop", processes)
    nightly, beat = units["shop.nightly@.service"].splitlines(), units["shop.beat@.service"].splitlines()
    runner = 'ExecStart=/usr/bin/env "--" "python" "-m" "forge_process"'
    assert f'{runner} "scheduled" "shop" "nightly" "*:0/5" "--" "report" "two words"' in nightly
    assert f'{runner} "kept" "shop" "beat" "--" "beat"' in beat
    told = '"tell" "shop" "nightly" "https://x.example/$${TOKEN}?a=1%%20"'
    assert f"{runner.replace('ExecStart', 'ExecStopPost')} {told}" in nightly
    assert "SuccessExitStatus=SIGTERM 75" in nightly
    assert not [line for line in beat if line.startswith(("ExecStopPost=", "SuccessExitStatus="))]
    assert "OnUnitInactiveSec=300\n" in units["shop.nightly@.timer"]
    assert "shop.beat@.timer" not in units


def test_commands_of_sealed_settings_are_launched_and_told_of_in_a_unit_of_their_own() -> None:
    sealed = "LoadCredentialEncrypted=environment:/srv/shop/generations/%i/environment.cred"
    web = f'[Service]\nUser=shop\n{sealed}\nEnvironment=HEALTH=/a%%20b "C=$d"\n'
    processes = {
        "worker": {"command": "celery worker"},
        "nightly": {"command": "report", "schedule": "daily", "on_failure": "mail -s 5% root"},
        "beat": {"command": "beat", "once": True},
    }
    units = generation_units(web, "shop", processes)
    worker = units["shop.worker@.service"].splitlines()
    assert 'ExecStart=/usr/bin/env "--" "python" "-m" "forge_credentials" "celery" "worker"' in worker
    assert sealed in worker
    assert 'ExecStart=/usr/bin/env "--" "python" "-m" "forge_process" "kept"' in units["shop.beat@.service"]
    [told] = [line for line in units["shop.nightly@.service"].splitlines() if line.startswith("ExecStopPost=")]
    assert told.startswith('ExecStopPost=+/usr/bin/systemd-run "--quiet" "--wait" "--pipe"')
    assert '"--setenv=SERVICE_RESULT"' in told
    assert f'"--property={sealed}"' in told
    assert '"--property=Environment=HEALTH=/a%%20b \\"C=$$d\\""' in told
    assert told.endswith(
        '-- /usr/bin/env "--" "python" "-m" "forge_process" "tell" "shop" "nightly" "mail -s 5%% root"'
    )


def test_units_are_what_systemd_reads(tmp_path: Path) -> None:
    """systemd-analyze verify, where there is one."""
    if subprocess.run(["which", "systemd-analyze"], capture_output=True).returncode:
        pytest.skip("no systemd here")
    for name, text in generation_units(WEB, "shop", {"worker": {"command": "true"}}).items():
        (tmp_path / name.replace("@.", "@1.")).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "shop.worker@1.service")], capture_output=True, text=True
    )
    assert "Unknown" not in done.stderr


@given(st.text(st.characters(blacklist_characters="\n\x00", blacklist_categories=("Cs", "Cc")), min_size=1))
def test_a_quoted_word_has_no_end_of_its_own(word: str) -> None:
    inside = quoted(word)[1:-1]
    assert not inside.replace("\\\\", "").replace('\\"', "").count('"')
    assert inside.count("%") == 2 * word.count("%")
    assert inside.count("$") == 2 * word.count("$")


def test_plain_variables_get_no_prefix() -> None:
    text = environment_file({"A": "1"}, prefix="SHOP_", plain={"LOG_LEVEL": "info", "N": 3})
    assert text == 'LOG_LEVEL="info"\nN="3"\nSHOP_A="1"\n'
    assert environment_file({"A": "1"}, prefix="") == 'A="1"\n'


def test_settings_files_are_below_a_directory_of_their_own() -> None:
    files = [{"name": "a.toml", "content": "x = 1\n", "variable": "A"}, {"name": "b.json", "content": {"x": [1]}}]
    assert settings_files(files) == {"files/a.toml": "x = 1\n", "files/b.json": '{"x": [1]}'}


def test_content_that_cannot_be_written_is_not_repeated() -> None:
    with pytest.raises(AnsibleFilterError, match="forge_files: a.toml") as caught:
        settings_files([{"name": "a.toml", "content": "hunter22\x00"}])
    assert "hunter22" not in str(caught.value)


def test_uvicorn_is_one_process_whatever_the_host() -> None:
    host = {"cpus": 8, "memory_mb": 64000}
    assert workers(host, server="uvicorn") == {"count": 1, "reason": "Uvicorn is one process"}
    assert workers(host, server="gunicorn-asgi") == workers(host)
