"""Run by Alembic. The connection, inside a transaction that holds the migration lock, comes from `schema`."""

from __future__ import annotations

from alembic import context

from sourcebus.catalog.schema import VERSION_TABLE
from sourcebus.catalog.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
