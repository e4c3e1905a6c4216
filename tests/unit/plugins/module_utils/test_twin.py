# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A twin is what serves once more, under another id, and nothing that serves is touched for it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import twin as module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.complete import is_complete, mark_complete
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import StageError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.exclusive import exclusive_lock
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.generations import Generations
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import GENERATION_ID, twin_of
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.records import LedgerEvent
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.twin import copy_generation, make_twin
from fake_host import NEW, OLD, Host, with_processes

TWIN = f"{OLD}-2"


@pytest.fixture
def refreshed(host: Host) -> Host:
    """A host whose live generation has a twin."""
    home = Path(host.layout.generation(OLD))
    with_processes(host, OLD, "forge.mail@.service")
    (home / "files").mkdir()
    (home / "files" / "key").write_text("secret")
    os.chmod(home / "files" / "key", 0o640)
    (home / "__pycache__").mkdir()
    (home / "__pycache__" / "forge_server.pyc").write_text("")
    Generations(host.layout).set_state(OLD, "good", schema="12")
    make_twin(host.layout)
    return host


def test_ids_go_back_and_forth() -> None:
    assert (twin_of(OLD), twin_of(TWIN)) == (TWIN, OLD)
    assert GENERATION_ID.match(TWIN)
    assert not GENERATION_ID.match(f"{TWIN}-2")


def test_twin_has_the_files_the_units_and_the_record(refreshed: Host) -> None:
    layout = refreshed.layout
    home = Path(layout.generation(TWIN))
    assert (home / "files" / "key").read_text() == "secret"
    assert (home / "files" / "key").stat().st_mode & 0o777 == 0o640
    assert not (home / "__pycache__").exists()
    for name in (f"forge@{TWIN}.service", f"forge.mail@{TWIN}.service"):
        assert (home / "units" / name).read_text() == (Path(layout.units) / name).read_text()
    record, original = layout.read_record(TWIN), layout.read_record(OLD)
    assert record == dataclasses.replace(original, generation=TWIN, state="validated")
    assert record.schema == "12"
    assert layout.live() == OLD
    assert refreshed.stopped() == []


@pytest.fixture
def made(host: Host) -> Path:
    """What commands of the release have made for what serves."""
    made = Path(host.layout.made(OLD))
    (made / "static" / "__pycache__").mkdir(parents=True)
    (made / "static" / "a.css").write_text("blue")
    os.chmod(made / "static" / "a.css", 0o640)
    (made / "static" / "link").symlink_to("a.css")
    (made / "static" / "__pycache__" / "x.pyc").write_text("")
    mark_complete(str(made))
    half = Path(host.layout.half_made(OLD)) / "static"
    half.mkdir(parents=True)
    (half / "b.css").write_text("")
    return made


def test_twin_has_the_same_files_that_commands_of_the_release_have_made(host: Host, made: Path) -> None:
    make_twin(host.layout)
    make_twin(host.layout)  # as after a run that was killed
    twin = Path(host.layout.made(TWIN))
    for name in ("static/a.css", "static/__pycache__/x.pyc"):
        assert (twin / name).stat().st_ino == (made / name).stat().st_ino
    assert os.readlink(twin / "static" / "link") == "a.css"
    assert is_complete(str(twin))
    assert is_complete(str(made))
    assert not Path(host.layout.half_made(TWIN)).exists()
    Generations(host.layout)._remove(OLD)
    assert (twin / "static" / "a.css").read_text() == "blue"
    assert is_complete(str(twin))


def test_what_was_made_and_cannot_be_had_is_said(host: Host, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "cp: cannot create link: No space left on device\n")
    monkeypatch.setattr(module, "run", lambda _argv: failed)
    with pytest.raises(OSError, match="No space left on device"):
        make_twin(host.layout)
    assert not is_complete(host.layout.made(TWIN))
    assert not host.layout.read_record(TWIN).state


def test_twin_of_a_twin_is_the_first_again(refreshed: Host) -> None:
    refreshed.serve(TWIN)
    Generations(refreshed.layout)._remove(OLD)
    make_twin(refreshed.layout)
    assert refreshed.layout.read_record(OLD).generation == OLD
    assert (Path(refreshed.layout.units) / f"forge@{OLD}.service").exists()


def test_what_a_twin_took_over_from_goes_and_no_rollback_goes_to_it(refreshed: Host) -> None:
    generations = Generations(refreshed.layout)
    generations.set_state(NEW, "good")
    generations.set_state(TWIN, "good")
    for action, name in (("deploy", NEW), ("rollback", OLD), ("refresh", TWIN)):
        generations.record_event(LedgerEvent(action=action, result="switched", generation=name))
    refreshed.serve(TWIN)
    assert generations.previous_good() == NEW
    assert generations.was_rolled_back()
    assert generations.prune(5) == [OLD]
    assert sorted(generations.all()) == [TWIN, NEW]


def test_what_a_killed_rehearsal_has_left_is_no_generation_and_goes(host: Host) -> None:
    name = f"{OLD}-r"
    copy_generation(host.layout, OLD, name, lambda path, content: b"x" if path == "environment" else content)
    assert Path(host.layout.generation(name), "environment").read_text() == "x"
    Generations(host.layout).set_state(OLD, "good")
    Generations(host.layout).record_event(LedgerEvent(action="deploy", result="switched", generation=OLD))
    host.serve(OLD)
    assert name not in Generations(host.layout).all()
    assert name not in Generations(host.layout).prune(5)
    assert not Path(host.layout.generation(name)).exists()
    assert not (Path(host.layout.units) / f"forge@{name}.service").exists()
    assert Path(host.layout.generation(OLD)).exists()


def test_nothing_to_refresh_is_said(host: Host) -> None:
    os.unlink(host.layout.record(OLD))
    with pytest.raises(StageError, match=r"release\.json cannot be read, so nothing is refreshed: run site\.yml"):
        make_twin(host.layout)
    host.nothing_was_released()
    with pytest.raises(StageError, match="Nothing was ever released on this host"):
        make_twin(host.layout)


def test_another_deploy_that_stages_is_said(host: Host) -> None:
    with exclusive_lock(host.layout.kernel_lock("stage")), pytest.raises(StageError, match="Another deploy is staging"):
        make_twin(host.layout)


def test_a_python_goes_with_the_last_layer_that_links_to_it(host: Host) -> None:
    layout = host.layout
    for name in ("3.14.2-used", "3.14.1-unused"):
        os.makedirs(os.path.join(layout.pythons, name, "bin"))
    layer = layout.layer(layout.read_record(OLD).layer)
    os.makedirs(os.path.join(layer, "bin"), exist_ok=True)
    link = os.path.join(layer, "bin", "python")
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink(os.path.join(layout.pythons, "3.14.2-used", "bin", "python3.14"), link)
    Generations(layout).set_state(OLD, "good")
    Generations(layout).record_event(LedgerEvent(action="deploy", result="switched", generation=OLD))
    Generations(layout).prune(5)
    assert os.listdir(layout.pythons) == ["3.14.2-used"]
