# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same app as a container image: what is in it, how it runs, and what a bad input gets.

In a storage of its own, so that no image of this machine is seen or changed. The base is a lab node's image, which has Python. The
inventory names a host that is not there: no host is called.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import REPOSITORY
from containers import NAME, Storage, base_image, loaded, run_flags
from tiny import MAIN, write_project

SECRET = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def base() -> Iterator[tuple[str, Path]]:
    with base_image() as found:
        yield found


@pytest.fixture(scope="module")
def storage(base: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with loaded(base, tmp_path_factory.mktemp("storage")) as made:
        yield made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app that can answer slowly."""
    slow = "\n\ndef slow():\n    return 200, {'slow': True}\n"
    main = MAIN.replace("await asyncio.sleep(0.005)", 'await asyncio.sleep(3 if scope["path"] == "/slow" else 0.005)')
    main = main.replace('"/place": place,', '"/place": place,\n        "/slow": lambda: (200, {"slow": True}),') + slow
    return write_project(tmp_path_factory.mktemp("shop"), "gunicorn", "uvicorn-worker", main=main)


@pytest.fixture(scope="module")
def made(storage: Storage, source: Path) -> str:
    """What the playbook printed when it made the first image."""
    return storage.image(source, forge_environment={"SECRET_KEY": SECRET})


@contextmanager
def running(
    storage: Storage, *options: str, command: tuple[str, ...] = (), name: str = NAME
) -> Iterator[tuple[str, str]]:
    """A container, and the URL of its app once that is healthy."""
    flags = run_flags()
    container = storage.podman(
        "run", "--detach", "--no-healthcheck", "--read-only", *flags, *options, name, *command
    ).splitlines()[-1]
    try:
        address = storage.podman("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container)
        url = f"http://{address}:8000"
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx.get(url + "/healthz").status_code == 200:
                    break
            except httpx.HTTPError:
                assert time.monotonic() < deadline, storage.podman("logs", container)
                time.sleep(0.1)
        yield container, url
    finally:
        storage.podman("rm", "--force", "--time", "0", container, check=False)


def test_the_image_is_told_in_a_table_and_has_two_names(storage: Storage, made: str) -> None:
    found = storage.inspect()
    release = found["Labels"]["org.opencontainers.image.version"]
    assert f"{NAME} {release} 3.13." in made
    assert sorted(found["RepoTags"]) == sorted([NAME, f"registry.invalid/shop:{release}"])


def test_the_image_runs_as_a_number_without_a_shell_and_says_how_it_is(storage: Storage, made: str) -> None:
    config = storage.inspect()["Config"]
    assert config["User"] == "10001:10001"
    assert config["Cmd"][:2] == ["/app/layer/bin/python", "/app/layer/bin/gunicorn"]
    assert not config.get("Entrypoint")
    assert config["ExposedPorts"] == {"8000/tcp": {}}
    assert config["StopSignal"] == "SIGTERM"
    assert storage.inspect()["Healthcheck"]["Test"][:2] == ["CMD", "/app/layer/bin/python"]


def test_no_secret_and_no_compiler_is_in_the_image(storage: Storage, made: str, tmp_path: Path) -> None:
    container = storage.podman("create", NAME)
    archive = tmp_path / "root.tar"
    storage.podman("export", "--output", str(archive), container)
    storage.podman("rm", container)
    assert SECRET.encode() not in archive.read_bytes()
    assert SECRET not in json.dumps(storage.inspect()) + storage.podman("history", "--no-trunc", NAME)
    names = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"^usr/bin/(gcc|cc|make|uv|pip3?)$|^build/|layer\.tar", names, re.MULTILINE)
    assert "app/sbom.cdx.json" in names


def test_the_same_input_gives_the_same_image_elsewhere(
    storage: Storage, made: str, base: tuple[str, Path], source: Path, tmp_path: Path
) -> None:
    with loaded(base, tmp_path) as other:
        other.image(source, umask=0o077, forge_build_cache=str(tmp_path / "cache"))
        assert other.inspect()["Id"] == storage.inspect()["Id"]
        assert other.inspect()["Digest"] == storage.inspect()["Digest"]


def test_a_second_run_makes_the_same_and_changes_nothing(storage: Storage, made: str, source: Path) -> None:
    before = storage.inspect()["Id"]
    assert "changed=0" in storage.image(source, forge_environment={"SECRET_KEY": SECRET})
    assert storage.inspect()["Id"] == before


def test_a_change_of_code_ships_kilobytes(storage: Storage, made: str, source: Path) -> None:
    before = storage.inspect()["RootFS"]["Layers"]
    (source / "shop" / "version.py").write_text("VERSION = 2\n")
    storage.image(source, forge_image="registry.invalid/shop:1.1")
    after = storage.inspect("registry.invalid/shop:1.1")["RootFS"]["Layers"]
    assert after[:-1] == before[:-1]
    assert len(after) == len(before)
    history = json.loads(storage.podman("history", "--format", "json", "registry.invalid/shop:1.1"))
    code = next(each for each in history if re.search(r"COPY .* in /app/release", each["CreatedBy"]))
    assert 0 < code["size"] < 100_000


def test_it_serves_with_a_root_that_is_read_only_and_is_sized_when_it_starts(storage: Storage, made: str) -> None:
    with running(storage, "--env", f"FORGE_SECRET_KEY={SECRET}", "--env", "TRY=/app:/tmp") as (container, url):
        place = httpx.get(url + "/place").json()
        assert place["cwd"] == "/app/release"
        assert place["environment"]["FORGE_SECRET_KEY"] == SECRET
        assert "/app" not in place["writable"]
        assert storage.podman("exec", container, "id", "-u") == "10001"
        assert "gunicorn" in storage.podman("exec", container, "cat", "/proc/1/cmdline")
        assert re.search(r"^\d+ workers \(\d+ CPUs: .*\)$", storage.podman("logs", container), re.MULTILINE)
        health = storage.inspect()["Healthcheck"]["Test"][1:]  # its timer is systemd's, which a test may lack
        assert storage.podman("exec", container, *health) == ""
    with running(storage, "--env", "WEB_CONCURRENCY=1") as (container, _url):
        assert "1 workers (set by hand)" in storage.podman("logs", container)


def test_the_settings_of_the_inventory_reach_a_container(storage: Storage, made: str, source: Path) -> None:
    settings = storage.home / "settings.env"
    quoted = 'a "quoted" $HOME # value'
    storage.image(
        source, forge_environment={"SECRET_KEY": SECRET, "GREETING": quoted}, forge_image_env_file=str(settings)
    )
    assert settings.stat().st_mode & 0o777 == 0o600
    with running(storage, "--env-file", str(settings)) as (_container, url):
        found = httpx.get(url + "/place").json()["environment"]
    assert (found["FORGE_SECRET_KEY"], found["FORGE_GREETING"]) == (SECRET, quoted)


def test_the_limits_of_the_container_count(storage: Storage, made: str) -> None:
    with running(storage, "--memory", "300m") as (container, _url):
        assert "1 workers (225 MiB hold 1 x 128 MiB)" in storage.podman("logs", container)


@pytest.mark.thorough
def test_what_has_no_wheel_is_compiled_in_the_base_and_the_compiler_stays_there(
    storage: Storage, made: str, tmp_path: Path
) -> None:
    name = "registry.invalid/shop:compiled"
    source = write_project(tmp_path / "shop", "gunicorn", "uvicorn-worker", "psycopg2", main=MAIN)
    compiling = {
        "forge_build_packages": ["build-essential", "python3-dev", "libpq-dev"],
        "forge_build_cache": str(tmp_path / "cache"),
    }
    assert "Compile" in storage.image(source, forge_image=name, forge_packages=["libpq5"], **compiling)
    flags = run_flags()
    script = "import psycopg2, shutil; print(psycopg2.__version__, shutil.which('gcc'))"
    told = storage.podman("run", "--rm", "--no-healthcheck", *flags, name, "python", "-c", script)
    assert re.fullmatch(r"2\.9.* None", told.splitlines()[-1])
    lacking = {
        **compiling,
        "forge_build_packages": ["build-essential", "python3-dev"],
        "forge_build_cache": str(tmp_path / "other"),
    }
    said = storage.image(source, check=False, forge_image=name, **lacking)
    assert "add the Debian package that has it to forge_build_packages" in said


def test_it_writes_where_the_inventory_says_and_nowhere_else(storage: Storage, made: str, source: Path) -> None:
    name = "registry.invalid/shop:writes"
    storage.image(
        source, forge_image=name, forge_state_directories=["shop", "shop/uploads"], forge_cache_directories=["shop"]
    )
    tried = "/var/lib/shop:/var/lib/shop/uploads:/var/cache/shop:/var/lib:/var:/app/release:/tmp"
    with running(storage, "--read-only=false", "--env", f"TRY={tried}", name=name) as (_container, url):
        place = httpx.get(url + "/place").json()
    assert place["writable"] == ["/var/lib/shop", "/var/lib/shop/uploads", "/var/cache/shop", "/tmp"]
    assert place["environment"]["HOME"] == "/var/lib/shop"


def test_other_commands_run_in_it(storage: Storage, made: str) -> None:
    flags = run_flags()
    told = storage.podman(
        "run",
        "--rm",
        "--no-healthcheck",
        *flags,
        NAME,
        "python",
        "-c",
        "import shop.main, os; print(os.environ['FORGE_RELEASE'])",
    )
    assert told.splitlines()[-1] == storage.inspect()["Labels"]["org.opencontainers.image.version"]


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_what_is_under_way_ends_before_the_container_does(
    storage: Storage, made: str, source: Path, server: str
) -> None:
    name = NAME
    if server == "uvicorn":
        name = "registry.invalid/shop:uvicorn"
        storage.image(source, forge_server="uvicorn", forge_image=name)
    answers: list[int] = []
    with running(storage, name=name) as (container, url):
        asking = [
            threading.Thread(target=lambda: answers.append(httpx.get(url + "/slow", timeout=20).status_code))
            for _ in range(8)
        ]
        for thread in asking:
            thread.start()
        time.sleep(1)
        began = time.monotonic()
        storage.podman("stop", "--time", "30", container)
        took = time.monotonic() - began
        for thread in asking:
            thread.join()
        assert answers == [200] * 8
        assert took < 10
        assert storage.podman("inspect", "--format", "{{.State.ExitCode}}", container) == "0"


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"forge_image": ""}, "forge_image is empty: give the image a name and a tag"),
        ({"forge_image": "shop"}, "forge_image must be a name with a tag"),
        (
            {"forge_image_base": "registry.invalid/none:1"},
            "forge_image_base: registry.invalid/none:1 cannot be used: podman build failed: ",
        ),
        ({"forge_image_user": 0}, "forge_image_user must be the number of a user, and not 0, which is root."),
        ({"forge_image_push": True}, "podman push failed: "),
        (
            {"forge_environment": {"DATABASE_URL": "{{ forge_database_url }}"}, "forge_image_env_file": "shop.env"},
            "FORGE_DATABASE_URL has the address of the inventory's database",
        ),
    ],
)
def test_bad_input_gets_a_sentence(storage: Storage, source: Path, variables: dict[str, Any], sentence: str) -> None:
    said = storage.image(source, check=False, **variables)
    assert sentence in said
    assert "Traceback" not in said


def test_a_secret_in_the_code_is_no_image(storage: Storage, source: Path) -> None:
    settings = source / "shop" / "secrets.py"
    settings.write_text(f'KEY = "{SECRET}"\n')
    try:
        said = storage.image(
            source, check=False, forge_environment={"SECRET_KEY": SECRET}, forge_image="registry.invalid/shop:leak"
        )
    finally:
        settings.unlink()
    assert "The image would hold secrets: shop/secrets.py has the value of FORGE_SECRET_KEY." in said
    assert SECRET not in said
    assert "shop:leak" not in storage.podman("images")


def test_the_image_of_the_reference_app_that_is_written_by_hand(storage: Storage) -> None:
    """With a base that has what that of the Dockerfile has: pip, and the authorities that this machine trusts."""
    context = storage.home / "with-pip"
    context.mkdir()
    (context / "Containerfile").write_text(
        f"FROM {storage.base}\nRUN apt-get -qq update && apt-get -qq install --yes python3-venv >/dev/null\nENV UV_SYSTEM_CERTS=true\n"
    )
    storage.podman("build", "--quiet", "--tag", "localhost/with-pip", str(context))
    name = "localhost/parts:hand"
    app = str(REPOSITORY / "app")
    storage.podman(
        "build", "--quiet", "--format", "docker", "--build-arg", "BASE=localhost/with-pip", "--tag", name, app
    )
    settings = (
        "--env",
        f"FORGE_SECRET_KEY={SECRET * 2}",
        "--env",
        "FORGE_DATABASE_URL=postgresql://parts:x@192.0.2.9/parts",
    )
    with running(storage, *settings, "--env", "WEB_CONCURRENCY=2", name=name) as (container, url):
        assert httpx.get(url + "/healthz").status_code == 200
        assert storage.podman("exec", container, "id", "-u") == "10001"
        assert "gunicorn" in storage.podman("exec", container, "cat", "/proc/1/cmdline")
        assert sorted(storage.podman("exec", container, "ls", "/app").split()) == ["alembic.ini", "code", "migrations"]
        assert "0001" in storage.podman("exec", container, "alembic", "heads")
        storage.podman("stop", "--time", "30", container)
        assert storage.podman("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
        assert "[ERROR]" not in storage.podman("logs", container)
    missing = storage.podman(
        "run", "--rm", "--no-healthcheck", name, "sh", "-c", "ls /uv /usr/bin/gcc; command -v uv", check=False
    )
    assert missing == ""
