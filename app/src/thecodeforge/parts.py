"""The one resource: parts, each with a serial number that its client chooses.

The serial number makes a repeated POST harmless: it is answered with 409, and the part exists once.
"""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from .database import DatabaseOfApp
from .paging import CURSOR_PATTERN, cursor_at, id_at
from .tables import parts

router = APIRouter(prefix="/parts", tags=["parts"])

PartId = Annotated[int, Path(ge=1, le=2**63 - 1)]
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "No such part"}}


class NewPart(BaseModel):
    """What a client sends. PostgreSQL's text has no NUL, and a name has no business with control characters."""

    serial: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")
    name: str = Field(min_length=1, max_length=200, pattern="^[^\\x00-\\x1f\\x7f]*$")
    quantity: int = Field(default=1, ge=0, le=2**31 - 1)


class Part(NewPart):
    id: int
    created_at: datetime


class Page(BaseModel):
    items: list[Part]
    next: str | None = Field(description="Give it as `after` to get the next page; null on the last one.")


@router.post("", status_code=201, responses={409: {"description": "The serial number is taken"}})
async def create_part(new: NewPart, database: DatabaseOfApp, response: Response) -> Part:
    statement = insert(parts).values(new.model_dump()).on_conflict_do_nothing(index_elements=["serial"])
    async with database.transaction() as connection:
        row = (await connection.execute(statement.returning(parts))).one_or_none()
    if row is None:
        raise HTTPException(409, "A part with this serial number exists.")
    response.headers["Location"] = f"/parts/{row.id}"
    return Part.model_validate(row, from_attributes=True)


@router.get("")
async def list_parts(
    request: Request,
    database: DatabaseOfApp,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    after: Annotated[str | None, Query(pattern=CURSOR_PATTERN)] = None,
) -> Page:
    """Parts in the order of their ids, which is about that of their creation."""
    key = request.app.state.settings.secret_key.get_secret_value()
    last = id_at(after, key) if after else 0
    if last is None:
        raise HTTPException(422, "after is not a cursor of this service.")
    statement = select(parts).where(parts.c.id > last).order_by(parts.c.id).limit(limit + 1)
    async with database.transaction() as connection:
        rows = (await connection.execute(statement)).all()
    items = [Part.model_validate(row, from_attributes=True) for row in rows[:limit]]
    return Page(items=items, next=cursor_at(items[-1].id, key) if len(rows) > limit else None)


@router.get("/{part_id}", responses=NOT_FOUND)
async def read_part(part_id: PartId, database: DatabaseOfApp) -> Part:
    async with database.transaction() as connection:
        row = (await connection.execute(select(parts).where(parts.c.id == part_id))).one_or_none()
    if row is None:
        raise HTTPException(404, "No such part.")
    return Part.model_validate(row, from_attributes=True)


@router.delete("/{part_id}", status_code=204, responses=NOT_FOUND)
async def delete_part(part_id: PartId, database: DatabaseOfApp) -> None:
    async with database.transaction() as connection:
        deleted = (await connection.execute(delete(parts).where(parts.c.id == part_id))).rowcount
    if not deleted:
        raise HTTPException(404, "No such part.")
