# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A generation beside the one that serves: compared first, never half-made."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import release_commands
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import staging as module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.archive import Entry
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.complete import is_complete
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import StageError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.layout import Layout
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.records import GenerationRecord
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.staging import Staging
from fake_staging import GENERATION, LAYER, RELEASE, SECRET, SITE_PACKAGES, FakeTransient, blob


def test_first_stage_makes_everything_and_the_second_finds_nothing(
    make: Callable[..., Staging], tmp_path: Path, calls: list[tuple[str, ...]]
) -> None:
    stage = make()
    before = stage.compare()
    assert before["missing"] == ["layer", "release", "generation", "validation"]
    stage.apply(before["missing"])

    home = tmp_path / "srv" / "forge"
    environment = home / "generations" / GENERATION / "environment"
    assert environment.read_text() == f'FORGE_SECRET_KEY="{SECRET}"\n'
    assert environment.stat().st_mode & 0o777 == 0o640
    assert (home / "releases" / RELEASE / "shop" / "main.py").read_text() == "app = None\n"
    assert os.listdir(home / "releases" / RELEASE / "shop" / "__pycache__")
    assert (home / "layers" / LAYER / "bin" / "python").exists()
    assert sorted(os.listdir(home)) == ["generations", "layers", "locks", "project.json", "releases"]
    assert os.stat(home / "locks").st_mode & 0o777 == 0o700
    assert sorted(os.listdir(tmp_path / "units")) == ["forge.socket", f"forge@{GENERATION}.service"]
    record = stage.layout.read_record(GENERATION)
    assert record == GenerationRecord(release=RELEASE, state="validated", workers=3, drains=True)
    assert not stage.layout.live()
    assert [call for call in calls if call[0] != "show"] == [("daemon-reload",)]

    again = make().compare()
    assert (again["missing"], again["drifted"]) == ([], [])
    assert [argv[:3] for argv in FakeTransient.asked] == [["python", "-", "shop.main:app"]]


def test_who_built_a_generation_is_recorded_and_another_builder_is_no_change(make: Callable[..., Staging]) -> None:
    record = {"release": RELEASE, "workers": 3}
    first = make(record={**record, "builder": "me@here"})
    first.apply(first.compare()["missing"])
    assert first.layout.read_record(GENERATION).builder == "me@here"
    assert "generation" not in make(record={**record, "builder": "you@there"}).compare()["missing"]
    assert "generation" in make(record={**record, "workers": 4}).compare()["missing"]


@pytest.mark.parametrize("change", ["content", "mode", "owner", "gone"])
def test_file_that_drifted_is_found_and_repaired(make: Callable[..., Staging], change: str) -> None:
    make().apply(["layer", "release", "generation"])
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
    make: Callable[..., Staging], tmp_path: Path
) -> None:
    shared = tmp_path / "units" / "forge.socket"
    stage = make()
    shared.write_text("[Socket]\n# of the live generation\n")
    home = tmp_path / "srv" / "forge"
    home.mkdir(parents=True)
    (home / "current").symlink_to("generations/ffffffffffff-ffffffff")
    stage.apply(["layer", "release", "generation"])
    assert "of the live generation" in shared.read_text()
    (home / "current").unlink()
    (home / "current").symlink_to(f"generations/{GENERATION}")
    assert make().differing() == ([], [str(shared)])


@pytest.mark.parametrize("fails", ["extract", "rename", "mark"])
@pytest.mark.parametrize("there", [False, True])
def test_release_that_was_cut_off_is_never_complete_and_is_made_again(
    make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch, fails: str, there: bool
) -> None:
    stage = make()
    final = Path(stage.layout.release(RELEASE))
    stage.apply(["layer", "generation"])
    if there:
        final.mkdir()
        (final / "half.py").write_text("")

    def die(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if fails == "extract":
            patch.setattr(tarfile.TarFile, "extract", die)
        elif fails == "rename":
            patch.setattr(module.os, "rename", die)
        else:
            patch.setattr(module, "mark_complete", die)
        with pytest.raises(KeyboardInterrupt):
            stage.install_release()
    assert not is_complete(str(final))
    assert "release" in make().compare()["missing"]
    make().apply(["release"])
    assert is_complete(str(final))
    assert sorted(os.listdir(final)) == [".complete", "shop"]
    assert os.listdir(final.parent) == [RELEASE]


@pytest.mark.parametrize("where", ["inline", "remote"])
def test_upload_that_arrived_damaged_is_not_used(make: Callable[..., Staging], tmp_path: Path, where: str) -> None:
    stage = make()
    upload = stage.params["blobs"]["release"]
    damaged = base64.b64decode(upload["inline"])[:-1]
    if where == "inline":
        upload["inline"] = base64.b64encode(damaged).decode()
    else:
        del upload["inline"]
        upload["remote"] = str(tmp_path / "upload")
        (tmp_path / "upload").write_bytes(damaged)
    with pytest.raises(StageError, match="The release arrived damaged"):
        stage.apply(["layer", "release"])
    assert not os.path.exists(stage.layout.release(RELEASE))


def test_full_disk_is_told_before_anything_is_written(
    make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make()
    stage.params["blobs"]["layer"]["size"] = 100 << 20
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: SimpleNamespace(free=300 << 20))
    with pytest.raises(StageError, match="has 300 MiB free and this release needs 616 MiB"):
        stage.apply(["layer"])
    assert os.listdir(stage.layout.layers) == []
    stage.check_room(["release"])


def test_second_deploy_at_the_same_time_is_refused(make: Callable[..., Staging]) -> None:
    stage = make()
    os.makedirs(stage.layout.locks)
    with open(stage.layout.kernel_lock("stage"), "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StageError, match="Another deploy is staging forge on this host right now"):
            stage.apply(["generation"])
    assert not os.path.exists(stage.home)


def test_generation_that_failed_is_validated_again_and_a_good_one_is_not(make: Callable[..., Staging]) -> None:
    make().apply(make().compare()["missing"])
    record = Path(make().layout.record(GENERATION))
    for state, missing in (("bad", ["validation"]), ("good", []), ("left", []), ("validated", [])):
        record.write_text(json.dumps({**json.loads(record.read_text()), "state": state}))
        assert make().compare()["missing"] == missing


def serve(stage: Staging) -> None:
    stage.apply(stage.compare()["missing"])
    os.symlink(os.path.join("generations", stage.generation), stage.layout.current)


def changes(stage: Staging) -> dict[str, tuple[str, str]]:
    """Name of a file to its lines that differ, as ``--diff`` would show them."""
    return {os.path.relpath(diff["after_header"], stage.home): (diff["before"], diff["after"]) for diff in stage.diff()}


def test_diff_on_a_new_host_is_the_names_of_files(make: Callable[..., Staging]) -> None:
    (diff,) = make().diff()
    assert SECRET not in json.dumps(diff)
    names = {os.path.basename(line) for line in diff["after"].splitlines()}
    assert names == {"environment", "gunicorn.conf.py", "forge.socket", f"forge@{GENERATION}.service"}


def test_diff_is_what_differs_from_what_serves_and_nothing_else(make: Callable[..., Staging]) -> None:
    unit = "[Service]\nEnvironment=FORGE_RELEASE={release}\n"
    old = {"units": {"forge@.service": unit.format(release=RELEASE)}}
    serve(make(**old, record={"release": RELEASE, "layer": LAYER, "workers": 3}))

    release = "fedcba987654"
    new = {"units": {"forge@.service": unit.format(release=release)}, "generation": f"{release}-01234567"}
    record = {"release": release, "layer": LAYER, "workers": 3}
    code = make(**new, release=release, record=record)
    (name, (before, after)) = changes(code).popitem()
    assert changes(code).keys() == {"release.json"}
    assert (name, set(after.splitlines()) - set(before.splitlines())) == ("release.json", {f"release: {release}"})

    word = make(
        **old,
        generation=f"{RELEASE}-fedcba98",
        record={**record, "release": RELEASE},
        files={"gunicorn.conf.py": "workers = 4\n"},
    )
    assert changes(word) == {"gunicorn.conf.py": ("workers = 3\n", "workers = 4\n")}


def test_diff_shows_commands_and_paths_and_not_what_they_have_made(make: Callable[..., Staging]) -> None:
    record = {"release": RELEASE, "layer": LAYER}
    serve(make(record=record))
    made = Path(make().layout.made(GENERATION), "static")
    made.mkdir(parents=True)
    (made / "a.css").write_text("blue")
    new = make(
        generation=f"{RELEASE}-fedcba98",
        record={**record, "release_commands": ["collect --all", "index"], "release_paths": ["static"]},
    )
    (_name, (before, after)) = changes(new).popitem()
    assert changes(new).keys() == {"release.json"}
    assert set(after.splitlines()) - set(before.splitlines()) == {
        "release_commands: collect --all, index",
        "release_paths: static",
    }


class FakeCommands(FakeTransient):
    """Commands of the release: each writes its name, unless it is to fail."""

    def __init__(self, layout: Layout, generation: str, writable: str) -> None:
        super().__init__(layout, generation)
        self.layout, self.generation, self.secrets, self.writable = layout, generation, [], Path(writable)

    def run(
        self, argv: list[str], timeout: int, script: str = "", environment: object = None
    ) -> tuple[int, str, float]:
        self.asked.append(argv)
        (self.writable / "static" / argv[-1]).write_text("")
        return int(argv[0] == "fail"), "RuntimeError: no database\n", 0.1


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr(release_commands, "Transient", FakeCommands)
    monkeypatch.setattr(release_commands, "owner", lambda _transient: (0, 0))
    monkeypatch.setattr(release_commands.os, "lchown", lambda *_arguments: None)
    return {"release": RELEASE, "release_commands": ["collect a", "index b"], "release_paths": ["static"]}


def test_commands_run_once_before_the_code_is_loaded(make: Callable[..., Staging], record: dict[str, object]) -> None:
    stage = make(record=record)
    missing = stage.compare()["missing"]
    assert missing == ["layer", "release", "generation", "commands", "validation"]
    stage.apply(missing)
    assert [argv[0] for argv in FakeTransient.asked] == ["collect", "index", "python"]
    assert sorted(os.listdir(os.path.join(stage.layout.made(GENERATION), "static"))) == ["a", "b"]
    assert os.listdir(os.path.join(stage.layout.release(RELEASE), "static")) == []
    assert is_complete(stage.layout.release(RELEASE))
    again = make(record=record)
    assert again.compare()["missing"] == []
    Path(stage.layout.made(GENERATION), "static", "a").write_text("by hand")
    assert again.compare()["missing"] == ["commands", "validation"]
    again.apply(["commands", "validation"])
    assert again.compare()["missing"] == []


def test_command_that_fails_leaves_the_code_unloaded_and_runs_again(
    make: Callable[..., Staging], record: dict[str, object]
) -> None:
    stage = make(record={**record, "release_commands": ["collect a", "fail b"]})
    with pytest.raises(
        StageError, match=r"^forge_release_commands: 'fail b' failed with exit code 1: RuntimeError: no database\. What"
    ):
        stage.apply(stage.compare()["missing"])
    assert [argv[0] for argv in FakeTransient.asked] == ["collect", "fail"]
    assert make(record={**record, "release_commands": ["collect a", "fail b"]}).compare()["missing"] == [
        "commands",
        "validation",
    ]


def test_what_the_host_lacks_is_said_before_a_command_runs(
    make: Callable[..., Staging], record: dict[str, object]
) -> None:
    stage = make(record=record, units={"forge@.service": "[Service]\nReadWritePaths=/no/such/place\n"})
    with pytest.raises(StageError, match="forge_writable_paths: /no/such/place is not on this host"):
        stage.apply(stage.compare()["missing"])
    assert FakeTransient.asked == []


def test_diff_says_which_settings_change_and_no_value(make: Callable[..., Staging]) -> None:
    secret_files = {"files/settings.toml": f'key = "{SECRET}"\n', "files/gone.toml": SECRET}
    environment = f'FORGE_GONE="{SECRET}"\nFORGE_SAME="{SECRET}"\nFORGE_SECRET_KEY="{SECRET}"\n'
    serve(make(environment=environment, secret_files=secret_files))
    new = make(
        generation="fedcba987654-01234567",
        environment=f'FORGE_NEW="{SECRET}"\nFORGE_SAME="{SECRET}"\nFORGE_SECRET_KEY="{SECRET}2"\n',
        secret_files={"files/settings.toml": f'key = "{SECRET}2"\n'},
    )
    assert SECRET not in json.dumps(new.diff())
    assert changes(new) == {
        "environment": (
            "FORGE_GONE=(not shown)\nFORGE_SAME=(not shown)\nFORGE_SECRET_KEY=(not shown)\n",
            "FORGE_NEW=(not shown)\nFORGE_SAME=(not shown)\nFORGE_SECRET_KEY=(not shown, changed)\n",
        ),
        "files/settings.toml": ("(not shown)\n", "(not shown, changed)\n"),
        "files/gone.toml": ("(not shown)\n", ""),
    }


def test_diff_shows_what_somebody_has_edited(make: Callable[..., Staging], tmp_path: Path) -> None:
    serve(make())
    assert make().diff() == []
    (tmp_path / "units" / "forge.socket").write_text("[Socket]\nBacklog=1\n")
    Path(make().home, "gunicorn.conf.py").write_text("workers = 9\n")
    edited = sorted((diff["before"], diff["after"]) for diff in make().diff())
    assert edited == [("[Socket]\nBacklog=1\n", "[Socket]\n"), ("workers = 9\n", "workers = 3\n")]


def test_left_over_of_a_killed_deploy_is_cleared(make: Callable[..., Staging]) -> None:
    stage = make()
    for directory in (stage.layout.layers, stage.layout.releases):
        os.makedirs(os.path.join(directory, ".incoming-x", "deep"))
    stage.apply(["generation"])
    assert os.listdir(stage.layout.releases) == os.listdir(stage.layout.layers) == []


def test_settings_files_are_for_the_service_alone_and_never_shown(make: Callable[..., Staging]) -> None:
    stage = make(secret_files={"files/settings.toml": f'key = "{SECRET}"\n'})
    stage.apply(stage.compare()["missing"])
    path = Path(stage.home) / "files" / "settings.toml"
    assert path.read_text() == f'key = "{SECRET}"\n'
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.parent.stat().st_mode & 0o777 == 0o755


def test_units_of_processes_belong_to_the_generation(make: Callable[..., Staging], tmp_path: Path) -> None:
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


def test_layer_is_an_environment_of_its_own(make: Callable[..., Staging]) -> None:
    stage = make()
    stage.apply(["layer"])
    layer = Path(stage.layout.layer(LAYER))
    ran = subprocess.run([layer / "bin" / "tool"], capture_output=True, text=True, check=True, cwd="/")
    assert ran.stdout.split() == [str(layer), str(layer / SITE_PACKAGES / "dependency.py")]
    assert (layer / "bin" / "tool").stat().st_mode & 0o777 == 0o755
    assert (layer / "bin" / "native").read_text() == "#!python is not all of this line\n"
    assert len(os.listdir(layer / SITE_PACKAGES / "__pycache__")) == 1, "what is no Python is left out"
    settings = dict(line.split(" = ") for line in (layer / "pyvenv.cfg").read_text().splitlines())
    assert settings["include-system-site-packages"] == "false"
    assert settings["version"] == ".".join(map(str, sys.version_info[:3]))
    assert settings["home"] == os.path.dirname(sys.executable)
    assert is_complete(str(layer))
    assert os.listdir(stage.layout.layers) == [LAYER]


def test_a_layer_of_an_earlier_version_that_finds_no_release_is_made_anew(make: Callable[..., Staging]) -> None:
    stage = make()
    stage.apply(["layer"])
    layer = Path(stage.layout.layer(LAYER))
    (layer / SITE_PACKAGES / "forge.pth").unlink()
    module.mark_complete(str(layer))
    assert "layer" in make().compare()["missing"]
    make().apply(["layer"])
    assert "layer" not in make().compare()["missing"]


@pytest.mark.parametrize("fails", ["unpack", "environment", "rename", "mark"])
def test_broken_layer_that_serves_comes_back_when_the_new_one_fails(
    make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    stage = make()
    final = Path(stage.layout.layer(LAYER))
    final.mkdir(parents=True)
    (final / "serves.py").write_text("")

    def fail(*_arguments: object) -> None:
        raise OSError(5, "Input/output error")

    rename = os.rename
    if fails == "unpack":
        monkeypatch.setattr(module, "unpack", fail)
    elif fails == "environment":
        monkeypatch.setattr(module, "make_environment", fail)
    elif fails == "rename":
        monkeypatch.setattr(
            module.os,
            "rename",
            lambda old, new: fail() if new == str(final) and "retired" not in old else rename(old, new),
        )
    else:
        monkeypatch.setattr(module, "mark_complete", fail)
    with pytest.raises(OSError, match="Input/output"):
        stage.apply(["layer"])
    assert os.listdir(final) == ["serves.py"]
    assert os.listdir(final.parent) == [LAYER]


def test_python_that_does_not_run_is_told_and_leaves_nothing(make: Callable[..., Staging], tmp_path: Path) -> None:
    broken = tmp_path / "python3.9"
    broken.write_text("#!/bin/sh\necho libpython is gone >&2; exit 127\n")
    broken.chmod(0o755)
    stage = make(python=str(broken))
    with pytest.raises(
        StageError, match=f"^Layer {LAYER} cannot be installed: {broken} does not run: libpython is gone"
    ):
        stage.apply(["layer"])
    assert os.listdir(stage.layout.layers) == []


def test_archive_that_leads_out_is_refused(make: Callable[..., Staging], tmp_path: Path) -> None:
    stage = make(blobs={"layer": blob(Entry("../../../../escaped", b"x"))})
    with pytest.raises(StageError, match=r"^The layer cannot be unpacked: .*escaped.* Build it again\.$"):
        stage.apply(["layer"])
    assert not (tmp_path / "escaped").exists()
    assert os.listdir(stage.layout.layers) == []


@pytest.mark.parametrize("record", [{"workers": "3"}, {"colour": "red"}, {"listen": "0.0.0.0:80"}])
def test_record_that_no_host_could_keep_is_refused(make: Callable[..., Staging], record: dict[str, str]) -> None:
    with pytest.raises(StageError, match=f"cannot have {next(iter(record))} as given"):
        make(record=record)


def test_converged_host_is_up_to_date_only_when_nothing_is_missing(
    make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_converged", lambda *_arguments: True)
    assert make().compare()["up_to_date"] is False
    make().apply(make().compare()["missing"])
    found = make().compare()
    assert (found["converged"], found["up_to_date"]) == (True, True)
    (Path(make().home) / "environment").chmod(0o644)
    assert make().compare()["up_to_date"] is False


def test_a_directory_that_others_could_write_to_is_closed(make: Callable[..., Staging]) -> None:
    """Root runs what is there."""
    staging = make()
    staging.apply(staging.compare()["missing"])
    os.chmod(staging.layout.home, 0o777)
    os.chmod(staging.home, 0o775)
    found = staging.compare()
    assert (found["drifted"], found["up_to_date"]) == ([staging.layout.home, staging.home], False)
    staging.apply([])
    assert staging.compare()["drifted"] == []
    assert stat.S_IMODE(os.stat(staging.layout.home).st_mode) == 0o755


def test_twin_that_serves_is_what_is_wanted(make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch) -> None:
    first = make()
    first.apply(first.compare()["missing"])
    twin = f"{GENERATION}-2"
    monkeypatch.setattr(module, "serving_generation", lambda _layout: twin)
    stage = make(record={"release": RELEASE, "workers": 3, "generation": GENERATION})
    assert (stage.generation, stage.wanted["generation"]) == (twin, twin)
    assert [name for name in stage.units if "@" in name] == [f"forge@{twin}.service"]
    assert stage.compare()["missing"] == ["generation", "validation"]


def test_needrestart_is_told_where_it_is_installed(make: Callable[..., Staging], tmp_path: Path) -> None:
    stage = make()
    path = tmp_path / "needrestart" / "forge.conf"
    assert str(path) not in stage.wanted_files()
    path.parent.mkdir()
    stage.apply(stage.compare()["missing"])
    assert path.read_text().splitlines()[-1] == r"$nrconf{override_rc}{qr(^forge[\@.])} = 0;"
    assert make().compare()["drifted"] == []
    path.write_text("# somebody else's\n")
    assert str(path) not in make().wanted_files()
