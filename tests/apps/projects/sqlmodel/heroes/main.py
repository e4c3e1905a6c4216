from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from heroes.database import Hero, engine

app = FastAPI()


async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as opened:
        yield opened


@app.get("/heroes")
async def heroes(session: Annotated[AsyncSession, Depends(session)]) -> list[Hero]:
    return list((await session.exec(select(Hero))).all())
