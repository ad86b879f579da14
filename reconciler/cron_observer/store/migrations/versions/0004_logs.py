"""Logs: where lines begin in a chunk, and what was left out of the middle of a long one."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add what reading a million lines needs."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # The driver's own call: many statements, and a percent sign that is no placeholder.
    op.get_bind().connection.cursor().execute(script)
