import os
from functools import lru_cache

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_file=os.environ.get("ENV_FILE", ".env"))

    title: str
    api_key: SecretStr
    colours: list[str]


@lru_cache
def settings() -> Settings:
    return Settings()
