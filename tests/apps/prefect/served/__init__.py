"""What is served, as a module of this project."""

from prefect.server.api.server import create_app

__all__ = ["create_app"]
