"""A generation beside the one that serves: compared first, never half-made."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import layout as layout_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import systemd
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.modules import stage as module
from ansible_collections.thecodeforge.fastapi.plugins.modules.stage import (
    Stage,
    StageError,
    fingerprint,
    is_whole,
    mark_whole,
    shown_diff,
)

GENERATION = "0123456789ab-01234567"
SECRET = "hunter22-hunter22"


def wheel_of(script: str) -> bytes:
    """A wheel of uv with a script in its place."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("uv-1.0.data/scripts/uvx", "")
        wheel.writestr("uv-1.0.data/scripts/uv", script)
    return buffer.getvalue()


class FakeOs:
    """``os``, with owners kept in memory: without root nobody may give a file away."""

    def __init__(self) -> None:
        self.owners: dict[int, tuple[int, int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def sync(self) -> None:
        """Waits for every disk of the machine: too slow here."""

    def fchown(self, descriptor: int, uid: int, gid: int) -> None:
        self.owners[os.fstat(descriptor).st_ino] = (uid, gid)

    def fstat(self, descriptor: int) -> SimpleNamespace:
        found = os.fstat(descriptor)
        uid, gid = self.owners.get(found.st_ino, (12345, 12345))
        return SimpleNamespace(st_mode=found.st_mode, st_uid=uid, st_gid=gid)


class FakeTransient:
    """Loads the app, or does not."""

    answer = (0, '{"problems": [], "settings": false}\n')
    worker_answer = (0, "drains\n")
    asked: list[list[str]] = []

    def __init__(self, layout: Layout, generation: str) -> None:
        assert layout.read_record(generation)

    def run(self, words: list[str], timeout: int, script: str = "") -> tuple[int, str, float]:
        self.asked.append(words)
        return (*(self.worker_answer if "forge_worker" in words else self.answer), 0.1)


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What systemctl was asked to do."""
    made: list[tuple[str, ...]] = []
    fake = FakeOs()
    monkeypatch.setattr(module, "os", fake)
    monkeypatch.setattr(layout_module, "os", fake)
    monkeypatch.setattr(systemd, "systemctl", lambda *words, timeout=0: made.append(words) or "")
    monkeypatch.setattr(module, "is_settled", lambda *_arguments: False)
    monkeypatch.setattr(module, "Transient", FakeTransient)
    monkeypatch.setattr(FakeTransient, "asked", [])
    return made


def packed(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def blob(content: bytes) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "inline": base64.b64encode(content).decode(),
    }


INSTALLER = """#!/bin/sh
# Does as uv does: makes the environment, then puts things into it.
case " $* " in
  *" venv "*) for final; do :; done; mkdir -p "$final/bin" && : >"$final/bin/python" ;;
  *" pip install "*) : >"$(dirname "$(dirname "$0")")/pip-was-called" ;;
esac
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Stage]:
    def stage(**changes: Any) -> Stage:
        params = {
            "app": "forge",
            "root": str(tmp_path / "srv"),
            "group": "no-such-group",
            "python": "/bin/true",
            "target": "shop.main:app",
            "load_seconds": 60,
            "generation": GENERATION,
            "release": "0123456789ab",
            "layer": "aaaaaaaaaaaa-py3.11",
            "record": {"release": "0123456789ab", "workers": 3},
            "environment": f'FORGE_SECRET_KEY="{SECRET}"\n',
            "files": {"gunicorn.conf.py": "workers = 3\n"},
            "secret_files": {},
            "units": {"forge@.service": "[Service]\n", "forge.socket": "[Socket]\n"},
            "blobs": {
                "release": blob(packed({"shop/main.py": "app = None\n"})),
                "layer": blob(packed({"requirements.txt": "", "wheels/x.whl": ""})),
                "installer": blob(wheel_of(INSTALLER)),
            },
            **changes,
        }
        made = Stage(params)
        made.layout = Layout(params["root"], "forge", str(tmp_path / "units"), str(tmp_path / "run"))
        (tmp_path / "units").mkdir(exist_ok=True)
        return made

    return stage


def test_first_stage_makes_everything_and_the_second_finds_nothing(
    make: Callable[..., Stage], tmp_path: Path, calls: list[tuple[str, ...]]
) -> None:
    stage = make(python=sys.executable)
    before = stage.compare()
    assert before["missing"] == ["layer", "installer", "release", "generation", "validation"]
    stage.apply(before["missing"])

    home = tmp_path / "srv" / "forge"
    environment = home / "generations" / GENERATION / "environment"
    assert environment.read_text() == f'FORGE_SECRET_KEY="{SECRET}"\n'
    assert environment.stat().st_mode & 0o777 == 0o640
    assert (home / "releases" / "0123456789ab" / "shop" / "main.py").read_text() == "app = None\n"
    assert os.listdir(home / "releases" / "0123456789ab" / "shop" / "__pycache__")
    assert (home / "layers" / "aaaaaaaaaaaa-py3.11" / "bin" / "python").exists()
    assert (home / "pip-was-called").exists()
    assert sorted(os.listdir(tmp_path / "units")) == ["forge.socket", f"forge@{GENERATION}.service"]
    assert stage.layout.read_record(GENERATION) == {
        "release": "0123456789ab",
        "state": "validated",
        "workers": 3,
        "drains": True,
    }
    assert not stage.layout.live()
    assert calls == [("daemon-reload",)]

    again = make().compare()
    assert (again["missing"], again["drifted"]) == ([], [])
    assert FakeTransient.asked == [["python", "-", "shop.main:app"]]


def test_who_built_a_generation_is_recorded_and_another_builder_is_no_change(make: Callable[..., Stage]) -> None:
    record = {"release": "0123456789ab", "workers": 3}
    first = make(record={**record, "builder": "me@here"})
    first.apply(first.compare()["missing"])
    assert first.layout.read_record(GENERATION)["builder"] == "me@here"
    assert "generation" not in make(record={**record, "builder": "you@there"}).compare()["missing"]
    assert "generation" in make(record={**record, "workers": 4}).compare()["missing"]


@pytest.mark.parametrize("change", ["content", "mode", "owner", "gone"])
def test_file_that_drifted_is_found_and_mended(make: Callable[..., Stage], change: str) -> None:
    make().apply(["layer", "installer", "release", "generation"])
    path = Path(make().home) / "environment"
    if change == "content":
        path.write_text("FORGE_SECRET_KEY=other\n")
    elif change == "mode":
        path.chmod(0o644)
    elif change == "owner":
        module.os.owners[path.stat().st_ino] = (1000, 0)  # type: ignore[attr-defined]
    else:
        path.unlink()
    absent, drifted = make().differing()
    assert (absent, drifted) == (([str(path)], []) if change == "gone" else ([], [str(path)]))
    make().apply(["generation"])
    assert make().differing() == ([], [])


def test_shared_unit_is_left_to_the_switch_while_another_generation_is_live(
    make: Callable[..., Stage], tmp_path: Path
) -> None:
    shared = tmp_path / "units" / "forge.socket"
    stage = make()
    shared.write_text("[Socket]\n# of the live generation\n")
    home = tmp_path / "srv" / "forge"
    home.mkdir(parents=True)
    (home / "current").symlink_to("generations/ffffffffffff-ffffffff")
    stage.apply(["layer", "installer", "release", "generation"])
    assert "of the live generation" in shared.read_text()
    (home / "current").unlink()
    (home / "current").symlink_to(f"generations/{GENERATION}")
    assert make().differing() == ([], [str(shared)])


@pytest.mark.parametrize("change", ["new", "gone", "content", "mode", "time", "link"])
def test_fingerprint_sees_every_edit(tmp_path: Path, change: str) -> None:
    file = tmp_path / "package" / "main.py"
    file.parent.mkdir()
    file.write_text("one")
    os.utime(file, ns=(0, 0))
    mark_whole(str(tmp_path))
    before = fingerprint(str(tmp_path))
    assert is_whole(str(tmp_path))
    if change == "new":
        (tmp_path / "package" / "other.py").write_text("")
    elif change == "gone":
        file.unlink()
    elif change == "content":
        file.write_text("two")
    elif change == "mode":
        file.chmod(0o755)
    elif change == "time":
        os.utime(file, ns=(0, 1))
    else:
        file.unlink()
        file.symlink_to("one")
    assert fingerprint(str(tmp_path)) != before
    assert not is_whole(str(tmp_path))


def test_byte_code_is_no_edit(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    mark_whole(str(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "main.cpython-311.pyc").write_text("")
    assert is_whole(str(tmp_path))


def test_what_was_never_marked_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    assert not is_whole(str(tmp_path))
    assert not is_whole(str(tmp_path / "none"))


@pytest.mark.parametrize("fails", ["extract", "rename", "mark"])
@pytest.mark.parametrize("there", [False, True])
def test_release_that_was_cut_off_is_never_whole_and_is_made_again(
    make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, fails: str, there: bool
) -> None:
    stage = make()
    final = Path(stage.layout.release("0123456789ab"))
    stage.apply(["installer", "layer", "generation"])
    if there:
        final.mkdir()
        (final / "half.py").write_text("")

    def die(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if fails == "extract":
            patch.setattr(tarfile.TarFile, "extractall", die)
        elif fails == "rename":
            patch.setattr(module.os, "rename", die)
        else:
            patch.setattr(module, "mark_whole", die)
        with pytest.raises(KeyboardInterrupt):
            stage.unpack_release()
    assert not is_whole(str(final))
    assert "release" in make().compare()["missing"]
    make().apply(["release"])
    assert is_whole(str(final))
    assert sorted(os.listdir(final)) == [".complete", "shop"]
    assert os.listdir(final.parent) == ["0123456789ab"]


@pytest.mark.parametrize("step", ["venv", "pip install"])
def test_layer_that_cannot_be_installed_leaves_nothing(make: Callable[..., Stage], step: str) -> None:
    broken = INSTALLER.replace(
        "esac", "esac\n" + f'case " $* " in *" {step} "*) echo no such wheel >&2; exit 2 ;; esac'
    )
    stage = make(blobs={**make().given["blobs"], "installer": blob(wheel_of(broken))})
    with pytest.raises(StageError, match=r"^Could not .* of layer aaaaaaaaaaaa-py3\.11: no such wheel$"):
        stage.apply(["installer", "layer"])
    assert os.listdir(stage.layout.layers) == []
    assert "layer" in stage.compare()["missing"]


@pytest.mark.parametrize("where", ["inline", "remote"])
def test_upload_that_arrived_damaged_is_not_used(make: Callable[..., Stage], tmp_path: Path, where: str) -> None:
    stage = make()
    given = stage.given["blobs"]["release"]
    damaged = base64.b64decode(given["inline"])[:-1]
    if where == "inline":
        given["inline"] = base64.b64encode(damaged).decode()
    else:
        del given["inline"]
        given["remote"] = str(tmp_path / "upload")
        (tmp_path / "upload").write_bytes(damaged)
    with pytest.raises(StageError, match="The release arrived damaged"):
        stage.apply(["installer", "layer", "release"])
    assert not os.path.exists(stage.layout.release("0123456789ab"))


def test_full_disk_is_said_before_anything_is_written(
    make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make()
    stage.given["blobs"]["layer"]["size"] = 100 << 20
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: SimpleNamespace(free=300 << 20))
    with pytest.raises(StageError, match="has 300 MiB free and this release needs 416 MiB"):
        stage.apply(["layer"])
    assert os.listdir(stage.layout.layers) == []
    stage.check_room(["release"])


def test_second_deploy_at_the_same_time_is_refused(make: Callable[..., Stage]) -> None:
    stage = make()
    os.makedirs(stage.layout.home)
    with open(os.path.join(stage.layout.home, ".stage.lock"), "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StageError, match="Another deploy is staging forge on this host right now"):
            stage.apply(["generation"])
    assert not os.path.exists(stage.home)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((0, json.dumps({"problems": ["FORGE_A is missing."], "settings": True})), "FORGE_A is missing. What served"),
        ((-11, "warming up\n"), r"shop.main:app died while it was loaded \(exit code -11\): warming up What served"),
        ((0, ""), "died while it was loaded"),
    ],
)
def test_app_that_does_not_load_is_not_validated(
    make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str], sentence: str
) -> None:
    monkeypatch.setattr(FakeTransient, "answer", answer)
    stage = make()
    with pytest.raises(StageError, match=sentence):
        stage.apply(stage.compare()["missing"])
    assert make().compare()["missing"] == ["validation"]


def test_generation_that_failed_is_validated_again_and_a_good_one_is_not(make: Callable[..., Stage]) -> None:
    make().apply(make().compare()["missing"])
    record = Path(make().layout.record(GENERATION))
    for state, missing in (("bad", ["validation"]), ("good", []), ("left", []), ("validated", [])):
        record.write_text(json.dumps({**json.loads(record.read_text()), "state": state}))
        assert make().compare()["missing"] == missing


def test_diff_shows_files_and_never_the_environment(make: Callable[..., Stage]) -> None:
    stage = make()
    diffs = shown_diff(stage, stage.differing()[0])
    assert SECRET not in json.dumps(diffs)
    shown = {os.path.basename(diff["after_header"]): diff["after"] for diff in diffs}
    assert shown["environment"] == "(not shown)\n"
    assert shown["gunicorn.conf.py"] == "workers = 3\n"


def test_left_over_of_a_killed_deploy_is_cleared(make: Callable[..., Stage]) -> None:
    stage = make()
    for directory in (stage.layout.layers, stage.layout.releases):
        os.makedirs(os.path.join(directory, ".incoming-x", "deep"))
    stage.apply(["generation"])
    assert os.listdir(stage.layout.releases) == os.listdir(stage.layout.layers) == []


def test_settings_files_are_for_the_service_alone_and_never_shown(make: Callable[..., Stage]) -> None:
    stage = make(secret_files={"files/settings.toml": f'key = "{SECRET}"\n'})
    diffs = shown_diff(stage, stage.differing()[0])
    assert SECRET not in json.dumps(diffs)
    assert "settings.toml" in json.dumps(diffs)
    stage.apply(stage.compare()["missing"])
    path = Path(stage.home) / "files" / "settings.toml"
    assert path.read_text() == f'key = "{SECRET}"\n'
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.parent.stat().st_mode & 0o777 == 0o755


def test_units_of_processes_belong_to_the_generation(make: Callable[..., Stage], tmp_path: Path) -> None:
    units = {
        f"forge{name}": "[Unit]\n" for name in ("@.service", "@.socket", "@.target", ".worker@.service", ".socket")
    }
    make(units=units).apply(make(units=units).compare()["missing"])
    assert set(os.listdir(tmp_path / "units")) == {
        "forge.socket",
        "forge@.socket",
        f"forge@{GENERATION}.service",
        f"forge@{GENERATION}.target",
        f"forge.worker@{GENERATION}.service",
    }


@pytest.mark.parametrize(
    ("record", "said", "drains"),
    [
        ({}, "", True),
        ({"server": "uvicorn"}, "", True),
        ({"server": "gunicorn-asgi"}, "", False),
        ({"worker_class": "shop.W"}, "warming up\ndrains\n", True),
        ({"worker_class": "shop.W"}, "warming up\ncannot drain\n", False),
    ],
)
def test_generation_knows_whether_it_drains(
    make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, record: dict[str, str], said: str, drains: bool
) -> None:
    monkeypatch.setattr(FakeTransient, "worker_answer", (0, said))
    stage = make(record=record)
    stage.apply(stage.compare()["missing"])
    assert stage.layout.read_record(GENERATION)["drains"] is drains
    assert make(record=record).compare()["drains"] is drains


def test_worker_class_that_cannot_be_loaded_is_said(
    make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = (0, "problem ImportError: No module named 'shop.w'\n")
    monkeypatch.setattr(FakeTransient, "worker_answer", answer)
    stage = make(record={"worker_class": "shop.w.W"})
    with pytest.raises(
        StageError,
        match=r"^forge_worker_class: shop.w.W cannot be loaded: ImportError: No module named 'shop.w'\. What",
    ):
        stage.apply(stage.compare()["missing"])


@pytest.mark.parametrize(
    ("unit", "text", "sentence"),
    [
        ("forge@.service", "[Service]\nWorkingDirectory={release}/data\n", "forge_directory: the release has no directory data"),
        ("forge@.service", "[Service]\nReadWritePaths=/tmp /not-there\n", "forge_writable_paths: /not-there is not on this host"),
        (
            "forge.nightly@.timer",
            "[Timer]\nOnCalendar=sometimes\n",
            "forge_processes: nightly: systemd cannot read the schedule 'sometimes'",
        ),
    ],
)  # fmt: skip
def test_what_the_units_name_must_be_there(
    make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, unit: str, text: str, sentence: str
) -> None:
    monkeypatch.setattr(module.systemd, "is_schedule", lambda text: text != "sometimes")
    units = {"forge@.service": "[Service]\n", unit: text.format(release=make().layout.release("0123456789ab"))}
    stage = make(units=units)
    with pytest.raises(StageError, match=f"^{sentence}"):
        stage.apply(stage.compare()["missing"])
