import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from cluster import Cluster, Server
from fastapi.testclient import TestClient

PROJECT = Path(__file__).parents[1]
SECRET_KEY = "never-to-be-shown-" + "k" * 20


@contextmanager
def new_database(server: Server, name: str) -> Iterator[str]:
    """A database for as long as the block lasts. Databases of a test run that was killed are replaced."""
    server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    server.execute(f"CREATE DATABASE {name}")
    yield name
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    given = os.environ.get("FORGE_TEST_DATABASE_URL")
    try:
        server = Server(given) if given else Cluster()
    except RuntimeError as error:
        pytest.exit(str(error), returncode=1)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def cluster(server: Server) -> Cluster:
    """A server that a test may stop or freeze: it is started again before the next test."""
    if not isinstance(server, Cluster):
        pytest.skip("The server of FORGE_TEST_DATABASE_URL is not ours to stop.")
    return server


@pytest.fixture(scope="session")
def migrated(server: Server) -> Iterator[str]:
    """A database with the newest schema."""
    with new_database(server, "forge_tests_migrated") as name:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FORGE_DATABASE_URL", server.url(name))
            patch.setenv("FORGE_SECRET_KEY", SECRET_KEY)
            command.upgrade(Config(PROJECT / "alembic.ini"), "head")
        yield name


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the developer's settings: neither the environment's nor those of .env in the working directory."""
    for name in os.environ:
        if name.startswith("FORGE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, server: Server) -> Callable[[str], None]:
    """Point the settings at a database."""

    def use(database: str) -> None:
        monkeypatch.setenv("FORGE_DATABASE_URL", server.url(database))
        monkeypatch.setenv("FORGE_SECRET_KEY", SECRET_KEY)

    return use


@pytest.fixture
def empty_database(server: Server, use: Callable[[str], None]) -> Iterator[str]:
    with new_database(server, "forge_tests") as name:
        use(name)
        yield name


@pytest.fixture
def database(server: Server, migrated: str, use: Callable[[str], None]) -> Iterator[str]:
    """A database with the newest schema and no parts."""
    use(migrated)
    [version] = server.execute("SELECT version_num FROM alembic_version", migrated)
    yield migrated
    server.start()  # as a test may have left it
    server.execute("TRUNCATE parts RESTART IDENTITY", migrated)
    server.execute(f"UPDATE alembic_version SET version_num = '{version[0]}'", migrated)


@pytest.fixture
def new_client() -> Callable[[], TestClient]:
    """Makes an app from the settings in the environment; it starts where the client is entered."""

    def new_client() -> TestClient:
        from thecodeforge.main import create_app  # not above: importing it needs the settings

        return TestClient(create_app())

    return new_client


@pytest.fixture
def client(database: str, new_client: Callable[[], TestClient]) -> Iterator[TestClient]:
    with new_client() as client:
        yield client


@pytest.fixture
def alembic() -> Config:
    return Config(PROJECT / "alembic.ini")


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings for what needs none, which is quicker."""
    monkeypatch.setenv("FORGE_DATABASE_URL", "postgresql://forge@127.0.0.1:1/forge")
    monkeypatch.setenv("FORGE_SECRET_KEY", SECRET_KEY)


@pytest.fixture
def client_without_database(no_database: None, new_client: Callable[[], TestClient]) -> TestClient:
    return new_client()


def run_alembic(*words: str) -> subprocess.CompletedProcess[str]:
    """Alembic as an operator runs it, in the working directory."""
    command = [sys.executable, "-m", "alembic", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
