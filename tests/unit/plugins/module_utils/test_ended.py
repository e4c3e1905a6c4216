# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import ended, systemd
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.ended import Ended
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.processes import Processes

OLD, NEW = "aaaaaaaaaaaa-00000000", "bbbbbbbbbbbb-00000000"
MAIL = f"shop.mail@{OLD}.service"


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An old generation that runs, with two other processes of which one was killed when it was stopped."""
    layout = Layout(str(tmp_path / "srv"), "shop", units=str(tmp_path / "units"), run=str(tmp_path / "run"))
    os.makedirs(layout.worker_states(OLD))
    units = Path(layout.generation(OLD), "units")
    units.mkdir(parents=True)
    Path(layout.units).mkdir()
    for name in (MAIL, f"shop.jobs@{OLD}.service"):
        (units / name).touch()
        Path(layout.units, name).write_text("[Service]\nTimeoutStopSec=5\n")
    monkeypatch.setattr(systemd, "running", lambda _app: [OLD, NEW])
    monkeypatch.setattr(systemd, "states", lambda *names: dict.fromkeys(names, "active"))
    monkeypatch.setattr(
        systemd, "properties", lambda unit, *_names: {"Result": "timeout" if unit == MAIL else "success"}
    )
    return layout


def append(layout: Layout, text: str) -> None:
    with open(os.path.join(layout.worker_states(OLD), "ended"), "a", encoding="utf-8") as handle:
        handle.write(text)


def test_what_ended_is_read_although_its_directory_is_gone(layout: Layout) -> None:
    append(layout, '{"stream": 9}\n')  # of a worker that was replaced before
    watched = Ended(Processes(layout, NEW))
    append(layout, '{"stream": 2, "websocket": 1}\n{"stream": 1}\n')
    shutil.rmtree(layout.worker_states(OLD))
    assert watched.read() == ["3 streams", "1 websocket", "process mail, killed after 5 s"]


def test_what_a_worker_cannot_have_written_counts_nothing(layout: Layout) -> None:
    append(layout, "")
    watched = Ended(Processes(layout, NEW))
    append(layout, '[]\n{"stream": -1}\n{"stream": "9"}\n{"wolf": 1}\n{"stream"\n\xff\n{"request": 1}\n')
    assert watched.read() == ["1 request", "process mail, killed after 5 s"]


@pytest.mark.parametrize("kind", ["missing", "link", "pipe"])
def test_a_file_that_is_none_of_a_worker_is_left_alone(layout: Layout, tmp_path: Path, kind: str) -> None:
    path = Path(layout.worker_states(OLD), "ended")
    if kind == "link":
        (tmp_path / "secret").write_text('{"stream": 1}\n')
        path.symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(path)
    assert Ended(Processes(layout, NEW)).read() == ["process mail, killed after 5 s"]


def test_words_that_are_shared_with_the_server() -> None:
    server = Path(__file__).parents[4] / "roles/service/files/forge_server.py"
    text = server.read_text()
    assert f'ENDED = "{ended.ENDED}"' in text
    assert ", ".join(f'"{kind}"' for kind in ended.KINDS) in text
