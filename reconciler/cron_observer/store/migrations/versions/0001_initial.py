"""The first schema."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table, policy, grant and partition of the first schema."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # The driver's own call: many statements, and a percent sign that is no placeholder.
    op.get_bind().connection.cursor().execute(script)
