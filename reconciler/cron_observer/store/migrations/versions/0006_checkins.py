"""Check-ins: addresses to ping, and what is known of runs that somebody else fires."""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add what check-ins need."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # The driver's own call: many statements, and a percent sign that is no placeholder.
    op.get_bind().connection.cursor().execute(script)
