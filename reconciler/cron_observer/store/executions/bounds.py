"""Where to look: between which ids everything lies that is due or runs, and which slots still count."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from cron_observer.lifecycle import OFFERED_FOR
from cron_observer.schedule import id_ceil, id_floor

#: A slot of an older plan counts if it was nominal, or fired, by the instant at which the newer one took effect. What
#: was claimed once belongs to no plan any more.
CURRENT: Final = """
(e.plan_generation IS NULL OR e.fence > 0 OR EXISTS (
    SELECT FROM task_plan p
    WHERE p.tenant_id = e.tenant_id AND p.task_uid = e.task_uid
      AND (p.generation = e.plan_generation OR e.nominal_at <= p.effective_from
           OR e.fire_at <= p.effective_from)
))
"""

#: Parameters of every statement that looks for executions by what they are, not by their ids.
BETWEEN: Final = "e.id BETWEEN %(low)s AND %(high)s"

#: An id carries the nominal instant; a calendar shifts the fire time by 14 days at most, jitter by one more.
SHIFT: Final = timedelta(days=16)

#: Longest run deadline that a spec may ask for, and a week for offers: what runs is never older than both.
_RUNS_FOR: Final = timedelta(days=7)

#: All ids there are.
EVERYWHERE: Final = {"low": UUID(int=0), "high": UUID(int=(1 << 128) - 1)}


def due_bounds(now: datetime) -> dict[str, UUID]:
    """Return the ids between which everything lies that is or will soon be due."""
    return {"low": id_floor(now - OFFERED_FOR - SHIFT), "high": id_ceil(now + SHIFT)}


def running_bounds(now: datetime) -> dict[str, UUID]:
    """Return the ids between which everything lies that runs."""
    return {"low": id_floor(now - OFFERED_FOR - _RUNS_FOR - SHIFT), "high": id_ceil(now + SHIFT)}
