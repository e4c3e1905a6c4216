import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django = get_asgi_application()

from django.conf import settings  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from fastapi.staticfiles import StaticFiles  # noqa: E402
from notes.models import Note  # noqa: E402

application = FastAPI()


@application.get("/api/notes")
async def notes():
    return {"notes": await Note.objects.acount()}


application.mount("/static", StaticFiles(directory=settings.STATIC_ROOT))
application.mount("/", django)
