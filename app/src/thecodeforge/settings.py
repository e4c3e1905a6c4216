"""Settings of the app, from environment variables that start with FORGE_."""

from typing import Annotated, Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import Field, PostgresDsn, Secret, StringConstraints, UrlConstraints, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "FORGE_"

# What libpq should do where the URL does not say otherwise: give up in seconds on a server that went silent.
PATIENCE = {
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",
    "fallback_application_name": "thecodeforge",
}


class DatabaseUrl(PostgresDsn):
    """Only the schemes for which there is a driver, and no host for a server behind a unix socket."""

    _constraints = UrlConstraints(allowed_schemes=["postgresql", "postgresql+psycopg"])


class ForgeSettings(BaseSettings):
    """Every setting of the app. Values of secrets are in no representation and in no error."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    database_url: Secret[DatabaseUrl]
    secret_key: Secret[Annotated[str, StringConstraints(min_length=32)]]
    debug: bool = False
    pool_size: int = Field(default=2, ge=1, le=100)
    pool_max_overflow: int = Field(default=2, ge=0, le=100)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    release: str = "development"
    generation: str = "development"

    @field_validator("database_url")
    @classmethod
    def libpq_accepts(cls, url: Secret[DatabaseUrl]) -> Secret[DatabaseUrl]:
        """Else the app would start and fail on every request. libpq's own message quotes the URL."""
        try:
            conninfo_to_dict(libpq_url(url))
        except psycopg.Error:
            raise PydanticCustomError("database_url", "URL is not one that libpq accepts") from None
        return url

    @property
    def conninfo(self) -> str:
        """What both psycopg and the migrations connect with. Contains the password."""
        url = libpq_url(self.database_url)
        given = conninfo_to_dict(url)
        return make_conninfo(url, **{name: value for name, value in PATIENCE.items() if name not in given})


def libpq_url(url: Secret[DatabaseUrl]) -> str:
    """The URL without SQLAlchemy's name of a driver, which libpq does not know."""
    return str(url.get_secret_value()).replace("postgresql+psycopg:", "postgresql:", 1)


def load_settings() -> ForgeSettings:
    """Read the settings once.

    :raises ValidationError: naming every bad setting as it is called in the environment, in its notes, which Python
        prints below the message. None of its texts has a value.
    """
    try:
        return ForgeSettings()
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False, include_context=False):
            name = "_".join(map(str, problem["loc"])).upper()
            if problem["type"] == "missing":
                error.add_note(f"{PREFIX}{name} is missing.")
            elif problem["type"] == "extra_forbidden":  # from .env, so it has its prefix
                error.add_note(f"{name} in .env is not a setting.")
            else:
                error.add_note(f"{PREFIX}{name} is wrong: {problem['msg']}.")
        raise
