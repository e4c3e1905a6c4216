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
