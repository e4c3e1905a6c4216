"""A small FastAPI service on PostgreSQL."""
