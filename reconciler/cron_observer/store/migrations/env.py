"""Alembic's environment: migrations run on the connection that `store.migrate` hands over, in its transaction."""

from alembic import context

from cron_observer.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    compare_type=True,
    compare_server_default=True,
    include_name=lambda name, kind, _parents: kind != "table" or name in metadata.tables,
)
with context.begin_transaction():
    context.run_migrations()
