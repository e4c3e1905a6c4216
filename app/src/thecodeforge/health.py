"""What operators and load balancers ask."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import psycopg
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from .database import Database, DatabaseAway, DatabaseOfApp
from .schema import Schema

READY_SECONDS = 2.0

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> JSONResponse:
    """This process answers. Says nothing of the database: restarting the app would not bring it back."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", responses={503: {"description": "Not ready, and why"}})
async def readyz(request: Request, database: DatabaseOfApp) -> JSONResponse:
    """The database answers and has the schema that this code needs."""
    schema: Schema = request.app.state.schema
    try:
        applied = await within(READY_SECONDS, applied_revisions(database))
    except (DatabaseAway, TimeoutError):
        return unavailable("The database does not answer.")
    if not schema.serves(applied):
        found = ", ".join(applied) or "empty"
        return unavailable(f"The schema is {found}; this release needs {', '.join(sorted(schema.heads))}.")
    return JSONResponse({"status": "ready", "schema": applied})


@router.get("/version")
async def version(request: Request) -> JSONResponse:
    """What runs here."""
    settings = request.app.state.settings
    return JSONResponse({"release": settings.release, "generation": settings.generation, "pid": os.getpid()})


async def applied_revisions(database: Database) -> list[str]:
    """Revisions that the database is at: one, or none before the first migration."""
    try:
        async with database.transaction() as connection:
            return sorted(await connection.scalars(text("SELECT version_num FROM alembic_version")))
    except ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.UndefinedTable):
            return []
        raise


async def within(seconds: float, work: Coroutine[Any, Any, list[str]]) -> list[str]:
    """Wait so long and not longer.

    ``asyncio.timeout()`` waits for what it cancels, and psycopg tries for ten seconds to cancel a query in good order.

    :raises TimeoutError: when the work is not done; it is cancelled in the background.
    """
    task = asyncio.create_task(work)
    await asyncio.wait({task}, timeout=seconds)
    if task.done():
        return task.result()
    task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody else looks at its end
    task.cancel()
    raise TimeoutError


def unavailable(reason: str) -> JSONResponse:
    return JSONResponse({"status": "unavailable", "reason": reason}, status_code=503)
