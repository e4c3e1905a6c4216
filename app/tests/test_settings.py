"""A setting that is missing or wrong is named with its rule, and no value is ever shown."""

import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from conftest import PROJECT, SECRET_KEY, run_alembic
from pydantic import ValidationError
from serving import GUNICORN, UVICORN, Serving

from thecodeforge.settings import ForgeSettings, load_settings

HIDDEN = "hunter2"  # part of every bad value below
GOOD = {"FORGE_DATABASE_URL": f"postgresql://forge:{HIDDEN}@db/forge", "FORGE_SECRET_KEY": SECRET_KEY}


def set_all(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    for name, value in {**GOOD, **settings}.items():
        monkeypatch.setenv(name, value)


def refusal() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        load_settings()
    return caught.value


def test_good_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, FORGE_POOL_SIZE="7", FORGE_DEBUG="true", FORGE_RELEASE="r1", FORGE_LOG_LEVEL="ERROR")
    settings = load_settings()
    assert (settings.pool_size, settings.pool_max_overflow, settings.debug) == (7, 2, True)
    assert (settings.release, settings.generation, settings.log_level) == ("r1", "development", "ERROR")
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert HIDDEN not in shown
        assert SECRET_KEY not in shown


def test_names_of_others_with_the_prefix_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, FORGE_WORKER_DRAIN="20")
    load_settings()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%40%2F%25@h:5/d", {"user": "u", "password": "p@/%", "host": "h", "port": "5", "dbname": "d"}),
        ("postgresql+psycopg://u@h/d?sslmode=require", {"user": "u", "host": "h", "dbname": "d", "sslmode": "require"}),
        ("postgresql://u@a,b:6/d?target_session_attrs=read-write", {"host": "a,b", "port": ",6"}),
        ("postgresql:///d?host=/run/postgresql", {"host": "/run/postgresql", "dbname": "d"}),
        ("postgresql://u@[::1]/d?connect_timeout=9", {"host": "::1", "connect_timeout": "9"}),
    ],
)
def test_urls_of_databases(monkeypatch: pytest.MonkeyPatch, url: str, expected: dict[str, str]) -> None:
    from psycopg.conninfo import conninfo_to_dict

    set_all(monkeypatch, FORGE_DATABASE_URL=url)
    found = conninfo_to_dict(load_settings().conninfo)
    assert found == {"connect_timeout": "3", **{name: found.get(name) for name in found}} | expected


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("FORGE_SECRET_KEY", None, "is missing."),
        ("FORGE_SECRET_KEY", HIDDEN, "is wrong: String should have at least 32 characters."),
        ("FORGE_SECRET_KEY", "", "is wrong: String should have at least 32 characters."),
        ("FORGE_DATABASE_URL", None, "is missing."),
        ("FORGE_DATABASE_URL", HIDDEN, "is wrong: Input should be a valid URL, relative URL without a base."),
        (
            "FORGE_DATABASE_URL",
            f"mysql://u:{HIDDEN}@h/d",
            "is wrong: URL scheme should be 'postgresql' or 'postgresql+psycopg'.",
        ),
        ("FORGE_DATABASE_URL", f"postgresql://u:{HIDDEN}/x@h/d", "is wrong: Input should be a valid URL, invalid port"),
        ("FORGE_DATABASE_URL", f"postgresql://u:%{HIDDEN}@h/d", "is wrong: URL is not one that libpq accepts."),
        ("FORGE_DATABASE_URL", f"postgresql://u@h/d?{HIDDEN}=1", "is wrong: URL is not one that libpq accepts."),
        ("FORGE_DEBUG", HIDDEN, "is wrong: Input should be a valid boolean"),
        ("FORGE_POOL_SIZE", HIDDEN, "is wrong: Input should be a valid integer"),
        ("FORGE_POOL_SIZE", "0", "is wrong: Input should be greater than or equal to 1."),
        ("FORGE_POOL_MAX_OVERFLOW", "-1", "is wrong: Input should be greater than or equal to 0."),
        ("FORGE_LOG_LEVEL", HIDDEN, "is wrong: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'."),
    ],
)
def test_bad_settings(monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, rule: str) -> None:
    set_all(monkeypatch)
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    error = refusal()
    assert [note.startswith(f"{name} {rule}") for note in error.__notes__] == [True]
    assert error.__cause__ is error.__context__ is None
    # What a deploy tool needs: the class knows the prefix, an error has field and rule.
    assert error.title == ForgeSettings.__name__
    [problem] = error.errors(include_input=False, include_url=False)
    assert "FORGE_" + str(problem["loc"][0]).upper() == name
    for shown in (str(error), repr(error), str(problem), "".join(traceback.format_exception(error))):
        assert HIDDEN not in shown
        assert SECRET_KEY not in shown


def test_every_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_DEBUG", "perhaps")
    assert [note.split()[0] for note in refusal().__notes__] == [
        "FORGE_DATABASE_URL",
        "FORGE_SECRET_KEY",
        "FORGE_DEBUG",
    ]


def test_dotenv_is_read_and_its_misspelt_names_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_all(monkeypatch)
    tmp_path.joinpath(".env").write_text("FORGE_POOL_SIZE=9\n")
    assert load_settings().pool_size == 9
    tmp_path.joinpath(".env").write_text(f"FORGE_SECRT_KEY={HIDDEN}\n")
    error = refusal()
    assert error.__notes__ == ["FORGE_SECRT_KEY in .env is not a setting."]
    assert HIDDEN not in "".join(traceback.format_exception(error))


def test_the_example_is_valid(tmp_path: Path) -> None:
    example = PROJECT / ".env.example"
    tmp_path.joinpath(".env").write_text(example.read_text())
    assert load_settings().debug is True


@pytest.mark.parametrize("command", [UVICORN, [*GUNICORN, "--workers=1"]], ids=["uvicorn", "gunicorn"])
def test_a_server_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list[str]) -> None:
    set_all(monkeypatch, FORGE_DATABASE_URL=f"mysql://u:{HIDDEN}@h/d", FORGE_SECRET_KEY=HIDDEN)
    server = Serving(command, tmp_path)
    assert server.process.wait(60) != 0
    lines = server.output.splitlines()
    assert "FORGE_DATABASE_URL is wrong: URL scheme should be 'postgresql' or 'postgresql+psycopg'." in lines
    assert "FORGE_SECRET_KEY is wrong: String should have at least 32 characters." in lines
    assert HIDDEN not in server.output


def test_migrations_do_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_SECRET_KEY", HIDDEN)
    monkeypatch.chdir(PROJECT)
    done = run_alembic("upgrade", "head")
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1].endswith(
        "FORGE_DATABASE_URL is missing. FORGE_SECRET_KEY is wrong: String should have at least 32 characters."
    )
    assert "Traceback" not in done.stdout
    assert HIDDEN not in done.stdout


def test_importing_the_app_reads_the_settings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch)
    script = """
import pydantic_settings
built = []
before = pydantic_settings.BaseSettings.__init__
def counting(self, *values, **named):
    built.append(type(self).__name__)
    before(self, *values, **named)
pydantic_settings.BaseSettings.__init__ = counting
import thecodeforge.main
assert built == ["ForgeSettings"], built
import sys
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
