"""Migrations: up, down, in step with the tables, safe against a second one, and clear when they cannot go on."""

import shutil
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from cluster import PASSWORD, Cluster, Server
from conftest import PROJECT, run_alembic

from thecodeforge.schema import MIGRATION_LOCK, Schema

TABLES = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"


def test_up_and_down(alembic: Config, server: Server, empty_database: str) -> None:
    for _ in range(2):
        command.upgrade(alembic, "head")
        assert server.execute(TABLES, empty_database) == [("alembic_version",), ("parts",)]
        command.upgrade(alembic, "head")  # nothing left to do
        command.downgrade(alembic, "base")
        assert server.execute(TABLES, empty_database) == [("alembic_version",)]


def test_tables_are_those_of_the_migrations(alembic: Config, database: str) -> None:
    command.check(alembic)


def test_schema_is_read_as_alembic_reads_it(alembic: Config) -> None:
    script = ScriptDirectory.from_config(alembic)
    schema = Schema.read()
    assert schema.heads == set(script.get_heads())
    assert schema.known == {revision.revision for revision in script.walk_revisions()}


def test_branches_and_merges_are_read(tmp_path: Path) -> None:
    def write(name: str, parent: str) -> None:
        tmp_path.joinpath(f"{name}.py").write_text(f"revision: str = '{name}'\ndown_revision = {parent}\n")

    with pytest.raises(RuntimeError, match="No migrations"):
        Schema.read(tmp_path)
    write("a", "None")
    write("b", "'a'")
    write("c", "'a'")
    assert Schema.read(tmp_path) == Schema(frozenset("abc"), frozenset("bc"))
    write("d", "('b', 'c')")
    assert Schema.read(tmp_path) == Schema(frozenset("abcd"), frozenset("d"))


def test_sql_for_reading(alembic: Config, empty_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    command.upgrade(alembic, "head", sql=True)
    assert "CREATE TABLE parts" in capsys.readouterr().out


def test_two_at_once(server: Server, empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are held at the lock, so that they do meet."""
    monkeypatch.chdir(PROJECT)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with ExitStack() as held, ThreadPoolExecutor(2) as pool:
        holder = held.enter_context(psycopg.connect(server.url(empty_database), autocommit=True))
        holder.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        both = [pool.submit(run_alembic, "upgrade", "head") for _ in range(2)]
        while server.execute(waiting) != [(2,)] and not any(one.done() for one in both):
            time.sleep(0.05)
        assert server.execute(TABLES, empty_database) == []
        held.close()
        done = [one.result() for one in both]
    assert [one.returncode for one in done] == [0, 0], done
    assert sorted("Running upgrade" in one.stdout for one in done) == [False, True]
    assert server.execute("SELECT version_num FROM alembic_version", empty_database) == [("0001",)]


def refusal(alembic: Config) -> str:
    """Of an upgrade; Alembic's command line prints it after "FAILED:" and nothing else."""
    with pytest.raises(CommandError) as caught:
        command.upgrade(alembic, "head")
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_waiting_for_another_is_bounded(alembic: Config, server: Server, empty_database: str) -> None:
    alembic.cmd_opts = Namespace(x=["lock_timeout=200ms"])
    with psycopg.connect(server.url(empty_database), autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        assert refusal(alembic) == "Another process is migrating this database; waited 200ms for it."
    assert server.execute(TABLES, empty_database) == []


def test_database_ahead_of_the_code(alembic: Config, server: Server, database: str) -> None:
    server.execute("UPDATE alembic_version SET version_num = '0999'", database)
    assert refusal(alembic).startswith("The database is ahead of this code, which has no migration 0999. Nothing was")


def test_database_away(alembic: Config, cluster: Cluster, database: str) -> None:
    cluster.stop()
    said = refusal(alembic)
    assert said.startswith("The database does not answer, or gave up: connection")
    assert quote(PASSWORD, safe="") not in said
    assert PASSWORD not in said


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what is deployed of the project."""
    project = tmp_path / "project"
    for name in ("migrations", "src"):
        shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "alembic.ini", project)
    return project


def add_migration(project: Path, body: str) -> None:
    first = project / "migrations" / "versions" / "0001_parts.py"
    text = first.read_text().replace("down_revision = None", 'down_revision = "0001"')
    text = text.replace('revision = "0001"', 'revision = "0002"', 1)
    text = text[: text.index("def upgrade")] + f"def upgrade() -> None:\n    {body}\n"
    first.with_name("0002_more.py").write_text(text)


def test_in_the_directory_of_a_release(
    project: Path, server: Server, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As deployed: the package is not installed, nothing there may be written, and there is no HOME."""
    monkeypatch.delenv("HOME")
    monkeypatch.chdir(project)
    with project.joinpath("src/thecodeforge/__init__.py").open("a") as package:
        package.write("print('loaded from', __file__)\n")
    for path in (project, *project.rglob("*")):
        path.chmod(path.stat().st_mode & 0o555)
    done = run_alembic("upgrade", "head")
    assert done.returncode == 0, done.stdout
    assert f"loaded from {project}" in done.stdout
    assert server.execute(TABLES, empty_database) == [("alembic_version",), ("parts",)]


def test_a_migration_that_fails_is_undone(project: Path, server: Server, empty_database: str) -> None:
    add_migration(project, "op.create_table('more'); raise RuntimeError('half-way')")
    with pytest.raises(RuntimeError, match="half-way"):
        command.upgrade(Config(project / "alembic.ini"), "head")
    assert server.execute(TABLES, empty_database) == [("alembic_version",), ("parts",)]
    assert server.execute("SELECT version_num FROM alembic_version", empty_database) == [("0001",)]


def test_a_migration_does_not_wait_long_for_a_table(project: Path, server: Server, database: str) -> None:
    add_migration(project, "op.drop_column('parts', 'quantity')")
    environment = project / "migrations" / "env.py"
    environment.write_text(environment.read_text().replace('"5s"', '"200ms"'))
    with psycopg.connect(server.url(database)) as user:
        user.execute("SELECT * FROM parts")
        said = refusal(Config(project / "alembic.ini"))
    assert said.startswith("A table that a migration changes was in use for too long.")
    assert server.execute("SELECT version_num FROM alembic_version", database) == [("0001",)]
