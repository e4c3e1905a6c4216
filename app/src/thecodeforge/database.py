"""Access to the database, which may be away: the app starts without it, says so, and goes on when it is back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from psycopg import AsyncConnection
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection as Connection
from sqlalchemy.ext.asyncio import create_async_engine

from .log import logger
from .settings import ForgeSettings

TRANSACTION_SECONDS = 10.0  # the wait for a connection included

AWAY = (OperationalError, InterfaceError, PoolTimeoutError, TimeoutError)


class DatabaseAway(Exception):
    """The database did not answer, or not in time. Whether a commit was carried out is then unknown."""


class Database:
    """A pool of connections, none of which is opened before it is needed."""

    def __init__(self, settings: ForgeSettings) -> None:
        self._engine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=lambda: AsyncConnection.connect(settings.conninfo),
            pool_size=settings.pool_size,
            max_overflow=settings.pool_max_overflow,
            pool_timeout=TRANSACTION_SECONDS,
            pool_pre_ping=True,  # connections from before a restart of the server fail here, not in a request
            hide_parameters=True,
        )
        self._away = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction, which is committed when the block ends.

        :raises DatabaseAway: when the database does not answer.
        """
        try:
            async with asyncio.timeout(TRANSACTION_SECONDS), self._engine.begin() as connection:
                yield connection
        except AWAY as error:
            if not self._away:  # once, and not for each of the thousands of requests that meet it
                self._away = True
                logger.warning("database away", extra={"fields": {"error": type(error).__name__}})
            raise DatabaseAway from None
        if self._away:
            self._away = False
            logger.info("database back")

    async def close(self) -> None:
        await self._engine.dispose()


async def of_app(request: Request) -> Database:
    """``async``, because FastAPI runs other dependencies in a thread, for each request."""
    database: Database = request.app.state.database
    return database


DatabaseOfApp = Annotated[Database, Depends(of_app)]
