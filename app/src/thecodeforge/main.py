"""The app that a server loads: ``thecodeforge.main:app``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from . import health, parts
from .database import Database, DatabaseAway
from .log import configure_logging, logger
from .schema import Schema
from .settings import ForgeSettings, load_settings


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens nothing: a process that starts while the database is away serves when it is back."""
    settings: ForgeSettings = app.state.settings
    fields = {"release": settings.release, "generation": settings.generation}
    logger.info("started", extra={"fields": fields})
    yield
    await app.state.database.close()
    logger.info("stopped", extra={"fields": fields})


async def answer_away(_request: Request, _error: DatabaseAway) -> JSONResponse:
    return JSONResponse({"detail": "The database does not answer."}, 503, {"Retry-After": "1"})


async def answer_invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Without the client's input, which FastAPI echoes, and which may be what JSON cannot hold, such as NaN."""
    detail = [{key: problem[key] for key in ("loc", "msg", "type")} for problem in error.errors()]
    return JSONResponse({"detail": detail}, 422)


def create_app(settings: ForgeSettings | None = None) -> FastAPI:
    """Build the app.

    :param settings: those of the environment when not given.
    :raises pydantic.ValidationError: for settings that are missing or wrong; see :func:`load_settings`.
    """
    settings = settings or load_settings()
    configure_logging(settings.log_level)
    app = FastAPI(
        title="The Code Forge: parts",
        lifespan=lifespan,
        debug=settings.debug,
        openapi_url="/openapi.json" if settings.debug else None,  # and with it /docs
        exception_handlers={DatabaseAway: answer_away, RequestValidationError: answer_invalid},
    )
    app.state.settings = settings
    app.state.database = Database(settings)
    app.state.schema = Schema.read()
    app.include_router(health.router)
    app.include_router(parts.router)
    return app


app = create_app()
