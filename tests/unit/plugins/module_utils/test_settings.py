# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings in a file or sealed, with a systemd-creds that is none."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import masking, once, settings
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import staging as staging_module
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.environment import write_environment
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.errors import StageError
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.staging import Staging
from fake_staging import GENERATION, SECRET, make_staging, without_root

UNIT = (
    "[Service]\nEnvironmentFile=/srv/forge/generations/%i/environment\n"
    "LoadCredentialEncrypted=environment:/srv/forge/generations/%i/environment.cred\n"
)
TEXT = write_environment({"TOKEN": SECRET, "LANG": "C.UTF-8", "PYTHONHASHSEED": 0, "Z": "a\nb"})


class Creds:
    """``systemd-creds`` of one host: it seals otherwise each time, and unseals what it has sealed."""

    def __init__(self) -> None:
        self.sealed: dict[bytes, bytes] = {}

    def __call__(self, verb: str, content: bytes) -> Any:
        if verb == "encrypt":
            sealed = f"sealed {len(self.sealed)}".encode()
            self.sealed[sealed] = content
            return SimpleNamespace(returncode=0, stdout=sealed, stderr=b"")
        found = self.sealed.get(content)
        return SimpleNamespace(returncode=0 if found is not None else 1, stdout=found or b"", stderr=b"Bad message")


@pytest.fixture
def creds(monkeypatch: pytest.MonkeyPatch) -> Creds:
    creds = Creds()
    monkeypatch.setattr(settings, "systemd_creds", creds)
    return creds


def test_what_python_cannot_set_stays_in_the_file(creds: Creds, tmp_path: Path) -> None:
    assert settings.parts(TEXT, sealed=False) == {"environment": TEXT}
    files = settings.parts(TEXT, sealed=True)
    assert files["environment"] == 'LANG="C.UTF-8"\nPYTHONHASHSEED="0"\n'
    assert files["environment.cred"] == f'TOKEN="{SECRET}"\nZ="a\nb"\n'
    (tmp_path / "environment").write_text(files["environment"])
    (tmp_path / "environment.cred").write_bytes(settings.seal(files["environment.cred"]))
    assert settings.read_settings(str(tmp_path)) == TEXT
    assert SECRET in masking.secrets_below(str(tmp_path))
    creds.sealed.clear()  # another host
    with pytest.raises(OSError, match="not sealed on this host"):
        settings.read_settings(str(tmp_path))


def test_settings_that_cannot_be_sealed_are_said_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        StageError,
        match=r"^The settings have 1048577 bytes, and a credential can have 1048576: .* forge_secrets: file\. What",
    ):
        settings.seal("x" * (settings.LARGEST + 1))
    failed = SimpleNamespace(returncode=1, stdout=b"", stderr=b"a warning\nNo space left on device.\n")
    monkeypatch.setattr(settings, "systemd_creds", lambda *_arguments: failed)
    with pytest.raises(StageError, match=r"^systemd cannot seal the settings: No space left on device\. What"):
        settings.seal(SECRET)

    def slow(*_arguments: object) -> None:
        raise subprocess.TimeoutExpired("systemd-creds", 60)

    monkeypatch.setattr(settings, "systemd_creds", slow)
    with pytest.raises(StageError, match=r"^systemd cannot seal the settings: Command .* timed out"):
        settings.seal(SECRET)
    with pytest.raises(OSError, match="does not answer"):
        settings.unseal(b"x")


@pytest.mark.parametrize(
    ("program", "printed", "problem"),
    [
        ("/usr/bin/systemd-creds", "works", ""),
        ("/usr/bin/systemd-creds", "", "its services are given none, as in some containers"),
        (None, "works", "its systemd is older than 250"),
    ],
)
def test_whether_a_host_gives_credentials_is_tried(
    monkeypatch: pytest.MonkeyPatch, program: str | None, printed: str, problem: str
) -> None:
    monkeypatch.setattr(settings.shutil, "which", lambda _name: program)
    monkeypatch.setattr(settings, "run", lambda _argv, **_options: SimpleNamespace(stdout=printed))
    assert settings.credentials_problem() == problem


def test_a_command_is_launched_where_settings_are_sealed() -> None:
    assert settings.launched("[Service]\n", ["a", "b"]) == ["a", "b"]
    assert settings.launched(UNIT, ["A=b", "c"]) == ["python", "-m", "forge_credentials", "A=b", "c"]
    unit = 'ExecStart=/usr/bin/env "--" "python" "-m" "forge_credentials" "celery" "worker"\n'
    assert once.commands_in(unit) == [["celery", "worker"]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, creds: Creds) -> Callable[..., Staging]:
    without_root(monkeypatch)
    return lambda: make_staging(tmp_path, units={"forge@.service": UNIT})


def test_what_is_sealed_is_the_same_although_it_comes_out_otherwise(make: Callable[..., Staging], creds: Creds) -> None:
    stage = make()
    stage.apply(stage.compare()["missing"])
    home = Path(stage.home)
    assert (home / "environment").read_text() == ""
    assert (home / "environment.cred").read_bytes() == b"sealed 0"
    assert (home / "environment.cred").stat().st_mode & 0o777 == 0o600
    found = make().compare()
    assert (found["missing"], found["drifted"]) == ([], [])
    creds.sealed.clear()  # as on another host
    found = make().compare()
    assert (found["missing"], found["drifted"]) == (["generation", "validation"], [])
    make().apply(found["missing"])
    assert make().compare()["missing"] == []


def test_a_difference_has_the_names_of_what_is_sealed_and_no_value(
    make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make()
    stage.apply(stage.compare()["missing"])
    stage.layout.point_current(GENERATION)
    monkeypatch.setattr(staging_module, "serving_generation", lambda _layout: GENERATION)
    assert "environment" not in str(make().diff())
    changed = make()
    changed.params["environment"] = write_environment({"OTHER": "new-secret"})
    changed.settings = settings.parts(changed.params["environment"], sealed=True)
    [difference] = [each for each in changed.diff() if each["after_header"].endswith("environment")]
    assert difference["before"] == "FORGE_SECRET_KEY=(not shown)\n"
    assert difference["after"] == "OTHER=(not shown)\n"


def test_layer_of_an_earlier_version_is_made_anew(
    make: Callable[..., Staging], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make()
    stage.apply(stage.compare()["missing"])
    monkeypatch.setattr(staging_module, "sets_settings", lambda _layer: False)
    assert "layer" in make().compare()["missing"]
