"""Tasks by name, the deleted ones too: an index."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the index."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # The driver's own call: the statements as they stand.
    op.get_bind().connection.cursor().execute(script)
