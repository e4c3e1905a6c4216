"""The app of the benchmark: real FastAPI and settings, without a database, so that the tools are compared."""

import os
from typing import Any

from fastapi import FastAPI
from pydantic_settings import BaseSettings, SettingsConfigDict

from .version import VERSION


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FORGE_", extra="ignore")

    greeting: str


settings = Settings()
app = FastAPI()


@app.get("/")
async def hello() -> dict[str, str]:
    return {"hello": settings.greeting}


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/version")
async def version() -> dict[str, Any]:
    return {"version": VERSION, "greeting": settings.greeting, "pid": os.getpid()}
