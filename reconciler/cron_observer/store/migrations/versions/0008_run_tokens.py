"""Run tokens: keys that sign what one run may say; and a guard of moves."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the signing keys and the guard."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # The driver's own call: many statements, and a percent sign that is no placeholder.
    op.get_bind().connection.cursor().execute(script)
