from contextlib import asynccontextmanager

from fastapi import FastAPI, Request

from app.config import settings


@asynccontextmanager
async def lifespan(app):
    yield {"palette": sorted(settings().colours)}


app = FastAPI(title=settings().title, lifespan=lifespan)


@app.get("/")
async def palette(request: Request):
    return {"title": app.title, "palette": request.state.palette}
