"""Statistics: final outcomes by quarter hours, with histograms of durations and start delays."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the roll-ups."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # The driver's own call: many statements, and a percent sign that is no placeholder.
    op.get_bind().connection.cursor().execute(script)
