from importlib.metadata import version
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


def create_app():
    titles = Path("index", "titles.txt").read_text().splitlines()

    async def index(request):
        return JSONResponse({"version": version("shop"), "titles": titles})

    return Starlette(routes=[Route("/", index)])
