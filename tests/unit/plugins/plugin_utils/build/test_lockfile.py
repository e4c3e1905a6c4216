# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a lock to the wheels of one platform, and the sentence when that fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build import packaging_library
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.lockfile import SERVERS, add_server, directs_for, pins_for, read_text
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform, platforms_of
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.wheels import other_pythons
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace, find_uv, uv_version


BOOKWORM = Platform("3.11.2", "x86_64", "2.36", ("web1", "web2"))
TRIXIE = Platform("3.13.5", "aarch64", "2.41", ("web3",))
ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")


def lines_for(text: str, platform: Platform) -> str:
    return "".join(map(str, pins_for(text, platform)))


# What `uv export` writes.
EXPORTED = f"""\
# a comment
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash={ONE}
exceptiongroup==1.2.2 ; python_full_version < '3.13' \\
    --hash={TWO} \\
    --hash={ONE}
Uvloop==0.21.0 ; platform_machine == 'x86_64' and platform_python_implementation != 'PyPy' \\
    --hash={THREE}
anyio==4.8.0 \\
    --hash={ONE}
tzdata==2025.1 ; platform_system == 'Windows' or extra == 'tz' \\
    --hash={ONE}
"""


def test_a_platform_gets_the_lines_whose_markers_it_meets_with_their_hashes() -> None:
    assert lines_for(EXPORTED, BOOKWORM) == (
        f"anyio==4.8.0 \\\n    --hash={ONE}\n"
        f"exceptiongroup==1.2.2 \\\n    --hash={ONE} \\\n    --hash={TWO}\n"
        f"Uvloop==0.21.0 \\\n    --hash={THREE}\n"
    )
    assert lines_for(EXPORTED, TRIXIE) == f"anyio==4.8.0 \\\n    --hash={ONE}\n"


def test_order_of_the_lock_does_not_matter() -> None:
    lines = [f"a==1 \\\n    --hash={ONE} \\\n    --hash={TWO}\n", f"b==1 \\\n    --hash={ONE}\n"]
    swapped = [lines[1], f"a==1 \\\n    --hash={TWO} \\\n    --hash={ONE}\n"]
    assert lines_for("".join(lines), BOOKWORM) == lines_for("".join(swapped), BOOKWORM)


@pytest.mark.parametrize("line", ["idna==3.7", "idna==3.7 ; sys_platform == 'win32'"])
def test_a_release_without_a_hash_is_refused(line: str) -> None:
    with pytest.raises(BuildError, match="The lock has no hash for idna"):
        lines_for(line + "\n", BOOKWORM)


@pytest.mark.parametrize(
    "line",
    [
        "./packages/shared",
        "-e ./packages/shared",
        "shared @ file:///home/me/shared",
        "shared @ git+https://example.org/shared@0123456789012345678901234567890123456789",
        f"shared @ https://example.org/shared-1-py3-none-any.whl \\\n    --hash={ONE}",
        f"https://example.org/shared-1-py3-none-any.whl \\\n    --hash={ONE}",
    ],
)
def test_what_is_no_release_of_an_index_is_told_apart(line: str) -> None:
    assert lines_for(line + "\n", BOOKWORM) == ""
    words, slash, hashes = line.partition(" \\")
    (direct,) = directs_for(f"{words} ; python_version > '3'{slash}{hashes}\n", BOOKWORM)
    assert "shared" in direct.address
    assert direct.hashes == ((ONE,) if hashes else ())
    assert directs_for(f"{words} ; python_version < '3'{slash}{hashes}\n", BOOKWORM) == []


def test_a_line_that_is_no_requirement_is_refused_without_its_secret() -> None:
    with pytest.raises(BuildError, match=r"^The lock holds '!! https://\*\*\*@host', which is no requirement\.$"):
        lines_for("!! https://me:secret@host\n", BOOKWORM)


def test_uv_is_asked_for_the_hosts_platform_and_not_the_controllers() -> None:
    assert BOOKWORM.uv_options() == ["--python-platform", "x86_64-manylinux_2_36", "--python-version", "3.11"]
    assert TRIXIE.uv_options() == ["--python-platform", "aarch64-manylinux_2_40", "--python-version", "3.13"]
    with pytest.raises(BuildError, match=r"^Python 3\.11 on riscv64 .*: layers are built for x86_64 and aarch64 only"):
        Platform("3.11.2", "riscv64", "2.36").uv_options()


@pytest.mark.parametrize(
    ("platform", "wheels", "taken"),
    [
        (BOOKWORM, ["a-1-py3-none-any.whl", "a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"], 1),
        (BOOKWORM, ["a-1-cp311-cp311-manylinux_2_17_x86_64.whl", "a-1-cp311-cp311-manylinux_2_28_x86_64.whl"], 1),
        (BOOKWORM, ["a-1-cp39-abi3-manylinux_2_28_x86_64.whl", "a-1-cp311-cp311-manylinux_2_17_x86_64.whl"], 1),
        (BOOKWORM, ["a-1-cp38-abi3-manylinux_2_17_x86_64.whl", "a-1-cp39-abi3-manylinux_2_17_x86_64.whl"], 1),
        (BOOKWORM, ["a-1-py3-none-any.whl", "a-1-py2.py3-none-manylinux1_x86_64.whl", "a-1-cp36-none-any.whl"], 1),
        (TRIXIE, ["a-1-cp313-cp313-manylinux_2_41_x86_64.whl", "a-1-cp311-abi3-manylinux_2_41_aarch64.whl"], 1),
        (BOOKWORM, ["a-1-cp311-cp311-manylinux_2_37_x86_64.whl", "a-1-cp312-abi3-manylinux_2_17_x86_64.whl"], None),
        (BOOKWORM, ["a-1-cp311-cp311-linux_x86_64.whl", "a-1-cp311-cp311-musllinux_1_2_x86_64.whl"], None),
        (BOOKWORM, ["a-1.zip", "a.whl", "a-1-cp311-cp311-win_amd64.whl", "a-1-cp311-cp311t-manylinux_2_17_x86_64.whl"], None),
    ],
)  # fmt: skip
def test_a_wheel_is_taken_where_its_tags_fit(platform: Platform, wheels: list[str], taken: int | None) -> None:
    fitting = [platform.takes(wheel) for wheel in wheels]
    assert not any(fitting) if taken is None else fitting[taken]


def test_a_wheel_with_the_bare_tag_runs_where_its_glibc_does() -> None:
    wheel = "a-1-cp311-cp311-linux_x86_64.whl"
    for glibc, runs in (("2.31", True), ("2.36", True), ("2.41", False)):
        assert BOOKWORM.takes(wheel, Platform("3.11.9", "x86_64", glibc)) is runs
    assert not BOOKWORM.takes(wheel)


def test_credentials_of_an_index_travel_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere")
    url = "https://u:s3cret@index.example.org/simple"
    environment = Workspace(Path("/cache"), url, "/etc/ca.pem").environment()
    assert environment["UV_DEFAULT_INDEX"] == url
    assert environment["SSL_CERT_FILE"] == environment["GIT_SSL_CAINFO"] == "/etc/ca.pem"
    assert environment["UV_PYTHON_DOWNLOADS"] == "never"
    assert "VIRTUAL_ENV" not in environment


def test_nothing_given_leaves_the_users_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mirror.example.org/simple")
    assert Workspace(Path("/cache")).environment()["UV_DEFAULT_INDEX"] == "https://mirror.example.org/simple"
    monkeypatch.delenv("UV_DEFAULT_INDEX")
    assert "UV_DEFAULT_INDEX" not in Workspace(Path("/cache")).environment()


def test_uv_is_found_next_to_python_or_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(BuildError, match=r"^The controller has no uv, and \S+ or newer is needed: .*pip install"):
        find_uv()
    for place in (tmp_path / "bin" / "uv", tmp_path / "uv"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("#!/bin/sh\necho uv 0.13.1\n")
        place.chmod(0o755)
        assert find_uv() == os.fspath(place)


@pytest.mark.parametrize(
    ("command", "version"), [("echo uv 0.4.30 (x 2024)", "0.4.30"), ("echo nonsense", "0.0"), ("exit 3", "0.0")]
)
def test_an_old_uv_is_told_which_version_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, version: str
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "uv").write_text(f"#!/bin/sh\n{command.replace('(', '').replace(')', '')}\n")
    (tmp_path / "uv").chmod(0o755)
    assert uv_version(str(tmp_path / "uv")) == version
    with pytest.raises(BuildError, match=rf"is {version}, and \S+ or newer is needed: install it beside Ansible \(.*--upgrade uv\)"):
        find_uv()


def test_a_packaging_library_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging_library, "PROBLEM", "No module named 'distutils'")
    with pytest.raises(BuildError, match=r"cannot import packaging \(No module named 'distutils'\): .*--upgrade packaging"):
        Workspace.from_arguments({"cache": "x", "index_url": "", "extra_index_urls": [], "proxy": "", "ca_bundle": ""})


@pytest.mark.parametrize(
    ("encoding", "sentence"),
    [("utf-16", "is UTF-16, as PowerShell writes it"), ("utf-16-le", "is UTF-16"), ("latin-1", r"is not UTF-8 \(line 2\)")],
)
def test_a_file_that_is_not_utf8_is_named(tmp_path: Path, encoding: str, sentence: str) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes(f"idna\n{'# Abhängig' if encoding == 'latin-1' else ''}\n".encode(encoding))
    with pytest.raises(BuildError, match=rf"^forge_source: .*/requirements\.txt {sentence}.*: save it as UTF-8\.$"):
        read_text(path)


def host(python: str = "3.11.2", glibc: str = "2.36", machine: str = "x86_64") -> dict[str, object]:
    return {"python": {"version": python}, "glibc": glibc, "machine": machine}


def test_hosts_are_grouped_by_platform() -> None:
    platforms = platforms_of({"b": host(), "a": host(), "c": host(python="3.13.5")})
    assert [(platform.key, platform.hosts) for platform in platforms] == [
        ("py3.11-x86_64-glibc2.36", ("a", "b")),
        ("py3.13-x86_64-glibc2.36", ("c",)),
    ]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (host(python=""), "web9 does not have the interpreter that forge_python names"),
        (host(glibc=""), "web9 does not use glibc"),
    ],
)
def test_a_host_that_cannot_be_built_for_is_named(bad: dict[str, object], sentence: str) -> None:
    with pytest.raises(BuildError, match=sentence):
        platforms_of({"web1": host(), "web9": bad})


def test_wheels_for_other_versions_of_python_are_named_with_the_variable() -> None:
    wheels = [f"jiter-0.5.0-cp3{minor}-cp3{minor}-manylinux_2_17_x86_64.whl" for minor in (10, 12)]
    said = other_pythons([*wheels, "jiter-0.5.0-cp313-cp313-manylinux_2_17_aarch64.whl"], BOOKWORM)
    assert said.startswith("There are wheels for Python 3.10, 3.12: set forge_python to one of those")
    assert other_pythons([], BOOKWORM) == ""


def locked(**versions: str) -> str:
    return "".join(f"{name.replace('_', '-')}=={version} --hash={ONE}\n" for name, version in versions.items())


@pytest.mark.parametrize(
    ("server", "versions", "sentence"),
    [
        ("gunicorn", {"gunicorn": "20.0.4", "uvicorn": "0.30.0", "setuptools": "75.8"}, "gunicorn needs gunicorn 20.1 or newer, .* has 20.0.4"),
        ("gunicorn", {"gunicorn": "23", "uvicorn": "0.18.3"}, "gunicorn needs uvicorn 0.22 or newer, the app's lock has 0.18.3: lock"),
        ("gunicorn", {"gunicorn": "23", "uvicorn_worker": "0.0.1", "uvicorn": "0.30"}, "needs uvicorn-worker 0.1 or newer"),
        ("uvicorn", {"uvicorn": "0.21.1"}, "uvicorn needs uvicorn 0.22 or newer"),
        ("gunicorn-asgi", {"gunicorn": "23"}, "gunicorn-asgi needs gunicorn 25.1 or newer"),
        ("gunicorn", {"gunicorn": "20.1.0", "uvicorn": "0.30", "uvicorn_worker": "0.2"}, "gunicorn 20.1.0 needs pkg_resources, .* no setuptools"),
        ("gunicorn", {"gunicorn": "20.1.0", "uvicorn": "0.30", "uvicorn_worker": "0.2", "setuptools": "83.0.0"}, "has setuptools 83.0.0: lock"),
    ],
)  # fmt: skip
def test_a_server_that_is_too_old_is_refused_with_the_version_that_would_do(
    server: str, versions: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=f"^forge_server: .*{sentence}"):
        add_server(locked(**versions), server, [], [BOOKWORM], Workspace(tmp_path))


def test_the_oldest_servers_that_work_are_taken_as_they_are(tmp_path: Path) -> None:
    versions = {**SERVERS["gunicorn"], "setuptools": "75.8.0"}
    assert add_server(locked(**{name.replace("-", "_"): each for name, each in versions.items()}), "gunicorn", [], [BOOKWORM], Workspace(tmp_path)) is None
