from pydantic_settings import BaseSettings
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel


class Settings(BaseSettings):
    database_url: str


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str


engine = create_async_engine(Settings().database_url, pool_size=2, max_overflow=0)
