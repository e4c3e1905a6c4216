from importlib.metadata import version

from fastapi import FastAPI

from shop import _version

app = FastAPI(title="Shop", version=version("shop"))


@app.get("/version")
def versions():
    return {"installed": app.version, "written": _version.version}
