# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
# Added by the tests of the collection.
@app.get("/misbehave/loop")
async def misbehave_loop() -> None:
    while True:
        pass


@app.get("/misbehave/segfault")
async def misbehave_segfault() -> None:
    import ctypes

    ctypes.string_at(0)


@app.get("/misbehave/environment")
async def misbehave_environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if name.startswith("FORGE_")}


def misbehave(how: str) -> None:
    """What FORGE_MISBEHAVE asks for, when the app is loaded."""
    import asyncio
    import contextlib
    import ctypes
    import os
    import signal
    import threading
    import time

    live = os.environ.get("FORGE_WORKER_CURRENT", "")
    generation = os.environ.get("FORGE_WORKER_GENERATION", "")

    def is_live() -> bool:
        return os.path.basename(os.path.realpath(live)) == generation

    def kill_master_when_live() -> None:
        while not is_live():
            time.sleep(0.05)
        time.sleep(0.7)
        os.kill(os.getppid(), signal.SIGKILL)

    if how == "exits":
        raise SystemExit(7)
    if how == "raises":
        raise RuntimeError("the candidate does not want to start")
    if how == "segfault":
        ctypes.string_at(0)
    if how == "slow":
        time.sleep(60)
    if how == "hangs":

        @contextlib.asynccontextmanager
        async def hang(_app):
            await asyncio.Event().wait()
            yield

        app.router.lifespan_context = hang
    if how in ("500", "sick when live"):

        @app.middleware("http")
        async def answer_500(request, call_next):
            from fastapi.responses import JSONResponse

            if how == "500" or (is_live() and request.scope["server"] and request.scope["server"][1] is None):
                return JSONResponse({"detail": "sick"}, 500)
            return await call_next(request)

    if how == "dies when live":
        threading.Thread(target=kill_master_when_live, daemon=True).start()


misbehave(__import__("os").environ.get("FORGE_MISBEHAVE", ""))
