# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that run as the service would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import systemd
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.masking import MASK
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.transient import (
    CONFINEMENT,
    PLACE,
    SERVICE_ONLY,
    Transient,
    TransientError,
    argv_of,
    sandbox,
)

ID = "0123456789ab-01234567"
UNIT = """\
# A comment with A=b
[Unit]
Description=forge: generation %i
After=network-online.target
[Service]
Type=notify
NotifyAccess=main
Sockets=forge.socket forge@%i.socket
User=forge
; Group=commented
WorkingDirectory=/srv/forge/releases/0123456789ab
ExecStart=/x/bin/python -m gunicorn
ExecReload=/bin/kill
Environment=PATH=/x/bin:/usr/bin:/bin A=%i
EnvironmentFile=/srv/forge/generations/%i/environment
RuntimeDirectory=forge/%i
RuntimeDirectoryMode=0755
Restart=always
RestartSec=1
KillMode=mixed
TimeoutStartSec=90
TimeoutStopSec=35
OOMPolicy=continue
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX AF_INET
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""


def test_sandbox_is_the_services_without_what_makes_it_a_service() -> None:
    assert sandbox(UNIT, ID) == [
        "User=forge",
        "WorkingDirectory=/srv/forge/releases/0123456789ab",
        f"Environment=PATH=/x/bin:/usr/bin:/bin A={ID}",
        f"EnvironmentFile=/srv/forge/generations/{ID}/environment",
        "ProtectSystem=strict",
        "RestrictAddressFamilies=AF_UNIX AF_INET",
        "SystemCallFilter=@system-service",
    ]


TEMPLATE = Path(__file__).parents[4] / "roles" / "service" / "templates" / "app@.service.j2"


def test_each_directive_of_the_template_is_one_of_the_sandbox_or_of_the_service_alone() -> None:
    """A new one must be put into one of the two, so that it reaches migrations and other processes on purpose."""
    section = TEMPLATE.read_text().partition("[Service]")[2]
    directives = set(re.findall(r"^([A-Z]\w*)=", section, re.MULTILINE))
    assert directives == PLACE | SERVICE_ONLY
    assert not (PLACE | CONFINEMENT) & SERVICE_ONLY
    assert not PLACE & CONFINEMENT
    defaults = yaml.safe_load((TEMPLATE.parents[1] / "vars" / "main.yml").read_text())["__forge_sandbox"]
    assert set(defaults) <= CONFINEMENT
    assert "combine(forge_sandbox)" in section
    specification = (TEMPLATE.parents[1] / "meta" / "argument_specs.yml").read_text()
    assert all(name in specification for name in CONFINEMENT)


def test_directive_that_nobody_knows_reaches_no_command() -> None:
    assert sandbox("[Service]\nUser=a\nWatchdogSec=5\nUserX=b\n User = c\n", ID) == ["User=a", "User = c"]


FAKE = """\
#!/bin/sh
# systemd-run, without systemd: notes its options, then runs what comes after them.
while [ "$1" != -- ]; do echo "$1" >>"$NOTES"; shift; done
shift
exec "$@"
"""


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    program = tmp_path / "bin" / "systemd-run"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setattr(systemd, "journal", lambda _unit, _since: [])
    made = Layout(str(tmp_path / "srv"), "forge")
    home = Path(made.generation(ID))
    (home / "units").mkdir(parents=True)
    (home / "units" / made.service(ID)).write_text(UNIT)
    (home / "environment").write_text('FORGE_SECRET_KEY="hunter22-hunter22"\n')
    return made


def test_command_runs_in_the_sandbox_and_its_output_is_masked(layout: Layout, tmp_path: Path) -> None:
    rc, output, seconds = Transient(layout, ID).run(["sh", "-c", "echo key hunter22-hunter22; echo err >&2; exit 3"], 5)
    assert (rc, output) == (3, f"key {MASK}\nerr\n")
    assert 0 <= seconds < 5
    notes = (tmp_path / "notes").read_text().splitlines()
    assert [notes[n + 1] for n, note in enumerate(notes) if note == "--property"] == [
        *sandbox(UNIT, ID),
        "RuntimeMaxSec=5",
    ]
    assert {"--wait", "--pipe", "--collect"} <= set(notes)


def test_what_commands_of_the_release_have_made_is_read_only_but_for_themselves(layout: Layout, tmp_path: Path) -> None:
    unit = UNIT.replace("[Install]", "BindReadOnlyPaths={0}/static:/r/static\nBindReadOnlyPaths=/etc/x:/r/x\n[Install]")
    unit = unit.format(layout.made("%i"))
    (Path(layout.generation(ID)) / "units" / layout.service(ID)).write_text(unit)
    notes = tmp_path / "notes"
    Transient(layout, ID).run(["true"], 5)
    assert f"BindReadOnlyPaths={layout.made(ID)}/static:/r/static" in notes.read_text().splitlines()
    notes.unlink()
    Transient(layout, ID, writable="/incoming").run(["true"], 5)
    bound = [note for note in notes.read_text().splitlines() if note.startswith("Bind")]
    assert bound == ["BindPaths=/incoming/static:/r/static", "BindReadOnlyPaths=/etc/x:/r/x"]


KERNEL = [
    "forge-run.service: A process of this unit has been killed by the OOM killer.",
    "forge-run.service: Main process exited, code=killed, status=9/KILL",
    "forge-run.service: Failed with result 'oom-kill'.",
]


@pytest.mark.parametrize(
    ("journal", "said"),
    [
        (KERNEL, "killed by the kernel: out of memory\n"),
        (["forge-run.service: Main process exited, code=dumped, status=11/SEGV"], "killed by SIGSEGV\n"),
        (["forge-run.service: Main process exited, code=exited, status=1/FAILURE"], ""),
        ([], ""),
    ],
)
def test_command_that_was_killed_says_by_what(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, journal: list[str], said: str
) -> None:
    """systemd-run has an exit code for it, and no word."""
    monkeypatch.setattr(systemd, "journal", lambda unit, _since: journal if unit.endswith(".service") else [])
    assert Transient(layout, ID).run(["sh", "-c", "printf begun; exit 1"], 5)[:2] == (
        1,
        f"begun\n{said}" if said else "begun",
    )
    assert Transient(layout, ID).run(["true"], 5)[:2] == (0, "")


def test_script_comes_on_the_standard_input(layout: Layout) -> None:
    assert Transient(layout, ID).run(["sh", "-s", "x"], 5, "echo got $1") == (0, "got x\n", pytest.approx(1, abs=1))
    assert Transient(layout, ID).run(["cat"], 5)[1] == ""


def test_command_that_does_not_end_is_stopped_and_said(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd ends it after RuntimeMaxSec, which comes back as a failure."""
    with pytest.raises(TransientError, match="did not end within 0 s and was stopped; it printed nothing"):
        Transient(layout, ID).run(["false"], 0)
    with pytest.raises(TransientError) as caught:
        Transient(layout, ID).run(["sh", "-c", "echo one; echo key hunter22-hunter22; echo; exit 1"], 0)
    assert str(caught.value).endswith(f"was stopped; the last line that it printed is: key {MASK}.")
    assert caught.value.lines == ["one", f"key {MASK}", ""]
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(systemd, "systemctl", lambda *arguments: asked.append(arguments))
    with pytest.raises(TransientError, match="did not end within -30 s"):
        Transient(layout, ID).run(["sleep", "5"], -30)
    assert asked[0][:2] == ("kill", "--signal=SIGKILL")


def test_generation_that_is_not_staged_is_said(layout: Layout) -> None:
    with pytest.raises(TransientError, match="Generation ffffffffffff-ffffffff is not staged on this host"):
        Transient(layout, "ffffffffffff-ffffffff")


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("alembic upgrade head", ["alembic", "upgrade", "head"]),
        ("app 'a b' \"c;d\" $HOME", ["app", "a b", "c;d", "$HOME"]),
    ],
)
def test_arguments_of_a_command(command: str, argv: list[str]) -> None:
    assert argv_of(command) == argv


@pytest.mark.parametrize("command", ["", "   ", "app 'unclosed"])
def test_command_that_is_none(command: str) -> None:
    with pytest.raises(TransientError, match=r"^it (is empty|cannot be read: no closing quotation)\.$"):
        argv_of(command)
