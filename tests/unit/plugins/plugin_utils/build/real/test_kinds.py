# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of source, built against an index of our own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.archive import unpack
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.artifact import FORMAT
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.records import BuildRecord
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.app_settings import Checked, check_settings
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.cache import evict, file_digest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.lockfile import (
    Wanted,
    all_hashed,
    is_outdated,
    read_pylock,
    statements,
)
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.project_wheel import commands
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.release import pack
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.source import list_files, open_source
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.wheel_builder import NeedsCompiling, accept_wheel
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace, find_uv
from building import build, installed, layer_file, layer_names
from hypothesis import given
from hypothesis import strategies as st
from package_index import BACKEND, PackageIndex, served, wheel_files

HERE = Platform(Platform.of_controller().python, Platform.of_controller().machine, Platform.of_controller().glibc, ("web1",))
ELSEWHERE = Platform("3.13.5" if HERE.python_version != "3.13" else "3.12.3", HERE.machine, "2.41", ("web2",))
PROJECT = '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = {}\n'
APP = "async def app(scope, receive, send): ...\n"


class World:
    """An index, and places for sources and caches."""

    def __init__(self, root: Path, packages: PackageIndex, url: str) -> None:
        self.root, self.packages, self.url = root, packages, url
        self.index_url = f"{url}/simple"

    def workspace(self, cache: str = "cache") -> Workspace:
        return Workspace(self.root / cache, self.index_url)

    def write(self, name: str, files: dict[str, str]) -> str:
        for path, text in files.items():
            (self.root / name / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name / path).write_text(text)
        return str(self.root / name)

    def build(self, source: str, target: str = "main:app", cache: str = "cache", **options: Any) -> dict[str, Any]:
        platforms = options.pop("platforms", [HERE])
        return build(source, target, platforms, self.workspace(cache), **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    packages = PackageIndex(root / "index")
    for version in ("23.0", "25.0", "26.0"):
        packages.wheel("gunicorn", version)
    for version in ("0.30", "1.0"):
        packages.wheel("uvicorn", version, ["fastloop; extra == 'standard'"])
    packages.wheel("uvicorn-worker", "0.5", ["uvicorn>=0.14", "gunicorn>=20"])
    for name in ("fastloop", "dep"):
        packages.wheel(name, "1.0")
    packages.wheel("dep", "2.0")
    packages.wheel("shop", "1.0", ["dep<2"], **{"shopapp.py": APP})
    packages.wheel("shop", "2.0", ["dep"], **{"shopapp.py": APP})
    packages.sdist("pure", "1.0")
    packages.sdist(
        "native", "1.0", f"cp{HERE.python_version.replace('.', '')}-cp{HERE.python_version.replace('.', '')}-linux_{HERE.machine}"
    )
    with served(root / "index") as url:
        yield World(root, packages, url)


SERVER = {"gunicorn", "uvicorn", "uvicorn-worker"}


def test_requirements_without_hashes_are_locked_once_and_the_user_is_told_where(world: World) -> None:
    source = world.write(
        "plain", {"main.py": APP, "requirements.txt": "-r more/base.txt\n", "more/base.txt": "dep<2  # x\n"}
    )
    made = world.build(source)
    assert installed(made) == {"dep": "1.0", "gunicorn": "26.0", "uvicorn": "1.0", "uvicorn-worker": "0.5"}
    assert made["locks"][0] in made["notes"][0]
    assert "--hash=sha256:" in Path(made["locks"][0]).read_text()
    again = world.build(source)
    assert (again["notes"], again["created"], again["release"]) == ([], [], made["release"])
    (Path(source) / "more" / "base.txt").write_text("dep\n")  # in a file that is only included
    assert installed(world.build(source))["dep"] == "2.0"


def test_requirements_with_hashes_are_the_lock(world: World) -> None:
    value = file_digest(world.root / "index" / "simple" / "dep" / "dep-1.0-py3-none-any.whl")
    source = world.write("hashed", {"main.py": APP, "requirements.txt": f"dep==1.0 \\\n  --hash=sha256:{value}\n"})
    made = world.build(source)
    assert installed(made)["dep"] == "1.0"
    assert made["notes"] == []
    world.write("hashed", {"requirements.txt": f"dep==1.0 --hash=sha256:{'0' * 64}\n"})
    with pytest.raises(BuildError, match=r"could not be installed: .*Hash mismatch for `dep==1\.0`"):
        world.build(source)


def test_hashed_requirements_that_are_not_the_whole_lock_are_refused(world: World) -> None:
    """Nothing resolves them: without this the app would not load on a host."""
    value = file_digest(world.root / "index" / "simple" / "shop" / "shop-1.0-py3-none-any.whl")
    source = world.write("half", {"main.py": APP, "requirements.txt": f"shop==1.0 --hash=sha256:{value}\n"})
    with pytest.raises(BuildError, match=r"half/requirements\.txt has a hash, .* lacks dep, which shop needs: lock them too"):
        world.build(source)


def test_pylock(world: World) -> None:
    value = file_digest(world.root / "index" / "simple" / "dep" / "dep-1.0-py3-none-any.whl")
    lock = (
        'lock-version = "1.0"\ncreated-by = "test"\n[[packages]]\nname = "dep"\nversion = "1.0"\n'
        f'wheels = [{{ url = "x", hashes = {{ sha256 = "{value}" }} }}]\n'
        '[[packages]]\nname = "nowhere"\nversion = "1"\nmarker = "sys_platform == \'win32\'"\n'
        f'wheels = [{{ url = "x", hashes = {{ sha256 = "{value}" }} }}]\n'
    )
    made = world.build(world.write("pylock", {"main.py": APP, "pylock.toml": lock}))
    assert set(installed(made)) == {"dep", *SERVER}
    (world.root / "pylock" / "pylock.toml").write_text('[[packages]]\nname = "x"\nversion = "1"\n')
    with pytest.raises(BuildError, match="x is not a release of a package"):
        world.build(str(world.root / "pylock"))


@given(st.text())
def test_a_pylock_of_any_text_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "pylock.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BuildError, match="cannot be read as a lock"):
        read_pylock(path, Wanted())


def test_pyproject_alone_with_extras_and_pins_of_poetry(world: World) -> None:
    project = PROJECT.format('["dep"]') + '[project.optional-dependencies]\npg = ["fastloop"]\n'
    source = world.write("alone", {"main.py": APP, "pyproject.toml": project})
    assert set(installed(world.build(source))) == {"dep", *SERVER}
    made = world.build(source, extras=["pg"])
    assert installed(made) | {"dep": "2.0", "fastloop": "1.0"} == installed(made)
    world.write("alone", {"poetry.lock": '[[package]]\nname = "dep"\nversion = "1.0"\n'})
    assert installed(world.build(source))["dep"] == "1.0"
    with pytest.raises(BuildError, match=r"alone/poetry\.lock is out of date: it has no fastloop 1\.0\. Run 'poetry lock' there"):
        world.build(source, extras=["pg"])
    world.write("alone", {"pyproject.toml": project.replace('"dep"', '"dep>=2"')})
    with pytest.raises(BuildError, match=r"as \S+/poetry\.lock has them, could not be locked: .* run 'poetry lock' there"):
        world.build(source)


def test_a_member_of_a_workspace_is_exported_from_the_lock_above_it(world: World) -> None:
    root = world.write(
        "workspace",
        {
            "pyproject.toml": '[tool.uv.workspace]\nmembers = ["backend", "other"]\n',
            "backend/pyproject.toml": PROJECT.format('["dep<2"]'),
            "backend/main.py": APP,
            "other/pyproject.toml": PROJECT.format('["fastloop"]').replace("shop", "other"),
            "loose/pyproject.toml": PROJECT.format('["dep"]'),
            "loose/main.py": APP,
        },
    )
    subprocess.run([find_uv(), "lock", "--quiet", "--project", root], check=True, env=world.workspace().environment())
    made = world.build(root, directory="backend")
    assert installed(made).keys() == {"dep", *SERVER}
    assert installed(made)["dep"] == "1.0"
    assert made["notes"] == []
    assert installed(world.build(root, directory="loose"))["dep"] == "2.0"


def test_a_pyproject_that_only_configures_tools_says_nothing_of_dependencies(world: World) -> None:
    source = world.write("tools", {"main.py": APP, "pyproject.toml": "[tool.ruff]\nline-length = 120\n"})
    with pytest.raises(BuildError, match="so nothing says what the app depends on"):
        world.build(source)


def project(name: str, text: str = "", tag: str = "py3-none-any") -> dict[str, str]:
    """A project that builds without any other package."""
    files = wheel_files(name, "3.0", [], tag, {f"{name}_more.py": text})
    return {
        "pyproject.toml": f'[project]\nname = "{name}"\nversion = "3.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": BACKEND.format(name=name, version="3.0", tag=tag, files=files, asks=[], builds=True),
    }


def below(directory: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{directory}/{name}": text for name, text in files.items()}


def repository(world: World, name: str, files: dict[str, str]) -> tuple[str, str]:
    """A git repository, and its commit."""
    path = world.write(name, files)
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-b", "main"], ["add", "."], [*identity, "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", "-C", path, *command], check=True, capture_output=True)
    done = subprocess.run(["git", "-C", path, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return path, done.stdout.strip()


@pytest.mark.parametrize("editable", ["true", "false"])
@pytest.mark.parametrize("where", ["dep", "../beside"])
def test_a_dependency_in_a_directory_is_built_and_its_change_makes_a_new_layer(
    world: World, where: str, editable: str
) -> None:
    """A package of that name on the index would be another one."""
    told = PROJECT.format('["dep"]') + f'[tool.uv.sources]\ndep = {{ path = "{where}", editable = {editable} }}\n'
    name = f"elsewhere{len(where)}{editable}"
    source = world.write(name, {"main.py": APP, "pyproject.toml": told, **below(where, project("dep"))})
    first = world.build(source)
    assert installed(first)["dep"] == "3.0"
    assert world.build(source, cache="another")["hosts"] == world.build(source, cache="another")["hosts"]
    world.write(name, below(where, project("dep", "MORE = 1\n")))
    second = world.build(source)
    assert second["hosts"]["web1"]["layer"] != first["hosts"]["web1"]["layer"]


def test_a_path_that_is_not_there_is_one_sentence(world: World) -> None:
    value = "0" * 64
    source = world.write("nothing", {"main.py": APP, "requirements.txt": f"./gone\ndep==1.0 --hash=sha256:{value}\n"})
    with pytest.raises(BuildError, match=r"there is no .*/gone|Distribution not found at: .*/gone"):
        world.build(source)


def test_the_app_itself_among_its_requirements_is_not_installed_again(world: World) -> None:
    files = project("shop")
    files["pyproject.toml"] = files["pyproject.toml"].replace("[build", 'dependencies = ["dep<2"]\n[build', 1)
    source = world.write("itself", {"main.py": APP, "requirements.txt": "-e .\n", **files})
    assert installed(world.build(source)).keys() == {"dep", *SERVER}


def test_a_dependency_of_git_is_built_from_its_commit(world: World) -> None:
    path, commit = repository(world, "library", below("python", project("dep")))
    asked = f"dep @ git+file://{path}@main#subdirectory=python\n"
    source = world.write("of-git", {"main.py": APP, "requirements.txt": asked})
    made = world.build(source)
    assert installed(made)["dep"] == "3.0"
    assert commit in Path(made["locks"][0]).read_text()
    world.write("library", below("python", project("dep", "MORE = 1\n")))
    assert world.build(source)["hosts"] == made["hosts"], "the lock names the commit"

    locked = asked.replace("@main", f"@{commit}")
    again = world.build(world.write("locked", {"main.py": APP, "requirements.txt": locked}))
    assert again["hosts"]["web1"]["layer"] == made["hosts"]["web1"]["layer"]
    assert again["notes"] == []


def test_a_dependency_at_a_commit_that_only_a_pull_request_holds(world: World) -> None:
    path, main = repository(world, "library-asked", project("dep"))
    (Path(path) / "dep_more.py").write_text("")
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["add", "."], [*identity, "commit", "-m", "x"], ["update-ref", "refs/pull/3/head", "HEAD"]):
        subprocess.run(["git", "-C", path, *command], check=True, capture_output=True)
    done = subprocess.run(["git", "-C", path, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    subprocess.run(["git", "-C", path, "reset", "--hard", main], check=True, capture_output=True)
    commit = done.stdout.strip()
    source = world.write("of-asked", {"main.py": APP, "requirements.txt": f"dep @ git+file://{path}@{commit}\n"})
    assert installed(world.build(source))["dep"] == "3.0"


def test_a_pylock_with_a_commit_a_directory_and_an_archive(world: World) -> None:
    path, commit = repository(world, "library2", project("dep"))
    value = file_digest(world.root / "index" / "simple" / "fastloop" / "fastloop-1.0-py3-none-any.whl")
    url = f"{world.url}/simple/fastloop/fastloop-1.0-py3-none-any.whl"
    lock = f'''
[[packages]]
name = "dep"
vcs = {{ type = "git", url = "file://{path}", commit-id = "COMMIT" }}
[[packages]]
name = "beside"
directory = {{ path = "libs/beside" }}
[[packages]]
name = "fastloop"
archive = {{ url = "{url}", hashes = {{ sha256 = "{value}" }} }}
'''
    files = {"main.py": APP, "pylock.toml": lock.replace("COMMIT", commit), **below("libs/beside", project("beside"))}
    source = world.write("pylock2", files)
    assert installed(world.build(source)) | {"dep": "3.0", "beside": "3.0", "fastloop": "1.0"} == installed(
        world.build(source)
    )
    world.write("pylock2", {"pylock.toml": lock.replace("COMMIT", "main")})
    with pytest.raises(BuildError, match="dep is taken from git at main, which moves: lock a commit"):
        world.build(source)
    world.write("pylock2", {"pylock.toml": lock.replace("COMMIT", commit).replace(value, "0" * 64)})
    with pytest.raises(BuildError, match="fastloop has another hash than the lock says"):
        world.build(source)


def test_a_dependency_of_git_with_compiled_parts_is_for_a_host(world: World) -> None:
    tag = f"cp{ELSEWHERE.python_version.replace('.', '')}-cp{ELSEWHERE.python_version.replace('.', '')}-linux_{ELSEWHERE.machine}"
    path, commit = repository(world, "native-git", project("dep", tag=tag))
    source = world.write("of-native-git", {"main.py": APP, "requirements.txt": f"dep @ git+file://{path}@{commit}\n"})
    with pytest.raises(NeedsCompiling, match=r"^There is no wheel of dep for .*, and one built on the controller") as wanted:
        world.build(source)
    assert (wanted.value.jobs[0].source(world.root / "unpacked-native") / "backend.py").is_file()


@pytest.mark.parametrize("kind", ["uv", "requirements"])
def test_an_index_that_the_project_names_itself_is_asked_with_its_credentials(
    world: World, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    PackageIndex(tmp_path).wheel("inside", "1.0")
    monkeypatch.setenv("UV_INDEX_OUR_OWN_USERNAME", "me")
    monkeypatch.setenv("UV_INDEX_OUR_OWN_PASSWORD", "p@ss")
    with served(tmp_path, login="me:p@ss" if kind == "uv" else "") as url:
        told = PROJECT.format('["inside", "dep"]') + f'[[tool.uv.index]]\nname = "our-own"\nurl = "{url}/simple"\n'
        files = {
            "uv": {"pyproject.toml": told},
            "requirements": {"requirements.txt": f"--extra-index-url {url}/simple\ninside\ndep\n"},
        }[kind]
        made = world.build(world.write(f"own-index-{kind}", {"main.py": APP, **files}))
    assert installed(made)["inside"] == "1.0"
    assert "p@ss" not in Path(made["locks"][0]).read_text()


def test_versions_of_the_app_are_honoured_and_only_what_is_missing_is_added(world: World) -> None:
    source = world.write("pinned", {"main.py": APP, "requirements.txt": "gunicorn==23.0\nuvicorn==0.30\n"})
    made = world.build(source, server_requirements=["gunicorn>25", "uvicorn[standard]", "uvicorn-worker"])
    assert installed(made) == {"gunicorn": "23.0", "uvicorn": "0.30", "uvicorn-worker": "0.5"}
    bare = world.write("bare", {"main.py": APP, "requirements.txt": "dep\n"})
    added = installed(world.build(bare, server_requirements=["gunicorn<26", "uvicorn[standard]"]))
    assert added == {"dep": "2.0", "gunicorn": "25.0", "uvicorn": "1.0", "uvicorn-worker": "0.5", "fastloop": "1.0"}
    assert set(installed(world.build(bare, server="uvicorn"))) == {"dep", "uvicorn"}
    assert set(installed(world.build(bare, server="gunicorn-asgi"))) == {"dep", "gunicorn"}
    with pytest.raises(BuildError, match=r"^forge_server: gunicorn-asgi needs gunicorn 25\.1 or newer, .* has 23\.0: lock "):
        world.build(source, server="gunicorn-asgi")


def test_an_app_that_misses_what_its_release_lacks_is_told_the_variable(world: World) -> None:
    main = "import pathlib\npathlib.Path('web/dist/index.html').read_text()\nfrom tests import fakes\n" + APP
    files = {"main.py": main, "requirements.txt": "dep\n", ".gitignore": "dist/\n", "web/dist/index.html": "x", "tests/fakes.py": ""}
    source = world.write("lacking", files)
    subprocess.run(["git", "init", "-q", source], check=True)

    def told(**options: Any) -> list[str]:
        return check_settings("main:app", world.build(source, **options)["release"], {}, world.workspace()).problems

    assert re.search(r"FileNotFoundError: .*'web/dist/index\.html' .* web/dist/index\.html is in .*forge_source_include", " ".join(told()))
    problems = told(include=["web/dist"], exclude=["tests"])
    assert re.search(r"No module named 'tests' .* tests is in .*forge_source_exclude", " ".join(problems))
    assert told(include=["web/dist"]) == []


def test_an_app_that_needs_what_hosts_make_is_asked_all_the_same(world: World) -> None:
    """Its directory is there, as on a host; what the developer has in it is not."""
    app = "import os\nos.listdir('static')\nopen('static/a.css')\n" + APP
    source = world.write("statics", {"main.py": app, "pyproject.toml": PROJECT.format("[]"), "static/a.css": ""})
    release = world.build(source, exclude=["static"])["release"]
    (problem, advice) = check_settings("main:app", release, {}, world.workspace()).problems
    assert "FileNotFoundError" in problem
    assert advice.startswith(f"static is in {source}, and not in the release: name it in forge_source_include")
    assert check_settings("main:app", release, {}, world.workspace(), ["static"]) == Checked()


def test_a_requirement_is_a_source_and_each_version_a_release(world: World) -> None:
    one = world.build("shop==1.0", "shopapp:app")
    two = world.build("shop==2.0", "shopapp:app")
    assert installed(one)["shop"] == "1.0"
    assert installed(one)["dep"] == "1.0"
    assert one["release"] != two["release"]
    assert Path(one["code"]["path"]).stat().st_size < 1000
    workspace = world.workspace()
    assert check_settings("shopapp:app", one["release"], {}, workspace) == Checked()
    problems = check_settings("shopapp:nothing", one["release"], {}, workspace).problems
    assert problems == ["shopapp has no nothing, which the target shopapp:nothing names."]
    problems = check_settings("shop.nothing:app", one["release"], {}, workspace).problems
    assert "No module named 'shop.nothing'" in problems[0]


@pytest.mark.parametrize(
    ("requirement", "sentence"),
    [
        ("shop==9", r"^forge_source could not be locked: .*there is no version of shop==9"),
        ("nothing-of-that-name", r"^forge_source could not be locked: .*nothing-of-that-name was not found in the package"),
    ],
)
def test_requirement_that_is_not_there(world: World, requirement: str, sentence: str) -> None:
    with pytest.raises(BuildError, match=sentence):
        world.build(requirement, "shopapp:app")


def test_a_wheel_is_a_source(world: World) -> None:
    wheel = world.root / "index" / "simple" / "shop" / "shop-1.0-py3-none-any.whl"
    made = world.build(str(wheel), "shopapp:app")
    assert installed(made)["shop"] == "1.0"
    assert installed(made)["dep"] == "1.0"


def test_a_release_without_a_wheel_is_built_once_and_hashed(world: World) -> None:
    source = world.write("sdist", {"main.py": APP, "requirements.txt": "pure\n"})
    made = world.build(source, platforms=[HERE, ELSEWHERE])
    for host in ("web1", "web2"):
        version = {"web1": HERE, "web2": ELSEWHERE}[host].python_version
        assert f"lib/python{version}/site-packages/pure.py" in layer_names(made, host)
        text = layer_file(made, "requirements.txt", host)
    built = next((world.root / "cache" / "built").glob("*/*/pure-*.whl"))
    assert f"pure==1.0 \\\n    --hash=sha256:{file_digest(built)}" in text
    assert (
        world.build(source, cache="second")["hosts"]["web1"]["blob"]["sha256"]
        == made["hosts"]["web1"]["blob"]["sha256"]
    )


def test_a_compiled_release_is_built_where_it_will_run_and_refused_elsewhere(world: World) -> None:
    source = world.write("native", {"main.py": APP, "requirements.txt": "native\n"})
    assert installed(world.build(source))["native"] == "1.0"
    older = Platform(HERE.python, HERE.machine, "2.17", ("web3",))
    with pytest.raises(BuildError, match=r"^There is no wheel of native==1\.0 for .*web3.*would not run there"):
        world.build(source, platforms=[older])


def test_a_release_with_wheels_for_other_versions_of_python_names_them(world: World) -> None:
    world.packages.sdist("newer", "1.0", builds=False)
    version = {"3.11": "3.12"}.get(HERE.python_version, "3.11")
    tag = version.replace(".", "")
    world.packages.wheel("newer", "1.0", tag=f"cp{tag}-cp{tag}-manylinux_2_17_{HERE.machine}")
    source = world.write("newer", {"main.py": APP, "requirements.txt": "newer\n"})
    with pytest.raises(NeedsCompiling, match=r"no compiler here\. There are wheels for Python ") as caught:
        world.build(source)
    assert f"Python {version}: set forge_python to one of those, or lock a newer version" in caught.value.jobs[0].advice


def test_commands_of_a_build_decide_the_release_and_run_once(world: World) -> None:
    """The wheel of a project that is a package is made with what they make."""
    backend = """
import zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(directory + "/shop-7-py3-none-any.whl", "w") as wheel:
        text = "Metadata-Version: 2.1\\nName: shop\\nVersion: 7\\nSummary: " + open("page.html").read()
        wheel.writestr("shop-7.dist-info/METADATA", text)
    return "shop-7-py3-none-any.whl"
"""
    project = PROJECT.format("[]") + '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    source = world.write("fronted", {"main.py": APP, "pyproject.toml": project, "backend.py": backend})
    subprocess.run([find_uv(), "lock", "--quiet", "--project", source], check=True, env=world.workspace().environment())
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *identity, "-C", source, *command], check=True)
    runs = world.root / "runs"
    commands = [f"sh -c 'echo x >> {runs}; git log --format=%s > page.html'"]
    made = world.build(source, commands=commands)
    with tarfile.open(made["code"]["path"]) as code:
        assert code.extractfile("page.html").read() == b"x\n"  # type: ignore[union-attr]
        assert b"Summary: x" in code.extractfile(".installed/shop-7.dist-info/METADATA").read()  # type: ignore[union-attr]
    again = world.build(source, commands=commands)
    assert (again["release"], again["created"], runs.read_text()) == (made["release"], [], "x\n")
    other = world.build(source, commands=["sh -c 'echo other > page.html'"])
    assert other["release"] != made["release"]
    assert not (Path(source) / "page.html").exists()
    with pytest.raises(BuildError, match=f"forge_target: {source} has no module main, which"):
        world.build(source, commands=["sh -c 'mkdir main; touch main/x page.html; rm main.py'"])


def test_a_project_that_is_a_package_is_completed_with_what_installing_adds(world: World) -> None:
    backend = """
import zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(directory + "/shop-7-py3-none-any.whl", "w") as wheel:
        wheel.write("src/shop/__init__.py", "shop/__init__.py")
        wheel.writestr("shop/_version.py", "version = '7'")
        wheel.writestr("shop-7.dist-info/METADATA", "Metadata-Version: 2.1\\nName: shop\\nVersion: 7\\n")
        wheel.writestr("shop-7.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("shop-7.dist-info/entry_points.txt", "[console_scripts]\\nshop-hello = shop:hello\\n")
        wheel.writestr("shop-7.dist-info/RECORD", "")
    open("left-behind", "w").close()
    return "shop-7-py3-none-any.whl"

def prepare_metadata_for_build_wheel(directory, config_settings=None):
    import os
    os.makedirs(directory + "/shop-7.dist-info")
    with open(directory + "/shop-7.dist-info/METADATA", "w") as handle:
        handle.write("Metadata-Version: 2.1\\nName: shop\\nVersion: 7\\nRequires-Dist: dep\\n")
    return "shop-7.dist-info"
"""
    project = (
        '[project]\nname = "shop"\ndynamic = ["version", "dependencies"]\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    files = {
        "src/shop/__init__.py": APP + "def hello(): print('hello')\n",
        "pyproject.toml": project,
        "backend.py": backend,
    }
    source = world.write("package", files)
    made = world.build(source, "shop:app")
    assert made["import_paths"] == ["src", ".", ".installed"]
    with tarfile.open(made["code"]["path"]) as code:
        names = set(code.getnames())
    unpack(made["code"]["path"], world.root / "unpacked")
    assert {"src/shop/_version.py", ".installed/shop-7.dist-info/METADATA", ".installed/bin/shop-hello"} <= names
    assert not {".installed/shop/__init__.py", "shop/__init__.py", "left-behind"} & names
    assert not (Path(source) / "left-behind").exists()
    unpacked = world.root / "unpacked"
    done = subprocess.run(
        [unpacked / ".installed" / "bin" / "shop-hello"], capture_output=True, text=True,
        env={"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "PYTHONPATH": f"{unpacked}/src:{unpacked}/.installed"},
    )  # fmt: skip
    assert done.stdout == "hello\n", done.stderr
    assert installed(made)["dep"] == "2.0"
    world.write("package", {"src/shop/__init__.py": APP + "x = 1\n"})
    other = world.build(source, "shop:app")
    assert (other["release"] != made["release"], other["hosts"]) == (True, made["hosts"])


def test_what_was_deleted_or_left_out_does_not_come_back_with_the_wheel(world: World) -> None:
    backend = """
import os, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(directory + "/shop-7-py3-none-any.whl", "w") as wheel:
        for name in os.listdir("shop"):
            wheel.write("shop/" + name)
        wheel.writestr("shop-7.dist-info/METADATA", "Metadata-Version: 2.1\\nName: shop\\nVersion: 7\\n")
    return "shop-7-py3-none-any.whl"
"""
    project = PROJECT.format("[]") + '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    names = {f"shop/{name}.py": APP for name in ("__init__", "gone", "unwanted")}
    source = world.write("deleted", {**names, "pyproject.toml": project, "backend.py": backend})
    subprocess.run([find_uv(), "lock", "--quiet", "--project", source], check=True, env=world.workspace().environment())
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *identity, "-C", source, *command], check=True)
    (Path(source) / "shop" / "gone.py").unlink()
    made = world.build(source, "shop:app", exclude=["shop/unwanted.py"])
    with tarfile.open(made["code"]["path"]) as code:
        assert {name for name in code.getnames() if "shop/" in name} == {"shop/__init__.py"}
        assert ".installed/shop-7.dist-info/METADATA" in code.getnames()


@given(st.text())
def test_scripts_of_any_text_stay_in_their_directory(text: str) -> None:
    for name in commands(f"[console_scripts]\nx = a:b\n../../{text.splitlines()[0] if text.split() else ''} = a:b\n"):
        assert name.rpartition("/")[0] == ".installed/bin"


def test_an_artifact_is_the_same_bytes_and_deploys_without_index_and_source(world: World, tmp_path: Path) -> None:
    bill = '{"bomFormat": "CycloneDX"}'
    world.packages.wheel(
        "cyclonedx-bom", "1", **{
            "cyclonedx_bom-1.dist-info/entry_points.txt": "[console_scripts]\ncyclonedx-py = cyclonedx_bom_tool:main\n",
            "cyclonedx_bom_tool.py": f"def main():\n    print({bill!r})\n",
        }
    )  # fmt: skip
    source = world.write("whole", {"main.py": APP, "requirements.txt": "dep\n"})
    for number in ("one", "two"):
        world.build(source, cache=number, artifact=str(tmp_path / f"{number}.tar"), builder="me@here")
    first = world.build(source, cache="one")
    artifact = tmp_path / "one.tar"
    assert artifact.read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(artifact) as opened:
        assert json.load(opened.extractfile("sbom.cdx.json")) == json.loads(bill)  # type: ignore[arg-type]

    nowhere = Workspace(tmp_path / "three", "http://127.0.0.1:9/simple")
    made = build(str(artifact), "main:app", [HERE], nowhere, sha256=file_digest(artifact))
    assert (made["release"], made["builder"]) == (first["release"], "me@here")
    assert made["hosts"]["web1"]["layer"] == first["hosts"]["web1"]["layer"]
    assert made["hosts"]["web1"]["blob"]["sha256"] == first["hosts"]["web1"]["blob"]["sha256"]
    assert check_settings("main:app", made["release"], {}, nowhere) == Checked()

    with pytest.raises(BuildError, match="was not built for Python .*web2"):
        build(str(artifact), "main:app", [ELSEWHERE], nowhere)
    with pytest.raises(BuildError, match="not that of forge_source_sha256: not used"):
        build(str(artifact), "main:app", [HERE], nowhere, sha256="0" * 64)
    with pytest.raises(BuildError, match="set forge_source_sha256"):
        build("https://example.org/shop.tar", "main:app", [HERE], nowhere)
    (world.root / "index" / "shop.tar").write_bytes(artifact.read_bytes())
    served_at = f"{world.url}/shop.tar"
    elsewhere = Workspace(tmp_path / "four", "http://127.0.0.1:9/simple")
    again = build(served_at, "main:app", [HERE], elsewhere, sha256=file_digest(artifact))
    assert again["release"] == first["release"]
    with pytest.raises(BuildError, match="cannot be downloaded"):
        build("http://127.0.0.1:9/shop.tar", "main:app", [HERE], elsewhere, sha256="0" * 64)


@pytest.mark.parametrize("damage", ["cut", "other file", "no archive"])
def test_a_damaged_artifact_is_not_used(world: World, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "shop.tar"
    manifest = BuildRecord(
        "0" * 12, "", False, "", "code.tar.gz", "", ["."], "", [], "", "", [], {}, "", files={"code.tar.gz": "00"}, format=FORMAT
    )
    if damage == "no archive":
        path.write_bytes(b"x" * 2000)
    else:
        with tarfile.open(path, "w") as archive:
            for name, content in (
                ("manifest.json", manifest.to_json()),
                ("code.tar.gz", b"x" * 9999),
            ):
                (tmp_path / name).write_bytes(content)
                archive.add(tmp_path / name, name)
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BuildError, match=r"is not an artifact of this collection|is not what its manifest says"):
        world.build(str(path))
    assert not any((world.root / "cache" / "artifacts").glob("*/manifest.json"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("raise OSError('Readme file does not exist: README.md')", "OSError: Readme file does not exist: README.md"),
        ("", "Because nowhere was not found in the package registry"),
    ],
)
def test_a_project_that_does_not_build_says_its_backends_cause(world: World, change: str, sentence: str) -> None:
    files = project("shop")
    files["backend.py"] = files["backend.py"].replace("    name =", f"    {change}\n    name =") if change else files["backend.py"]
    if not change:
        files["pyproject.toml"] = files["pyproject.toml"].replace("requires = []", 'requires = ["nowhere"]')
    source = world.write(f"does-not-build{len(change)}", {"main.py": APP, "requirements.txt": "dep\n", **files})
    with pytest.raises(BuildError, match=rf"does not build \(\[build-system\] of its pyproject\.toml\): .*{sentence}") as caught:
        world.build(source)
    assert "Building wheel" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_dirty_tree_is_allowed_or_refused(world: World) -> None:
    source = world.write("dirty", {"main.py": APP, "requirements.txt": "dep\n"})
    subprocess.run(["git", "init", "-q", source], check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, "-C", source, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    assert world.build(source)["dirty"]
    with pytest.raises(BuildError, match="has changes that are not committed"):
        world.build(source, dirty=False)


def test_cache_is_bounded_and_what_is_in_use_stays(tmp_path: Path) -> None:
    for number, name in enumerate(("layers/a", "layers/b", "environments/c/x", "releases/d")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
        entry = tmp_path / "/".join(name.split("/")[:2])
        os.utime(entry, (number, number))
    evict(tmp_path, 2500, since=2.5)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == ["environments/c", "releases/d"]
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "e").write_bytes(b"x")
    os.utime(tmp_path / "locks" / "e", (0, 0))
    evict(tmp_path, 0, since=2.5)
    assert (tmp_path / "locks" / "e").is_file()
    (tmp_path / "locks" / "e").unlink()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")) == ["releases/d"]


def test_credentials_of_an_index_are_in_no_file_and_no_message(world: World) -> None:
    secret = "hunter2-hunter2"
    host = world.url.removeprefix("http://")
    source = world.write("secret", {"main.py": APP, "requirements.txt": "dep\n"})
    build(source, "main:app", [HERE], Workspace(world.root / "secretive", f"http://user:{secret}@{host}/simple"))
    for path in (world.root / "secretive").rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    away = Workspace(world.root / "away", f"http://user:{secret}@127.0.0.1:9/simple")
    with pytest.raises(BuildError) as caught:
        build(source, "main:app", [HERE], away)
    assert re.search(r"Connection refused.*\(Package index: http://\*\*\*@127\.0\.0\.1:9/simple\.", str(caught.value))
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "hashed"),
    [
        ("a==1 --hash=sha256:0\n", True),
        ("a==1 \\\n --hash=sha256:0\n# b\n", True),
        ("a==1 --hash=sha256:0\nb==1\n", False),
        ("a==1\n", False),
        ("", False),
        ("-r base.txt\na==1 --hash=sha256:0\n", False),
    ],
)
def test_is_a_requirements_file_a_lock(text: str, hashed: bool) -> None:
    assert all_hashed(text) == hashed


def test_statements_keep_a_fragment_and_drop_a_comment() -> None:
    assert list(statements("a @ https://h/x#egg=a  # why\n\n# all\nb \\\n  ==1\n")) == [
        "a @ https://h/x#egg=a",
        "b    ==1",
    ]


@pytest.mark.parametrize(
    ("requires", "python", "outdated"),
    [
        ("idna==3.7", ">=3.13", False),
        ("idna==3.6", ">=3.13", True),
        ("idna==3.7", ">=3.12", True),
        ("Idna == 3.7", ">=3.13", False),
    ],
)
def test_a_lock_is_compared_with_its_project_without_its_python(
    tmp_path: Path, requires: str, python: str, outdated: bool
) -> None:
    (tmp_path / "uv.lock").write_text(
        'requires-python = ">=3.13"\n[[package]]\nname = "shop"\n[package.metadata]\n'
        'requires-dist = [{ name = "idna", specifier = "==3.7" }]\n'
    )
    project = {"project": {"name": "Shop", "dependencies": [requires], "requires-python": python}}
    assert is_outdated(project, tmp_path / "uv.lock") == outdated


# -- projects with compiled parts --------------------------------------------------------------------

# In place of a compiler: what it makes of native.c for the Python that it runs in.
COMPILED = '''
import io, os, re, sys, sysconfig, tarfile, zipfile

VERSION = re.search("'(.*)'", open("version").read())[1] if os.path.exists("version") else "1"
METADATA = f"Metadata-Version: 2.2\\nName: shop\\nVersion: {VERSION}\\n"
PACKAGES = next(each for each in ("python", "src", ".") if os.path.isdir(f"{each}/shop"))

def build_wheel(directory, config_settings=None, metadata_directory=None):
    if os.environ.get("FORGE_NO_COMPILER"):
        raise OSError("no compiler here")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    tag = f"{python}-{ABI or python}-linux_{os.uname().machine}"
    with zipfile.ZipFile(f"{directory}/shop-{VERSION}-{tag}.whl", "w") as wheel:
        for file in os.listdir(f"{PACKAGES}/shop"):
            if file.endswith(".py"):
                wheel.write(f"{PACKAGES}/shop/{file}", f"shop/{file}")
        suffix = f".{ABI}.so" if ABI else sysconfig.get_config_var("EXT_SUFFIX")
        wheel.writestr(zipfile.ZipInfo(f"shop/fast{suffix}"), b"\\x7fELF" + open("native.c", "rb").read())
        wheel.writestr(zipfile.ZipInfo(f"shop-{VERSION}.dist-info/METADATA"), METADATA)
        wheel.writestr(zipfile.ZipInfo(f"shop-{VERSION}.dist-info/WHEEL"), f"Tag: {tag}\\n")
    return f"shop-{VERSION}-{tag}.whl"

def build_sdist(directory, config_settings=None):
    name = f"shop-{VERSION}"
    with tarfile.open(f"{directory}/{name}.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo(f"{name}/PKG-INFO")
        entry.size = len(METADATA)
        archive.addfile(entry, io.BytesIO(METADATA.encode()))
    return f"{name}.tar.gz"

def prepare_metadata_for_build_wheel(directory, config_settings=None):
    os.makedirs(f"{directory}/shop-{VERSION}.dist-info")
    with open(f"{directory}/shop-{VERSION}.dist-info/METADATA", "w") as handle:
        handle.write(METADATA)
    return f"shop-{VERSION}.dist-info"
'''
OURS = f"cpython-{HERE.python_version.replace('.', '')}-{HERE.machine}-linux-gnu.so"
THEIRS = f"cpython-{ELSEWHERE.python_version.replace('.', '')}-{HERE.machine}-linux-gnu.so"
THEIR_TAG = f"cp{ELSEWHERE.python_version.replace('.', '')}-cp{ELSEWHERE.python_version.replace('.', '')}-linux_{HERE.machine}"
BUILD_SYSTEM = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
CODE = "int one;\n"


def compiled(layout: str = "", abi: str = "", dependencies: str = "[]") -> dict[str, str]:
    """Files of a project with the module ``shop.fast`` in C."""
    return {
        "pyproject.toml": PROJECT.format(dependencies) + BUILD_SYSTEM,
        "backend.py": f"ABI = {abi!r}\n{COMPILED}",
        "native.c": CODE,
        f"{layout}shop/__init__.py": APP,
    }


def compile_on_host(needed: NeedsCompiling, scratch: Path, tag: str, module: str, content: bytes = b"there") -> None:
    """Put into the cache what a host sends back for the one job that there is."""
    (job,) = needed.jobs
    scratch.mkdir()
    with zipfile.ZipFile(scratch / "made.whl", "w") as wheel:
        wheel.writestr("shop/__init__.py", APP)
        wheel.writestr(f"shop/{module}", b"\x7fELF" + content)
        wheel.writestr("shop-1.dist-info/METADATA", "Metadata-Version: 2.2\nName: shop\nVersion: 1\n")
        wheel.writestr("shop-1.dist-info/WHEEL", f"Tag: {tag}\n")
    with tarfile.open(scratch / "made.tar", "w") as archive:
        archive.add(scratch / "made.whl", f"shop-1-{tag}.whl")
    accept_wheel(scratch / "made.tar", job.requirement, job.platform, job.wheel_dir)


def code_of(made: dict[str, Any]) -> dict[str, bytes]:
    """Files of a release."""
    with tarfile.open(made["code"]["path"]) as code:
        return {name: code.extractfile(name).read() for name in code.getnames()}  # type: ignore[union-attr]


@pytest.mark.parametrize("layout", ["", "src/"])
def test_compiled_parts_of_a_project_lie_side_by_side_in_one_release(world: World, tmp_path: Path, layout: str) -> None:
    name = f"compiled{len(layout)}"
    source = world.write(name, {**compiled(layout), f"{layout}shop/fast.{OURS}": f"\x7fELF{CODE}"})  # compiled in place before

    def released(cache: str, content: bytes) -> str:
        options: dict[str, Any] = {"target": "shop:app", "cache": f"{name}-{cache}", "platforms": [ELSEWHERE, HERE]}
        with pytest.raises(NeedsCompiling) as needed:
            world.build(source, **options)
        assert (needed.value.jobs[0].requirement, needed.value.jobs[0].platform.hosts) == ("shop", ("web2",))
        compile_on_host(needed.value, tmp_path / cache, THEIR_TAG, f"fast.{THEIRS}", content)
        made = world.build(source, **options)
        files = code_of(made)
        assert files[f"{layout}shop/fast.{OURS}"] == b"\x7fELF" + (Path(source) / "native.c").read_bytes()
        assert files[f"{layout}shop/fast.{THEIRS}"] == b"\x7fELF" + content
        assert files[".installed/shop-1.dist-info/METADATA"].endswith(b"Version: 1\n")
        again = world.build(source, **options)
        assert (again["created"], again["release"]) == ([], made["release"])
        return str(made["release"])

    first = released("one", b"there")
    assert released("two", b"there") == first
    assert released("three", b"made by another compiler") != first
    world.write(name, {"native.c": "int two;\n"})
    assert released("four", b"there") != first


def test_a_package_beside_the_sources_of_another_language_is_released_as_installed(world: World) -> None:
    """As maturin has it: Rust in ``src``, Python in ``python``."""
    source = world.write("compiled-rust", {**compiled("python/", abi="abi3"), "src/lib.rs": "", "Cargo.toml": ""})
    made = world.build(source, "shop:app")
    assert {".installed/shop/__init__.py", ".installed/shop/fast.abi3.so"} <= set(code_of(made))
    assert made["import_paths"] == ["src", ".", ".installed"]


def test_what_hosts_compile_for_project_and_dependencies_is_said_at_once(world: World) -> None:
    source = world.write("compiled-both", compiled(dependencies='["native"]'))
    with pytest.raises(NeedsCompiling) as needed:
        world.build(source, "shop:app", platforms=[HERE, ELSEWHERE])
    jobs = {(job.requirement, job.platform.hosts) for job in needed.value.jobs}
    assert jobs == {("shop", ("web2",)), ("native==1.0", ("web2",))}


def test_what_was_compiled_in_the_source_tree_is_not_released(world: World) -> None:
    stale = {
        f"shop/fast.{OURS}": "stale", "shop/fast.so": "stale", "shop/vendor.so": "kept",
        f"build/lib.linux-{HERE.machine}-cpython-311/shop/fast.{OURS}": "stale",
    }  # fmt: skip
    kept = {"shop/__init__.py", "shop/vendor.so", f"shop/fast.{OURS}"}
    source = world.write("compiled-before", {**compiled(), **stale})
    for ignored in ({}, {".gitignore": "fast.*\nbuild/\n"}):
        if ignored:
            repository(world, "compiled-before", ignored)
        files = code_of(world.build(source, "shop:app"))
        assert {name for name in files if "shop/" in name} == kept
        assert files[f"shop/fast.{OURS}"] == b"\x7fELF" + CODE.encode()


def test_one_module_of_the_stable_abi_serves_newer_pythons(world: World) -> None:
    source = world.write("compiled-abi3", compiled(abi="abi3"))
    newer = replace(ELSEWHERE, python="3.14.1")
    made = world.build(source, "shop:app", platforms=[newer, HERE])
    assert [name for name in code_of(made) if name.endswith(".so")] == ["shop/fast.abi3.so"]


def test_two_files_of_one_name_are_refused_in_a_sentence(world: World, tmp_path: Path) -> None:
    """What is built here needs a newer glibc than that host has."""
    source = world.write("compiled-alike", compiled(abi="abi3"))
    platforms = [HERE, replace(ELSEWHERE, python="3.14.1", glibc="2.31")]
    with pytest.raises(NeedsCompiling) as needed:
        world.build(source, "shop:app", platforms=platforms)
    compile_on_host(needed.value, tmp_path / "made", f"cp314-abi3-linux_{HERE.machine}", "fast.abi3.so")
    with pytest.raises(BuildError) as refused:
        world.build(source, "shop:app", platforms=platforms)
    assert str(refused.value) == (
        f"{source}: shop/fast.abi3.so for {platforms[1]} differs from that for {HERE}, and a release is one for all hosts: let its "
        "name say Python and machine (no abi3, no bare .so), or publish the project to an index and make forge_source that requirement."
    )


def test_a_project_that_only_a_host_can_compile_goes_there_with_its_version(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name and version are known to its backend alone, which may ask git; a host has none."""
    files = {**compiled(), "pyproject.toml": BUILD_SYSTEM, "version": "'4.5'\n"}
    source, _commit = repository(world, "compiled-there", files)
    monkeypatch.setenv("FORGE_NO_COMPILER", "1")
    with pytest.raises(NeedsCompiling, match=r"^There is no wheel of shop for .*failed: .*no compiler here\.$") as needed:
        world.build(source, "shop:app")
    there = needed.value.jobs[0].source(tmp_path)
    assert (there / "PKG-INFO").read_text().splitlines()[1:] == ["Name: shop", "Version: 4.5"]
    assert (there / "native.c").is_file()
    assert not (there / ".git").exists()


def test_a_standalone_python_compiles_nothing_of_a_project(world: World) -> None:
    source = open_source(world.write("compiled-standalone", compiled()))
    platform = replace(HERE, interpreter=f"{HERE.python}-0")
    with pytest.raises(NeedsCompiling) as needed:
        pack(source, list_files(source, []), [], "shop:app", [platform], world.workspace())
    assert [job.platform.interpreter for job in needed.value.jobs] == [platform.interpreter]


def test_machine_code_that_a_project_carries_is_no_compiled_part(world: World) -> None:
    library = "\x7fELF of somebody"
    files = {**compiled(), "shop/vendor.so": library}
    files["backend.py"] = BACKEND.format(
        name="shop", version="1", tag="py3-none-any", asks=[], builds=True,
        files=wheel_files("shop", "1", [], "py3-none-any", {"shop/vendor.so": library}),
    )  # fmt: skip
    made = world.build(world.write("carries", files), "shop:app", cache="carries-cache", platforms=[ELSEWHERE])
    assert code_of(made)["shop/vendor.so"] == library.encode()
    assert len(list((world.root / "carries-cache" / "packages").iterdir())) == 1, "one wheel for all platforms"
