"""Tables of the newest schema. Alembic compares them with its migrations."""

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Identity, Integer, MetaData, String, Table, func

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

parts = Table(
    "parts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("serial", String(64), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("quantity >= 0", name="quantity"),
)
