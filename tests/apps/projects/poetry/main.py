from importlib.metadata import packages_distributions

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def packages(request):
    present = packages_distributions()
    return JSONResponse({name: name in present for name in ("gunicorn", "iniconfig")})


app = Starlette(routes=[Route("/", packages)])
