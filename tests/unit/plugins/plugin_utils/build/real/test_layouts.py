# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Projects as the tools of the field lay them out: Poetry, PDM, pip-tools, uv; their groups, locks and indexes."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.cache import file_digest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.poetry import read_other_lock
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.source import open_source
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.target_platform import Platform
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace, find_uv
from building import build, installed
from test_kinds import APP, HERE, PROJECT, SERVER, World, repository, world  # noqa: F401 (a fixture)

IDNA = {
    "3.7": ("82fee1fc78add43492d3a1898bfa6d8a904cc97d8427f683ed8e798d07761aa0", "028ff3aadf0609c1fd278d8ea3089299412a7a8b9bd005dd08b9f8285bcb5cfc"),
    "3.20": ("ab7ae7122974553370f0bdb919e1a960b2cd1bc1ef0276416d896db81c14582c", "a7db850025b95ded1eae8a46181a1a6c56c92c96f0e2b005d9ff8dc0210cab44"),
}  # fmt: skip
POETRY = """\
[tool.poetry]
name = "shop-service"
version = "0.1.0"
description = ""
authors = []

[tool.poetry.dependencies]
python = "^3.11"
idna = [{version = "<3.8", python = "<3.12"}, {version = ">=3.8", python = ">=3.12"}]
six = {version = "^1.16", optional = true}

[tool.poetry.extras]
old = ["six"]

[tool.poetry.group.server.dependencies]
click = "^8"

[tool.poetry.group.dev]
optional = true
"""
OLD, NEW = Platform("3.11.2", HERE.machine, "2.36", ("web1",)), Platform("3.13.5", HERE.machine, "2.41", ("web2",))


def locked(name: str, version: str, more: str = "", hashes: tuple[str, ...] = ()) -> str:
    files = ", ".join(f'{{file = "x", hash = "sha256:{each}"}}' for each in hashes)
    return f'[[package]]\nname = "{name}"\nversion = "{version}"\nfiles = [{files}]\n{more}\n'


def poetry_lock(markers: bool, old: tuple[str, ...] = IDNA["3.7"]) -> str:
    """As Poetry 2 writes one, or as Poetry 1, which does not say where each version is for."""

    def where(condition: str) -> str:
        return f'groups = ["main"]\nmarkers = "python_version {condition} \\"3.12\\""' if markers else ""

    idna = locked("idna", "3.7", where("<"), old) + locked("idna", "3.20", where(">="), IDNA["3.20"])
    return idna + locked("six", "1.16.0") + locked("click", "8.1.7")


def write(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("cache"))


@pytest.mark.network
@pytest.mark.parametrize("markers", [True, False], ids=["Poetry 2", "Poetry 1"])
def test_poetry_has_locked_versions_and_hashes_also_by_python(tmp_path: Path, workspace: Workspace, markers: bool) -> None:
    source = write(tmp_path, {"main.py": APP, "pyproject.toml": POETRY, "poetry.lock": poetry_lock(markers)})
    made = build(source, "main:app", [OLD, NEW], workspace)
    assert (installed(made)["idna"], installed(made, "web2")["idna"]) == ("3.7", "3.20")
    assert not {"six", "click-default-group"} & installed(made).keys()
    assert made["notes"] == []
    text = Path(made["locks"][0]).read_text()
    assert {line.split(":")[1].rstrip(" \\") for line in text.splitlines() if "--hash" in line} == {*IDNA["3.7"], *IDNA["3.20"]}

    more = build(source, "main:app", [OLD, NEW], workspace, extras=["old"], groups=["server"])
    assert {"six": "1.16.0", "click": "8.1.7"}.items() <= installed(more).items()
    for options, said in (
        ({"groups": ["prod"]}, r"forge_source_groups: \S+ has no dependency group prod \(it has dev, server\)"),
        ({"extras": ["new"]}, r"forge_source_extras: \S+ has no extra new \(it has old\)"),
    ):
        with pytest.raises(BuildError, match=said):
            build(source, "main:app", [OLD, NEW], workspace, **options)

    (tmp_path / "poetry.lock").write_text(poetry_lock(markers, ("0" * 64,)))
    with pytest.raises(BuildError, match=r"could not be installed: .*Hash mismatch for `idna==3\.7`"):
        build(source, "main:app", [OLD], workspace)


@pytest.mark.network
def test_poetry_says_which_pythons_and_its_mistakes_are_its_own_words(tmp_path: Path, workspace: Workspace) -> None:
    newer = {"pyproject.toml": POETRY.replace('"^3.11"', '"^3.12"'), "poetry.lock": poetry_lock(True), "main.py": APP}
    with pytest.raises(BuildError, match=r"The app needs Python >=3\.12,<4\.0, but web1 has 3\.11\.2"):
        build(write(tmp_path, newer), "main:app", [OLD], workspace)
    wrong = {"pyproject.toml": POETRY.replace('"^1.16"', '"^1.16x"')}
    with pytest.raises(BuildError, match=r"poetry-core could not read \S+/pyproject\.toml: Could not parse version constraint: \^1\.16x$"):
        build(write(tmp_path, wrong), "main:app", [OLD], workspace)


@pytest.mark.network
def test_a_poetry_project_is_installed_where_poetry_would(tmp_path: Path, workspace: Workspace) -> None:
    """No build system, or one, but no directory of the project's name: both run under ``poetry install --no-root``."""
    files = {"main.py": APP, "pyproject.toml": POETRY + '[tool.poetry.scripts]\nshop-hello = "shop_service:hello"\n'}
    files["poetry.lock"] = poetry_lock(True)

    def code(source: str) -> set[str]:
        made = build(source, "main:app", [OLD], workspace)
        with tarfile.open(made["code"]["path"]) as opened:
            return set(opened.getnames())

    assert not any(name.startswith(".installed") for name in code(write(tmp_path / "app", files)))
    system = '[build-system]\nrequires = ["poetry-core"]\nbuild-backend = "poetry.core.masonry.api"\n'
    files["pyproject.toml"] += system
    assert not any(name.startswith(".installed") for name in code(write(tmp_path / "named", files)))
    files["shop_service/__init__.py"] = "def hello(): ...\n"
    package = {".installed/bin/shop-hello", ".installed/shop_service-0.1.0.dist-info/METADATA"}
    assert package <= code(write(tmp_path / "package", files))
    files["pyproject.toml"] = files["pyproject.toml"].removesuffix(system)
    assert package <= code(write(tmp_path / "bare", files))
    files["pyproject.toml"] = files["pyproject.toml"].replace("[tool.poetry]\n", "[tool.poetry]\npackage-mode = false\n")
    assert not package & code(write(tmp_path / "none", files))


@pytest.mark.network
def test_git_dependencies_of_poetry_and_pdm_stay_at_the_commits_that_are_locked(world: World, workspace: Workspace) -> None:  # noqa: F811
    about = '[project]\nname = "kept"\nversion = "1"\n[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    path, commit = repository(world, "kept", {"pyproject.toml": about, "kept/__init__.py": "old = 1\n"})
    (Path(path) / "kept" / "__init__.py").write_text("new = 1\n")
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", path, *identity, "commit", "--quiet", "-am", "y"], check=True)
    poetry = {
        "pyproject.toml": POETRY + f'[tool.poetry.group.more.dependencies]\nkept = {{git = "file://{path}", branch = "main"}}\n',
        "poetry.lock": poetry_lock(True)
        + locked("kept", "1", f'[package.source]\ntype = "git"\nurl = "x"\nreference = "main"\nresolved_reference = "{commit}"'),
    }
    pdm = {
        "pyproject.toml": PROJECT.format("[]") + f'[tool.pdm.dev-dependencies]\nmore = ["kept @ git+file://{path}@main"]\n',
        "pdm.lock": locked("kept", "1", f'git = "x"\nref = "main"\nrevision = "{commit}"'),
    }
    for name, files in (("poetry", poetry), ("pdm", pdm)):
        source = write(world.root / "git" / name, {"main.py": APP, **files})
        made = build(source, "main:app", [HERE], workspace, groups=["more"])
        with tarfile.open(made["hosts"]["web1"]["blob"]["path"]) as layer:
            (module,) = [each for each in layer.getnames() if each.endswith("/kept/__init__.py")]
            assert layer.extractfile(module).read() == b"old = 1\n", name  # type: ignore[union-attr]


def test_groups_of_the_standard_from_a_lock_or_without_one(world: World) -> None:  # noqa: F811
    groups = '[dependency-groups]\ndev = ["fastloop"]\nserver = ["dep<2", {include-group = "dev"}]\n'
    source = world.write("groups", {"main.py": APP, "pyproject.toml": PROJECT.format("[]") + groups})
    said = r"groups depends on nothing by itself, but has dependency groups: name those .* forge_source_groups \(dev, server\)\."
    for locks in (False, True):
        if locks:
            subprocess.run([find_uv(), "lock", "--quiet", "--project", source], check=True, env=world.workspace().environment())
        made = world.build(source)
        assert installed(made).keys() == SERVER
        assert any(re.search(said, note) for note in made["notes"])
        made = world.build(source, groups=["server"])
        assert {"dep": "1.0", "fastloop": "1.0"}.items() <= installed(made).items()
        assert not any("depends on nothing" in note for note in made["notes"])
        with pytest.raises(BuildError, match=r"has no dependency group prod \(it has dev, server\)"):
            world.build(source, groups=["prod"])


def test_groups_that_include_each_other_are_said(world: World) -> None:  # noqa: F811
    circle = '[dependency-groups]\na = [{include-group = "b"}]\nb = [{include-group = "a"}]\nc = [{include-group = "none"}]\n'
    files = {"main.py": APP, "pyproject.toml": PROJECT.format("[]") + circle, "pdm.lock": ""}
    source = world.write("circle", files)
    with pytest.raises(BuildError, match=r"pyproject\.toml: the dependency group b includes a, which is itself"):
        world.build(source, groups=["a"])
    with pytest.raises(BuildError, match=r"pyproject\.toml: the dependency group c includes none, which is not there"):
        world.build(source, groups=["c"])


def test_extras_that_are_the_project_with_others(world: World) -> None:  # noqa: F811
    extras = '[project.optional-dependencies]\npg = ["dep<2"]\nfast = ["fastloop"]\nall = ["shop[pg,fast]"]\n'
    lock = locked("dep", "1.0") + locked("fastloop", "1.0")
    source = world.write("extras", {"main.py": APP, "pyproject.toml": PROJECT.format("[]") + extras, "pdm.lock": lock})
    assert {"dep": "1.0", "fastloop": "1.0"}.items() <= installed(world.build(source, extras=["all"])).items()
    assert "dep" not in installed(world.build(source, extras=["fast"]))


def test_a_pylock_of_pdm_has_extras_and_groups(world: World) -> None:  # noqa: F811
    def package(name: str, version: str, marker: str) -> str:
        wheel = world.root / "index" / "simple" / name / f"{name}-{version}-py3-none-any.whl"
        return (
            f'[[packages]]\nname = "{name}"\nversion = "{version}"\nmarker = {marker!r}\n'
            f'wheels = [{{ url = "x", hashes = {{ sha256 = "{file_digest(wheel)}" }} }}]\n'
        )

    lock = 'lock-version = "1.0"\ncreated-by = "pdm"\nextras = ["pg"]\ndependency-groups = ["default", "test"]\ndefault-groups = ["default"]\n'
    lock += package("dep", "1.0", '"default" in dependency_groups or "pg" in extras')
    lock += package("fastloop", "1.0", '"pg" in extras and sys_platform == "linux"')
    lock += package("shop", "1.0", '"test" in dependency_groups')
    source = world.write("pdm", {"main.py": APP, "locks/pylock.prod.toml": lock})
    named = {"lock": "locks/pylock.prod.toml"}
    assert installed(world.build(source, **named)).keys() == {"dep", *SERVER}
    assert installed(world.build(source, extras=["pg"], **named)).keys() == {"dep", "fastloop", *SERVER}
    assert installed(world.build(source, groups=["test"], **named)).keys() == {"dep", "shop", *SERVER}
    with pytest.raises(BuildError, match=r"forge_source_groups: \S+/pylock\.prod\.toml has no prod \(it has default, test\)"):
        world.build(source, groups=["prod"], **named)


def test_requirements_lie_where_people_put_them(world: World) -> None:  # noqa: F811
    files = {"main.py": APP, "requirements/base.txt": "dep<2\n", "requirements/prod.txt": "-r base.txt\nfastloop\n"}
    source = world.write("many", files)
    said = r"many has no uv\.lock, .* There is requirements/base\.txt, requirements/prod\.txt: name it in forge_source_lock\."
    with pytest.raises(BuildError, match=said):
        world.build(source)
    made = world.build(source, lock="requirements/prod.txt")
    assert {"dep": "1.0", "fastloop": "1.0"}.items() <= installed(made).items()
    (Path(source) / "requirements" / "base.txt").write_text("dep\n")
    assert installed(world.build(source, lock="requirements/prod.txt"))["dep"] == "2.0"
    for options, problem in (
        ({"lock": "requirements/test.txt"}, "forge_source_lock: \\S+ has no file requirements/test.txt"),
        ({"lock": "main.py"}, "forge_source_lock: main.py is no file with versions"),
        ({"lock": "requirements/prod.txt", "groups": ["x"]}, "forge_source_groups: \\S+prod.txt is what says .* has no x"),
        ({"lock": "requirements/prod.txt", "extras": ["x"]}, "forge_source_extras: \\S+prod.txt is what says .* has no x"),
    ):
        with pytest.raises(BuildError, match=problem):
            world.build(source, **options)
    with pytest.raises(BuildError, match="forge_source_groups: forge_source is a package and no project"):
        world.build("shop==1.0", "shopapp:app", groups=["x"])


def test_a_lock_of_old_poetry_has_its_hashes_in_another_place(tmp_path: Path) -> None:
    text = '[[package]]\nname = "Dep_Two"\nversion = "1"\n[metadata.files]\nDep_Two = [{file = "x", hash = "sha256:1"}]\n'
    lock = read_other_lock(open_source(write(tmp_path, {"poetry.lock": text})))
    assert lock is not None
    assert lock.find("dep-two", "1").hashes == ("sha256:1",)  # type: ignore[union-attr]
    for package, said in (('name = "x"', "'version'"), ('name = "x"\nversion = "newest"', "Invalid version: 'newest'")):
        (tmp_path / "poetry.lock").write_text(f"[[package]]\n{package}\n")
        with pytest.raises(BuildError, match=rf"poetry\.lock cannot be read: {said}"):
            read_other_lock(open_source(str(tmp_path)))


def test_indexes_of_poetry_and_pdm_have_the_credentials_that_those_tools_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POETRY_HTTP_BASIC_OUR_MIRROR_USERNAME", "me")
    monkeypatch.setenv("POETRY_HTTP_BASIC_OUR_MIRROR_PASSWORD", "p@ss")
    monkeypatch.setenv("INDEX_PASSWORD", "word")
    tool = {
        "poetry": {"source": [{"name": "our-mirror", "url": "https://a.example.org/simple"}]},
        "pdm": {"source": [{"name": "x", "url": "https://you:${INDEX_PASSWORD}@b.example.org/simple"}]},
    }
    found = Workspace(tmp_path).with_project({"tool": tool}, "")
    assert found.project_index_urls == ("https://me:p%40ss@a.example.org/simple", "https://you:word@b.example.org/simple")
    assert "p%40ss" not in found.index_hint()


@pytest.mark.network
def test_all_machine_code_of_a_layer_is_for_its_machine(workspace: Workspace) -> None:
    """The reference app for two machines: what ``e_machine`` says in each ELF header (elf(5))."""
    arm = Platform("3.13.5", "aarch64", "2.41", ("web2",))
    reference = Path(__file__).parents[6] / "app"
    made = build(str(reference), "thecodeforge.main:app", [Platform("3.13.5", "x86_64", "2.41", ("web1",)), arm], workspace)
    for host, machine in (("web1", 62), ("web2", 183)):
        found = {}
        with tarfile.open(made["hosts"][host]["blob"]["path"]) as layer:
            for member in filter(tarfile.TarInfo.isfile, layer):
                header = layer.extractfile(member).read(20)  # type: ignore[union-attr]
                if header.startswith(b"\x7fELF"):
                    found[member.name] = int.from_bytes(header[18:20], "little")
        assert len(found) > 10
        assert set(found.values()) == {machine}, found
