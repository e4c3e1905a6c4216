"""What is served, as a module of this project."""

from fractal_server.main import app

__all__ = ["app"]
