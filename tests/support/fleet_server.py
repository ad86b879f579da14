"""``cron-observer`` as it is, or broken in one place: ``python -m support.fleet_server TWIN COMMAND...``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from cron_observer import lifecycle
from cron_observer.lifecycle import decide
from cron_observer.store.executions import claims, deadlines
from cron_observer.store.logs import Lines
from cron_observer_sdk.cli import main


def _early() -> None:
    real = claims.expire

    async def expire(conn: Any, tenant_id: Any, now: Any, **more: Any) -> Any:
        return await real(conn, tenant_id, now + timedelta(seconds=8), **more)

    claims.expire = expire


def _never() -> None:
    async def expire(*_given: Any, **_more: Any) -> int:
        return 0

    claims.expire = expire


def _short_sighted() -> None:
    deadlines._LOOKS = 1  # type: ignore[misc]


def _any_fence() -> None:
    real = decide._refuse
    decide._refuse = lambda run, _fence: real(run, run.fence)


def _for_ever() -> None:
    decide.LEASE_LOSSES_MAX = 1_000_000  # type: ignore[misc]


def _again() -> None:
    real = Lines.part
    Lines.part = lambda self, _first, last=None: real(self, 0, last)  # type: ignore[method-assign]


#: What is broken, and how.
TWINS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "leases that end before their time": _early,
    "leases that never end": _never,
    "renewed leases that hide dead workers": _short_sighted,
    "an old fence that is taken": _any_fence,
    "leases that are lost for ever again": _for_ever,
    "lines that are taken again": _again,
}

if __name__ == "__main__":
    assert lifecycle.claim
    TWINS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
