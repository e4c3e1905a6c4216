from contextlib import asynccontextmanager

from fastapi import FastAPI

from letters.jobs import jobs


@asynccontextmanager
async def lifespan(app):
    async with jobs.open_async():
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz():
    return {"ok": await jobs.check_connection_async()}


@app.get("/sent")
async def sent():
    done = await jobs.job_manager.list_jobs_async(status="succeeded")
    return {"reminded": any(job.task_kwargs == {"to": "everybody"} for job in done)}
