"""How Alembic runs here: always on the connection, and in the transaction, of lut_store.database."""

from __future__ import annotations

from alembic import context

from lut_store.schema import metadata

connection = context.config.attributes["connection"]
# SQLite can take back a half-made schema; Alembic does not believe it unless told.
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
