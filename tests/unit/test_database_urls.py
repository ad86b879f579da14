"""How the address of a database is handed to PostgreSQL's own programs."""

from __future__ import annotations

import pytest

from cron_observer.store.bootstrap import libpq


@pytest.mark.parametrize(
    ("url", "shown", "secret"),
    [
        ("postgresql+psycopg://ada:p%40ss@db/crons?sslmode=allow", "postgresql://ada@db/crons?sslmode=allow", "p@ss"),
        ("postgresql://ada@db:5433/crons", "postgresql://ada@db:5433/crons", None),
    ],
)
def test_no_password_on_a_command_line(url: str, shown: str, secret: str | None) -> None:
    """What every user of the machine can read holds no password; the program finds it in its environment."""
    assert libpq(url) == (shown, {"PGPASSWORD": secret} if secret else {})
