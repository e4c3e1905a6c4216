# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is made of, and the program that makes it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private import container_tool
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.container_tool import (
    ContainerTool,
    ContainerToolError,
    cause_of,
    reproducible_archive,
)
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.image import (
    ImageError,
    env_file,
    leaks,
    pointing_to_the_host,
    seconds_of,
    write_context,
    write_private,
)

SECRET = "correct-horse-battery"


def archive(path: Path, **files: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("FORGE_SECRET_KEY", SECRET, f'KEY = "{SECRET}"\n'),
        ("FORGE_DATABASE_URL", f"postgresql://shop:{SECRET}@db/shop", f"# the password is {SECRET}\n"),
        ("FORGE_MAIL", json.dumps({"password": SECRET}), f"PASSWORD={SECRET}"),
    ],
)
def test_a_secret_in_the_code_is_found_and_not_shown(tmp_path: Path, name: str, value: str, text: str) -> None:
    code = archive(tmp_path / "code.tar.gz", settings=text, clean="nothing here")
    found = list(leaks(code, {}, {name: value}, []))
    assert found == [f"settings has the value of {name}"]
    assert SECRET not in found[0]


def test_a_secret_in_what_is_written_for_the_image_is_found(tmp_path: Path) -> None:
    code = archive(tmp_path / "code.tar.gz", clean="nothing here")
    assert list(leaks(code, {"Containerfile": f"ENV X={SECRET}"}, {"API_TOKEN": SECRET}, [])) == [
        "Containerfile has the value of API_TOKEN"
    ]
    assert list(leaks(code, {"x": SECRET}, {}, [f'password = "{SECRET}"\n'])) == ["x has the value of a settings file"]


@pytest.mark.parametrize(("name", "value"), [("SECRET_KEY", "shop"), ("GREETING", "nothing here")])
def test_what_is_no_secret_or_short_may_stand_in_code(tmp_path: Path, name: str, value: str) -> None:
    code = archive(tmp_path / "code.tar.gz", clean=f"nothing here, {value}")
    assert list(leaks(code, {}, {name: value}, [])) == []


def test_the_context_has_what_the_build_and_the_server_import(tmp_path: Path) -> None:
    code, layer = archive(tmp_path / "code.tar.gz"), archive(tmp_path / "layer.tar.gz")
    context = tmp_path / "context"
    context.mkdir()
    code.chmod(0o600)
    write_context(
        context, code, layer, b"{}", {"Containerfile": "FROM x\n", "server/gunicorn.conf.py": "workers = 1\n"}
    )
    assert {path.stat().st_mode & 0o777 for path in context.rglob("*") if path.is_file()} == {0o644}
    assert sorted(str(path.relative_to(context)) for path in context.rglob("*") if path.is_file()) == [
        "Containerfile", "build/forge_layer/__init__.py", "build/forge_layer/command.py", "build/forge_layer/layer.py",
        "layer.tar.gz", "release.tar.gz", "sbom.cdx.json", "server/forge_limits.py", "server/forge_sizing.py",
        "server/gunicorn.conf.py",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "is_local"),
    [
        ("postgresql://shop:x@localhost/shop", True),
        ("redis://127.0.0.1:6379/0", True),
        ("postgresql+asyncpg://shop@[::1]:5432/shop", True),
        ("postgresql://shop:x@db.example.org/localhost", False),
        ("sqlite:///var/lib/shop/db", False),
        ("localhost", False),
        ("http://[broken", False),
    ],
)
def test_a_url_that_in_a_container_is_the_container_itself(value: str, is_local: bool) -> None:
    assert pointing_to_the_host({"FORGE_URL": value}) == (["FORGE_URL"] if is_local else [])


def test_settings_are_written_as_they_are() -> None:
    assert env_file({"FORGE_A": '"x" $HOME # y', "FORGE_B": ""}) == 'FORGE_A="x" $HOME # y\nFORGE_B=\n'
    with pytest.raises(ImageError, match="forge_image_env_file: KEY has several lines"):
        env_file({"KEY": "one\ntwo"})
    with pytest.raises(ImageError, match="DATABASE_URL has the address of the inventory's database"):
        env_file({"DATABASE_URL": "postgresql://not-known-here/app"})


def test_settings_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "settings.env"
    path.write_text("as it was, and longer")
    path.chmod(0o644)
    write_private(path, "A=1\n")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("A=1\n", 0o600)
    with pytest.raises(ImageError, match="cannot be written .No such file or directory.. No image was made"):
        write_private(tmp_path / "none" / "settings.env", "")


def test_the_time_of_an_image_is_that_of_the_commit() -> None:
    assert seconds_of("") == 0
    assert seconds_of("1970-01-01T01:01:40+01:00") == 100


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (
            "STEP 1/2: FROM x\nError: creating build container: x: no such host\n",
            "creating build container: x: no such host",
        ),
        ("error: one\nDone.\n", "one"),
        ("Storing signatures\ndenied: requested access is denied.\n", "denied: requested access is denied"),
        ("", "it does not say why"),
    ],
)
def test_the_cause_is_the_tools_own(output: str, cause: str) -> None:
    assert cause_of(output) == cause


def test_the_first_tool_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"buildah": "/usr/bin/buildah", "docker": "/usr/bin/docker"}
    monkeypatch.setattr(container_tool.shutil, "which", present.get)
    assert ContainerTool.find() == ContainerTool("buildah", "/usr/bin/buildah")
    assert ContainerTool.find("docker") == ContainerTool("docker", "/usr/bin/docker")
    with pytest.raises(ContainerToolError, match="The controller has no podman, which makes images: install one"):
        ContainerTool.find("podman")
    present.clear()
    with pytest.raises(ContainerToolError, match="The controller has none of podman, buildah and docker"):
        ContainerTool.find()


@pytest.mark.parametrize("name", ["podman", "buildah", "docker"])
def test_a_base_is_asked_in_a_build_that_leaves_nothing(tmp_path: Path, name: str) -> None:
    """A program in the tool's place writes down how it was called, runs the image's command here and says an id."""
    fake = tmp_path / name
    fake.write_text(
        "#!/usr/bin/env python3\n"
        "import json, re, subprocess, sys\n"
        "words = sys.argv[1:]\n"
        f"print(words, file=open({str(tmp_path / 'calls')!r}, 'a'))\n"
        "if words[0] == 'build':\n"
        "    open(words[words.index('--iidfile') + 1], 'w').write('sha256:' + 'ab' * 32)\n"
        "    text = open(words[words.index('--file') + 1]).read()\n"
        "    print('STEP 2/2', subprocess.run(json.loads(re.search('RUN (.*)', text)[1]), capture_output=True, text=True).stdout)\n"
    )
    fake.chmod(0o755)
    found = ContainerTool(name, str(fake)).probe("python:3")
    assert found["python"]["version"].startswith("3.")
    assert Path(found["python"]["path"]).is_absolute()
    assert found["machine"]
    assert found["glibc"].startswith("2.")
    build, remove = (tmp_path / "calls").read_text().splitlines()
    assert "--no-cache" in build
    assert ("--timestamp" in build) == (name != "docker")
    assert remove == str(["rmi", "ab" * 32])


def test_a_base_without_python_is_told_what_it_lacks(tmp_path: Path) -> None:
    fake = tmp_path / "podman"
    fake.write_text("#!/bin/sh\necho 'Error: runc: exec: \"python3\": executable file not found in $PATH'\nexit 125\n")
    fake.chmod(0o755)
    with pytest.raises(
        ContainerToolError, match="forge_image_base: alpine cannot be used: .*It needs python3 in its path"
    ):
        ContainerTool("podman", str(fake)).probe("alpine")


def test_what_is_of_the_machine_that_has_built_an_image_is_left_out(tmp_path: Path) -> None:
    def saved(path: Path, here: str) -> Path:
        config = {
            "created": "1970-01-01T00:00:00Z", "container": here, "parent": here, "docker_version": here,
            "config": {"Hostname": here, "Cmd": ["x"], "Labels": {"io.buildah.version": here, "a": "b"}},
            "history": [{"created_by": "COPY x", "comment": f"FROM {here}"}, {"created_by": "ADD y", "comment": "imported"}],
        }  # fmt: skip
        manifest = [{"Config": f"{here}.json", "RepoTags": None, "Layers": ["aa.tar", "bb.tar", "bb.tar"]}]
        return archive(
            path,
            **{
                f"{here}.json": json.dumps(config),
                "aa.tar": "one",
                "bb.tar": "two",
                "manifest.json": json.dumps(manifest),
            },
        )

    built = [saved(tmp_path / here, here) for here in ("here", "there")]
    ids = [reproducible_archive(each, tmp_path / f"{each.name}-named", ["shop:1", "shop:2"]) for each in built]
    assert ids[0] == ids[1]
    with tarfile.open(tmp_path / "here-named") as tar:
        assert tar.getnames() == ["aa.tar", "bb.tar", f"{ids[0]}.json", "manifest.json"]
        config = json.load(tar.extractfile(f"{ids[0]}.json") or io.BytesIO())
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
    assert config["config"] == {"Cmd": ["x"], "Labels": {"a": "b"}}
    assert config["history"] == [{"created_by": "COPY x"}, {"created_by": "ADD y", "comment": "imported"}]
    assert manifest[0]["RepoTags"] == ["shop:1", "shop:2"]


def fake_tool(directory: Path, name: str, *cases: str) -> tuple[ContainerTool, Path]:
    """A program in the tool's place: writes down how it was called, and does what a case of the shell says."""
    calls = directory / "calls"
    fake = directory / name
    fake.write_text(
        f'#!/bin/sh\necho "$*" >>{calls}\ncase "$*" in\n' + "".join(f"{each} ;;\n" for each in cases) + "esac\n"
    )
    fake.chmod(0o755)
    calls.touch()
    return ContainerTool(name, str(fake)), calls


@pytest.mark.parametrize(("name", "frees"), [("podman", "untag shop:2 shop:2"), ("buildah", "rmi shop:2")])
def test_several_platforms_are_under_each_name_whatever_had_it(tmp_path: Path, name: str, frees: str) -> None:
    tool, calls = fake_tool(
        tmp_path, name,
        f'"manifest exists shop:1") ls {tmp_path}/made >/dev/null 2>&1',
        f'"manifest create shop:1") touch {tmp_path}/made',
        '"manifest exists shop:2") exit 1',
        '"manifest exists shop:3") exit 0',
        '"manifest inspect shop:1") echo \'{"manifests": [{"digest": "sha256:aa"}]}\'',
        '*inspect*shop:2) echo cd',
    )  # fmt: skip
    assert re.fullmatch("[0-9a-f]{64}", tool.make_index(["aa", "bb"], ["shop:1", "shop:2", "shop:3"]))
    done = calls.read_text().splitlines()
    assert [each for each in done if re.match("manifest (rm|create)|untag|rmi", each)] == [
        "manifest create shop:1", frees, "manifest create shop:2", "manifest rm shop:3", "manifest create shop:3",
    ]  # fmt: skip
    added = [f"manifest add shop:{number} containers-storage:{image}" for number in (1, 2, 3) for image in ("aa", "bb")]
    assert [each for each in done if each.startswith("manifest add")] == added


@pytest.mark.parametrize(
    ("name", "is_index", "pushed"),
    [
        ("podman", True, "manifest push --all shop:1 docker://shop:1"),
        ("podman", False, "push shop:1"),
        ("docker", False, "push shop:1"),
    ],
)
def test_an_index_is_pushed_with_its_images(tmp_path: Path, name: str, is_index: bool, pushed: str) -> None:
    tool, calls = fake_tool(tmp_path, name, f'"manifest exists"*) exit {int(not is_index)}')
    tool.push("shop:1")
    assert calls.read_text().splitlines()[-1] == pushed


WRONG = '{"path": "/p", "version": "3.13.1", "machine": "x86_64", "libc": ["glibc", "2.41"]}'


@pytest.mark.parametrize(
    ("platform", "case", "sentence"),
    [
        (
            "linux/arm64",
            f"""build*) echo x >$3; echo '{container_tool.PROBE_MARK} {WRONG}'""",
            "forge_image_base: base:1 is not to be had for linux/arm64: what comes is for x86_64.",
        ),
        (
            "linux/arm64",
            "build*) echo 'exec /usr/bin/python3: Exec format error'; exit 1",
            "base:1 for linux/arm64 cannot be used: podman build failed: .* apt install qemu-user-static lets it",
        ),
        ("", "build*) echo 'Error: no such image'; exit 1", "base:1 cannot be used: .*Name one that this machine has"),
    ],
)
def test_a_base_that_is_not_for_the_platform_is_said(tmp_path: Path, platform: str, case: str, sentence: str) -> None:
    tool, _calls = fake_tool(tmp_path, "podman", case)
    with pytest.raises(ContainerToolError, match=sentence):
        tool.probe("base:1", platform)


def test_layers_that_docker_has_made_are_all_of_one_time_and_the_bases_stay(tmp_path: Path) -> None:
    def layer(time: int, text: str) -> bytes:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            entry = tarfile.TarInfo("file")
            entry.size, entry.mtime, entry.pax_headers = (
                len(text),
                time,
                {"mtime": f"{time}.5", "SCHILY.xattr.user.a": "b"},
            )
            tar.addfile(entry, io.BytesIO(text.encode()))
        return made.getvalue()

    def saved(name: str, time: int) -> Path:
        path = tmp_path / name
        parts = {"base": layer(7, "base"), "ours": layer(time, "ours")}
        config = {"config": {}, "history": [], "rootfs": {"diff_ids": ["sha256:base", "sha256:ours"]}}
        texts = {"c": json.dumps(config).encode(), **parts}
        texts["manifest.json"] = json.dumps([{"Config": "c", "RepoTags": None, "Layers": list(parts)}]).encode()
        with tarfile.open(path, "w") as tar:
            for each, content in texts.items():
                entry = tarfile.TarInfo(each)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return path

    named = tmp_path / "named"
    ids = [reproducible_archive(saved(f"at-{time}", time), named, ["shop:1"], 1, 100) for time in (1000, 2000)]
    assert ids[0] == ids[1]
    with tarfile.open(named) as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())[0]
        base, ours = [(tar.extractfile(each) or io.BytesIO()).read() for each in manifest["Layers"]]
        config = json.load(tar.extractfile(manifest["Config"]) or io.BytesIO())
    assert base == layer(7, "base")
    assert config["rootfs"]["diff_ids"] == ["sha256:base", f"sha256:{hashlib.sha256(ours).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(ours)) as tar:
        (entry,) = tar.getmembers()
    assert (entry.mtime, entry.pax_headers) == (100, {"SCHILY.xattr.user.a": "b"})


def test_what_is_imported_in_the_build_of_an_image_is_there() -> None:
    from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.image import IN_BUILD

    sources = Path(__file__).parents[4] / "plugins" / "module_utils" / "_private"
    for name in IN_BUILD:
        imported = re.findall(r"^from \.(\w+) import", (sources / f"{name}.py").read_text(), re.MULTILINE)
        assert set(imported) <= set(IN_BUILD), name
