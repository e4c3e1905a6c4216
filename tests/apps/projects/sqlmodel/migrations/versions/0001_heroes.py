import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    heroes = op.create_table("hero", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String))
    op.bulk_insert(heroes, [{"name": "Deadpond"}])


def downgrade():
    op.drop_table("hero")
