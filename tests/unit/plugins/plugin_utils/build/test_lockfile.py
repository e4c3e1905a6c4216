"""From a lock to the wheels of one platform, and the sentence when that fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.action.build import platforms_of
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.index import Index, find_uv
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.lockfile import directs_for, requirements_for
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.wheels import explain_pip, pip_target

BOOKWORM = Platform("3.11.2", "x86_64", "2.36", ("web1", "web2"))
TRIXIE = Platform("3.13.5", "aarch64", "2.41", ("web3",))
ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")

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
    assert requirements_for(EXPORTED, BOOKWORM) == (
        f"anyio==4.8.0 \\\n    --hash={ONE}\n"
        f"exceptiongroup==1.2.2 \\\n    --hash={ONE} \\\n    --hash={TWO}\n"
        f"Uvloop==0.21.0 \\\n    --hash={THREE}\n"
    )
    assert requirements_for(EXPORTED, TRIXIE) == f"anyio==4.8.0 \\\n    --hash={ONE}\n"


def test_order_of_the_lock_does_not_matter() -> None:
    lines = [f"a==1 \\\n    --hash={ONE} \\\n    --hash={TWO}\n", f"b==1 \\\n    --hash={ONE}\n"]
    swapped = [lines[1], f"a==1 \\\n    --hash={TWO} \\\n    --hash={ONE}\n"]
    assert requirements_for("".join(lines), BOOKWORM) == requirements_for("".join(swapped), BOOKWORM)


@pytest.mark.parametrize("line", ["idna==3.7", "idna==3.7 ; sys_platform == 'win32'"])
def test_a_release_without_a_hash_is_refused(line: str) -> None:
    with pytest.raises(BuildError, match="The lock has no hash for idna"):
        requirements_for(line + "\n", BOOKWORM)


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
    assert requirements_for(line + "\n", BOOKWORM) == ""
    words, slash, hashes = line.partition(" \\")
    (direct,) = directs_for(f"{words} ; python_version > '3'{slash}{hashes}\n", BOOKWORM)
    assert "shared" in direct.address
    assert direct.hashes == ((ONE,) if hashes else ())
    assert directs_for(f"{words} ; python_version < '3'{slash}{hashes}\n", BOOKWORM) == []


def test_a_line_that_is_no_requirement_is_refused_without_its_secret() -> None:
    with pytest.raises(BuildError, match=r"^The lock holds '!! https://\*\*\*@host', which is no requirement\.$"):
        requirements_for("!! https://me:secret@host\n", BOOKWORM)


def test_tags_are_those_that_the_hosts_libc_can_load_best_first() -> None:
    tags = BOOKWORM.tags()
    assert tags[0] == "manylinux_2_36_x86_64"
    assert "manylinux_2_37_x86_64" not in tags
    assert (
        tags.index("manylinux_2_28_x86_64") < tags.index("manylinux_2_17_x86_64") < tags.index("manylinux2014_x86_64")
    )
    assert tags[-1] == "linux_x86_64"
    assert all(tag.endswith("_aarch64") for tag in TRIXIE.tags())


@pytest.mark.parametrize(
    ("platform", "wheels", "best"),
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
def test_of_a_releases_wheels_the_one_that_fits_best_is_taken(
    platform: Platform, wheels: list[str], best: int | None
) -> None:
    for order in (wheels, wheels[::-1]):
        assert platform.best(order) == (None if best is None else wheels[best])
    assert [platform.takes(wheel) for wheel in wheels].count(True) >= (best is not None)


def test_a_wheel_with_the_bare_tag_runs_where_its_glibc_does() -> None:
    wheel = "a-1-cp311-cp311-linux_x86_64.whl"
    for glibc, runs in (("2.31", True), ("2.36", True), ("2.41", False)):
        assert BOOKWORM.takes(wheel, Platform("3.11.9", "x86_64", glibc)) is runs
    assert not BOOKWORM.takes(wheel)


def test_pip_is_asked_for_the_hosts_platform_and_not_the_controllers() -> None:
    options = pip_target(TRIXIE)
    assert options[options.index("--python-version") + 1] == "3.13"
    assert [options[n + 1] for n, option in enumerate(options) if option == "--abi"] == ["cp313", "abi3", "none"]
    assert "manylinux_2_41_aarch64" in options


def test_hosts_that_differ_in_what_wheels_see_do_not_share_a_layer() -> None:
    keys = {
        Platform(python, machine, glibc).key
        for python in ("3.11.2", "3.13.5")
        for machine in ("x86_64", "aarch64")
        for glibc in ("2.36", "2.41")
    }
    assert len(keys) == 8
    assert Platform("3.11.2", "x86_64", "2.36").key == Platform("3.11.9", "x86_64", "2.36").key


NONE_TO_FIND = """\
ERROR: Could not find a version that satisfies the requirement uvloop==0.19.0 (from versions: none)
ERROR: No matching distribution found for uvloop==0.19.0
"""
OTHER_HASH = """\
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package versions, \
please update the hashes. Otherwise, examine the package contents carefully; someone may have tampered with them.
    idna==3.7 from https://files.pythonhosted.org/packages/e5/3e/74/idna-3.7-py3-none-any.whl (from -r bad.txt (line 1)):
        Expected sha256 0000000000000000000000000000000000000000000000000000000000000000
             Got        82fee1fc78add43492d3a1898bfa6d8a904cc97d8427f683ed8e798d07761aa0
"""
NO_INDEX = """\
WARNING: Retrying (Retry(total=1, connect=None, read=None, redirect=None, status=None)) after connection broken by \
'NameResolutionError("HTTPSConnection(host='nowhere.invalid', port=443): Failed to resolve 'nowhere.invalid'")': /idna/
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by \
'NameResolutionError("HTTPSConnection(host='nowhere.invalid', port=443): Failed to resolve 'nowhere.invalid'")': /idna/
ERROR: Could not find a version that satisfies the requirement idna==3.7 (from versions: none)
ERROR: No matching distribution found for idna==3.7
"""
ONE_RETRY = NO_INDEX.replace("total=1", "total=4").replace("total=0", "total=3")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            NONE_TO_FIND,
            "There is no wheel of uvloop==0.19.0 for Python 3.11 on x86_64 with glibc 2.36 (web1, web2), "
            "or the index does not have that release.",
        ),
        (OTHER_HASH, "The index serves idna==3.7 with another hash than the lock: not used."),
        (
            NO_INDEX,
            "The package index cannot be reached (forge_build_index_url, forge_build_ca_bundle): NameResolutionError("
            "\"HTTPSConnection(host='nowhere.invalid', port=443): Failed to resolve 'nowhere.invalid'\").",
        ),
        (
            ONE_RETRY,
            "There is no wheel of idna==3.7 for Python 3.11 on x86_64 with glibc 2.36 (web1, web2), "
            "or the index does not have that release.",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
            "Could not download the dependencies for Python 3.11 on x86_64 with glibc 2.36 (web1, web2): "
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
        ),
    ],
)
def test_words_of_pip_become_a_sentence(words: str, sentence: str) -> None:
    assert explain_pip(words, BOOKWORM) == sentence


def test_credentials_of_an_index_travel_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere")
    environment = Index("https://u:s3cret@index.example.org/simple", "/etc/ca.pem").environment()
    assert (
        environment["PIP_INDEX_URL"] == environment["UV_DEFAULT_INDEX"] == "https://u:s3cret@index.example.org/simple"
    )
    assert environment["PIP_CERT"] == environment["SSL_CERT_FILE"] == "/etc/ca.pem"
    assert environment["UV_PYTHON_DOWNLOADS"] == "never"
    assert "VIRTUAL_ENV" not in environment


def test_nothing_given_leaves_the_users_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example.org/simple")
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    environment = Index().environment()
    assert environment["PIP_INDEX_URL"] == "https://mirror.example.org/simple"
    assert "UV_DEFAULT_INDEX" not in environment


def test_uv_is_found_beside_python_or_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(BuildError, match="The controller has no uv"):
        find_uv()
    for place in (tmp_path / "bin" / "uv", tmp_path / "uv"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("#!/bin/sh\n")
        place.chmod(0o755)
        assert find_uv() == os.fspath(place)


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
